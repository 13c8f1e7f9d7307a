"""Rate and peak memory of LoRA steps by transformers + peft, as one JSON line.

usage: peft_rate.py MODEL.gguf DTYPE BATCH SEQ RANK STEPS THREADS    (the first step is not counted)

transformers reads the weights of the GGUF file themselves. Peak memory counts from the loaded model on, so that reading
the file does not enter it.
"""

import json
import os
import sys
import time

import peft
import torch
import transformers
from transformers.utils import logging

path, dtype, batch, seq, rank, steps, threads = sys.argv[1:]
batch, seq, rank, steps = int(batch), int(seq), int(rank), int(steps)
torch.set_num_threads(int(threads))
logging.set_verbosity_error()
logging.disable_progress_bar()

model = transformers.AutoModelForCausalLM.from_pretrained(
    os.path.dirname(path), gguf_file=os.path.basename(path), dtype=getattr(torch, dtype)
)
lora = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
model = peft.get_peft_model(model, lora)
model.train()
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
tokens = torch.randint(0, model.config.vocab_size, (batch, seq))

with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak of resident memory starts anew
times = []
for _ in range(steps):
    start = time.perf_counter()
    optimizer.zero_grad()
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    times.append(time.perf_counter() - start)
with open("/proc/self/status") as file:
    peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
counted = sorted(times[1:])
print(json.dumps({
    "versions": f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}",
    "tokens_per_second": batch * seq / counted[len(counted) // 2],
    "peak_bytes": peak,
}))
