"""Multiple choice by lm-evaluation-harness (hf backend, CPU), as one JSON line.

usage: arc_rate.py MODEL.gguf DTYPE BATCH ITEMS ARC_EASY.jsonl THREADS

The clock runs from the built requests to the scores: reading the model and the data does not enter it.
"""

import json
import os
import sys
import tempfile
import time

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers.utils import logging

from arc_task import NAME, arc_task

path, dtype, batch, items, data, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
logging.set_verbosity_error()
logging.disable_progress_bar()
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

model = HFLM(
    pretrained=os.path.dirname(path), gguf_file=os.path.basename(path), device="cpu", dtype=dtype, batch_size=int(batch)
)
seconds = 0.0
score = model.loglikelihood


def timed(*arguments, **options):
    """Scores the requests as before and counts the time."""
    global seconds
    start = time.perf_counter()
    found = score(*arguments, **options)
    seconds += time.perf_counter() - start
    return found


model.loglikelihood = timed
with tempfile.TemporaryDirectory() as folder:
    os.environ["HF_DATASETS_CACHE"] = folder
    results = lm_eval.simple_evaluate(
        model=model, tasks=[arc_task(data)], limit=int(items), task_manager=TaskManager(), bootstrap_iters=0
    )
scores = results["results"][NAME]
print(json.dumps({
    "version": lm_eval.__version__,
    "items_per_second": int(items) / seconds,
    "accuracy": scores["acc,none"],
    "accuracy_norm": scores["acc_norm,none"],
}))
