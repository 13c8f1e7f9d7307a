"""Multiple choice by lm-evaluation-harness (hf backend, CPU), as one JSON line.

usage: arc_rate.py MODEL.gguf DTYPE BATCH ITEMS ARC_EASY.jsonl THREADS

The clock runs from the built requests to the scores: reading the model and the data does not enter it.
"""

import json
import os
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import lm_eval
from lm_eval.tasks import TaskManager

from arc_task import NAME, arc_task
from lm_eval_clock import Clocked

path, dtype, batch, items, data, threads = sys.argv[1:]
clocked = Clocked(path, dtype, batch, threads)
with tempfile.TemporaryDirectory() as folder:
    os.environ["HF_DATASETS_CACHE"] = folder
    results = lm_eval.simple_evaluate(
        model=clocked.model, tasks=[arc_task(data)], limit=int(items), task_manager=TaskManager(), bootstrap_iters=0
    )
scores = results["results"][NAME]
print(json.dumps({
    "version": lm_eval.__version__,
    "items_per_second": int(items) / clocked.seconds,
    "accuracy": scores["acc,none"],
    "accuracy_norm": scores["acc_norm,none"],
}))
