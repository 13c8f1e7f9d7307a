#!/usr/bin/env python3
"""Trains with transformers and peft in f32 from adapters and a batch given as files, and keeps the losses.

    peft-parity.py MODEL FILES [--variants lora,rslora,dora,mixed]

MODEL  a Hugging Face folder, or a GGUF file (transformers dequantises it).
FILES  as train/examples/parity_files.rs writes them: FILES/VARIANT is a PEFT folder where the updates start, and
       FILES/batch.json {"sequences": [{"tokens": [..], "learn": [..]}, ..], "learning_rates": [..], "max_grad_norm": 1.0}.

The loss of a step is the mean over its learned tokens before the update; the updates are torch's AdamW without weight decay.
Written: FILES/golden.json {VARIANT: {"losses": [..], "grad_norms": [..]}}, which train/tests/parity.rs reads.
needs: torch, transformers, peft.
"""
import argparse, json, os

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def load(path):
    if path.endswith(".gguf"):
        folder, name = os.path.split(os.path.abspath(path))
        return AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def train(model, batch):
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    targets = sum(sum(s["learn"][1:]) for s in batch["sequences"])
    losses, norms = [], []
    for rate in batch["learning_rates"]:
        optimizer.zero_grad()
        total = 0.0
        for sequence in batch["sequences"]:
            tokens = torch.tensor([sequence["tokens"]])
            labels = torch.tensor([[t if l else -100 for t, l in zip(sequence["tokens"], sequence["learn"])]])
            logits = model(input_ids=tokens).logits
            loss = torch.nn.functional.cross_entropy(logits[0, :-1].float(), labels[0, 1:], ignore_index=-100, reduction="sum") / targets
            loss.backward()
            total += loss.item()
        norms.append(round(torch.nn.utils.clip_grad_norm_(trainable, batch["max_grad_norm"]).item(), 7))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(round(total, 7))
        print(f"  {len(losses)}: loss {losses[-1]:.7f} norm {norms[-1]:.6f}", flush=True)
    return {"losses": losses, "grad_norms": norms}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("files")
    parser.add_argument("--variants", default="lora,rslora,dora,mixed")
    arguments = parser.parse_args()
    batch = json.load(open(os.path.join(arguments.files, "batch.json")))
    golden = {}
    for variant in arguments.variants.split(","):
        print(variant, flush=True)
        adapter = os.path.join(arguments.files, variant)
        golden[variant] = train(PeftModel.from_pretrained(load(arguments.model), adapter, is_trainable=True), batch)
    with open(os.path.join(arguments.files, "golden.json"), "w") as file:
        json.dump(golden, file, separators=(",", ":"))
        file.write("\n")


main()
