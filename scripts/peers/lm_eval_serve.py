"""ARC-easy by lm-evaluation-harness through `pipeline serve`, item by item beside what our scorer finds, as one JSON line.

usage: lm_eval_serve.py BASE_URL MODEL.gguf ITEMS ARC_EASY.jsonl FOUND.json
FOUND.json is that of `cargo run --release -p espalier-eval --example choices MODEL.gguf TASK.yaml ITEMS PRECISION`, in the
precision that the server has; TASK.yaml is arc_task(ARC_EASY.jsonl) as JSON, which is YAML. MODEL.gguf is read for its tokenizer alone: texts go to the server as token ids.
"""

import json
import os
import sys
import tempfile
import time

import lm_eval
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer
from transformers.utils import logging

from arc_task import NAME, arc_task

base_url, path, items, data, found = sys.argv[1:]
logging.set_verbosity_error()
logging.disable_progress_bar()
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("OPENAI_API_KEY", os.environ.get("ESPALIER_API_KEY", "none"))

with tempfile.TemporaryDirectory() as folder:
    os.environ["HF_DATASETS_CACHE"] = folder
    tokenizer = os.path.join(folder, "tokenizer")
    AutoTokenizer.from_pretrained(os.path.dirname(path), gguf_file=os.path.basename(path)).save_pretrained(tokenizer)
    start = time.perf_counter()
    results = lm_eval.simple_evaluate(
        model="local-completions",
        model_args={"base_url": f"{base_url}/completions", "tokenizer": tokenizer, "tokenizer_backend": "huggingface",
                    "model": os.path.basename(path).removesuffix(".gguf"), "num_concurrent": 16},
        tasks=[arc_task(data)], limit=int(items), task_manager=TaskManager(), bootstrap_iters=0, log_samples=True,
    )
    seconds = time.perf_counter() - start
samples = sorted(results["samples"][NAME], key=lambda sample: sample["doc_id"])
theirs = [[float(answer[0][0]) for answer in sample["resps"]] for sample in samples]
ours = [item["logprobs"] for item in json.load(open(found))["items"]]
assert [len(one) for one in ours] == [len(one) for one in theirs], "not the same items"


def best(values):
    return max(range(len(values)), key=values.__getitem__)


equal = sum(best(a) == best(b) for a, b in zip(ours, theirs))
differences = [abs(x - y) for a, b in zip(ours, theirs) for x, y in zip(a, b)]
print(json.dumps({
    "version": lm_eval.__version__, "items": len(ours), "equal_choices": equal, "largest_difference": max(differences),
    "accuracy": results["results"][NAME]["acc,none"], "accuracy_of_eval": json.load(open(found))["accuracy"],
    "accuracy_normalized": results["results"][NAME]["acc_norm,none"], "seconds": seconds,
}))
