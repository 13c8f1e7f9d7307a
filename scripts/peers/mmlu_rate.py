"""MMLU with examples by lm-evaluation-harness (hf backend, CPU), as one JSON line.

usage: mmlu_rate.py MODEL.gguf DTYPE BATCH ITEMS EXAMPLES BENCH THREADS SUBJECT...

ITEMS of each subject behind EXAMPLES of its own. The clock runs from the built requests to the scores: reading the model and the
data does not enter it. BENCH is a folder as scripts/lm-eval-parity.py takes it.
"""

import importlib.util
import json
import os
import pathlib
import sys
import tempfile

path, dtype, batch, items, examples, bench, threads, *subjects = sys.argv[1:]
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import lm_eval
from lm_eval.tasks import TaskManager

from lm_eval_clock import Clocked

parity = importlib.util.spec_from_file_location("parity", pathlib.Path(__file__).parent.parent / "lm-eval-parity.py")
local = importlib.util.module_from_spec(parity)
parity.loader.exec_module(local)

clocked = Clocked(path, dtype, batch, threads)
with tempfile.TemporaryDirectory() as folder:
    os.environ["HF_DATASETS_CACHE"] = folder + "/cache"
    local.tasks(pathlib.Path(bench).resolve(), pathlib.Path(folder), ["mmlu"])
    results = lm_eval.simple_evaluate(
        model=clocked.model, tasks=[f"mmlu_{subject}" for subject in subjects], limit=int(items), num_fewshot=int(examples),
        task_manager=TaskManager(include_path=folder, include_defaults=False), bootstrap_iters=0,
    )
accuracies = [results["results"][f"mmlu_{subject}"]["acc,none"] for subject in subjects]
print(json.dumps({
    "version": lm_eval.__version__,
    "items_per_second": int(items) * len(subjects) / clocked.seconds,
    "accuracy": sum(accuracies) / len(accuracies),
}))
