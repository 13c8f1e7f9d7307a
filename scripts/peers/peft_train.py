"""LoRA training by transformers + peft on given rows, as one JSON line.

usage: peft_train.py MODEL.gguf FILE --dtype bfloat16 --threads 2 [--rank 16] [--alpha 32] [--rows 4] [--limit N] [--out DIR]

A line of FILE is an optimizer step, {"learning_rate": ..., "sequences": [{"tokens": [...], "weights": [...]}, ...]}, as the
example `steps` of the crate train writes them; or a row {"messages": [...]}: then a step is --rows rows in a seeded order, and
the last answer of each is learned. The sequences of a step go through the model in padded batches of at most --rows; the loss
is the mean over the step's learned tokens; AdamW without weight decay, gradients clipped to a norm of 1. --out receives the
adapter as a PEFT folder. The first step is not counted in the rate, which counts real tokens only.
"""

import argparse
import json
import os
import random
import time

import peft
import torch
import transformers
from transformers.utils import logging

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("steps")
parser.add_argument("--dtype", default="bfloat16")
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--rank", type=int, default=16)
parser.add_argument("--alpha", type=float, default=32)
parser.add_argument("--rows", type=int, default=4)
parser.add_argument("--limit", type=int)
parser.add_argument("--out")
given = parser.parse_args()
torch.set_num_threads(given.threads)
torch.manual_seed(0)
logging.set_verbosity_error()
logging.disable_progress_bar()

with open(given.steps) as file:
    steps = [json.loads(line) for line in file if line.strip()]
if "messages" in steps[0]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        os.path.dirname(given.model), gguf_file=os.path.basename(given.model)
    )

    def sequence(messages):
        """Tokens of a conversation; only those behind the opened last turn are learned."""
        whole = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
        asked = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
        return {"tokens": whole, "weights": [0] * len(asked) + [1] * (len(whole) - len(asked))}

    random.Random(0).shuffle(steps)
    sequences = [sequence(row["messages"]) for row in steps]
    steps = [
        {"learning_rate": 2e-4, "sequences": sequences[first : first + given.rows]}
        for first in range(0, len(sequences), given.rows)
    ]
steps = steps[: given.limit]
model = transformers.AutoModelForCausalLM.from_pretrained(
    os.path.dirname(given.model), gguf_file=os.path.basename(given.model), dtype=getattr(torch, given.dtype)
)
lora = peft.LoraConfig(r=given.rank, lora_alpha=given.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
# peft keeps the updates in f32 beside a bf16 base unless it is told otherwise.
model = peft.get_peft_model(model, lora)
model.train()
parameters = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(parameters, lr=1.0, weight_decay=0.0)


def batch(sequences):
    """Tokens, attention mask and labels, padded on the right."""
    longest = max(len(s["tokens"]) for s in sequences)
    tokens = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(tokens), torch.full_like(tokens, -100)
    for row, sequence in enumerate(sequences):
        length = len(sequence["tokens"])
        tokens[row, :length] = torch.tensor(sequence["tokens"])
        mask[row, :length] = 1
        learned = torch.tensor(sequence["weights"]) != 0
        labels[row, :length][learned] = tokens[row, :length][learned]
    return tokens, mask, labels


with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak of resident memory starts anew
times, real, padded, losses = [], [], [], []
for step in steps:
    start = time.perf_counter()
    sequences = step["sequences"]
    targets = sum(sum(w != 0 for w in s["weights"][1:]) for s in sequences)
    optimizer.zero_grad()
    total = 0.0
    places = 0
    for first in range(0, len(sequences), given.rows):
        tokens, mask, labels = batch(sequences[first : first + given.rows])
        places += tokens.numel()
        loss = model(input_ids=tokens, attention_mask=mask, labels=labels, num_items_in_batch=targets).loss
        loss.backward()
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = step["learning_rate"]
    optimizer.step()
    times.append(time.perf_counter() - start)
    real.append(sum(len(s["tokens"]) for s in sequences))
    padded.append(places)
    losses.append(total)
with open("/proc/self/status") as file:
    peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
if given.out:
    model.save_pretrained(given.out)
counted = slice(1, None) if len(times) > 1 else slice(None)
print(json.dumps({
    "versions": f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}",
    "tokens_per_second": sum(real[counted]) / sum(times[counted]),
    "real_share": sum(real[counted]) / sum(padded[counted]),
    "seconds": sum(times),
    "peak_bytes": peak,
    "first_loss": losses[0],
    "last_loss": losses[-1],
}))
