"""One recipe by `pipeline train` and by transformers + peft: held-out accuracy of both, and the time each took.

usage: same_recipe.py ITEMS.jsonl MODEL.gguf OUT [--held-out 300] [--epochs 5] [--set KEY=VALUE ...] [--threads N]

A line of ITEMS.jsonl is {"context": question, "continuation": answer} (simple_arithmetic_withspaces.jsonl of llm-foundry, for
example). The first items of a seeded shuffle are held out, the rest are training rows. peft takes the very steps that
`pipeline train` takes (the same rows in the same steps at the same learning rates), padded in batches of eight rows, from a
start of its own. Both adapters are read by `pipeline eval`, which asks the held-out questions.
environment: ESPALIER_PIPELINE, ESPALIER_STEPS (the example `steps` of the crate train), ESPALIER_PEERS (folder with venv).
"""

import argparse
import json
import math
import os
import pathlib
import random
import shutil
import subprocess
import time

parser = argparse.ArgumentParser()
parser.add_argument("items", type=pathlib.Path)
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("--held-out", type=int, default=300)
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--set", action="append", default=[])
parser.add_argument("--threads", type=int, default=os.cpu_count())
given = parser.parse_args()
pipeline, steps_of = os.environ["ESPALIER_PIPELINE"], os.environ["ESPALIER_STEPS"]
python = pathlib.Path(os.environ["ESPALIER_PEERS"]) / "venv" / "bin" / "python"
given.out.mkdir(parents=True, exist_ok=True)


def run(*command, **more):
    start = time.perf_counter()
    done = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True, **more)
    return time.perf_counter() - start, done.stdout


with open(given.items) as file:
    read = [json.loads(line) for line in file]
items = list({item["context"]: item["continuation"].strip() for item in read}.items())
random.Random(0).shuffle(items)
held_out, rows = items[: given.held_out], items[given.held_out :]

data = given.out / "rows.jsonl"
with open(data, "w") as file:
    for question, answer in rows:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        print(json.dumps({"messages": messages}), file=file)
leaf = given.out / "tree" / "skills" / "items"
leaf.mkdir(parents=True, exist_ok=True)
seeds = "".join(f"  - question: {json.dumps(q)}\n    answer: {json.dumps(a)}\n" for q, a in rows[:5])
(leaf / "qna.yaml").write_text(
    f"espalier: 1\ncreated_by: espalier\ntask_description: Answer.\nseed_examples:\n{seeds}test: test.jsonl\n"
)
with open(leaf / "test.jsonl", "w") as file:
    for question, answer in held_out:
        print(json.dumps({"question": question, "answer": answer}), file=file)

settings = [f"epochs={given.epochs}", *given.set]
settings = [word for setting in settings for word in ("--set", setting)]
shutil.rmtree(given.out / "ours", ignore_errors=True)
ours_seconds, _ = run(
    pipeline, "train", "--model", given.model, "--data", data, "--out", given.out / "ours", "--threads", given.threads, "--json", *settings
)
with open(given.out / "steps.jsonl", "w") as file:
    file.write(run(steps_of, given.model, data, *settings)[1])
peft_seconds, text = run(
    python, pathlib.Path(__file__).with_name("peft_train.py"), given.model, given.out / "steps.jsonl", "--rows", 8,
    "--threads", given.threads, "--out", given.out / "peft",
)  # fmt: skip
peft = json.loads(text.splitlines()[-1])


def wilson(right, n, z=1.959964):
    middle, share = (right + z * z / 2) / (n + z * z), right / n
    half = z / (n + z * z) * math.sqrt(n * share * (1 - share) + z * z / 4)
    return f"{right} of {n}, {100 * share:.1f} % ({100 * max(0.0, middle - half):.1f} to {100 * (middle + half):.1f})"


print(f"{len(rows)} rows, {given.epochs} passes, {peft['versions']}")
print(f"ours: {ours_seconds:.0f} s with loading; peft: {peft['seconds']:.0f} s in its steps, {peft_seconds:.0f} s with loading")
print(f"ratio of the whole times {peft_seconds / ours_seconds:.2f}; peft's last loss {peft['last_loss']:.4f}")
for name, adapter in [("base", None), ("ours", given.out / "ours" / "adapter"), ("peft", given.out / "peft")]:
    folder = given.out / f"eval-{name}"
    with_adapter = ["--adapter", adapter] if adapter else []
    run(pipeline, "eval", "--model", given.model, *with_adapter, "--tasks", given.out / "tree", "--out", folder, "--threads", given.threads)
    samples = [json.loads(line) for path in folder.glob("samples_*.jsonl") for line in open(path)]
    right = sum(sample["exact_match"] for sample in samples)
    print(f"{name}: {wilson(int(right), len(samples))}")
