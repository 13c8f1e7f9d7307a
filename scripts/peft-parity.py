#!/usr/bin/env python3
"""Trains ten steps with transformers and peft in f32 from an adapter and a batch given as files, and prints the losses.

    peft-parity.py MODEL ADAPTER BATCH.json [--out GOLDEN.json]

MODEL    a Hugging Face folder, or a GGUF file (transformers dequantises it).
ADAPTER  a PEFT folder: where the updates start.
BATCH    {"sequences": [{"tokens": [..], "learn": [..]}, ..], "learning_rates": [..], "max_grad_norm": 1.0}

The loss of a step is the mean over its learned tokens before the update; the updates are torch's AdamW without weight decay.
The same files are read by train/tests/parity.rs (and written by train/examples/parity_files.rs).
"""
import argparse, json, os

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("adapter")
    parser.add_argument("batch")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.model.endswith(".gguf"):
        folder, name = os.path.split(os.path.abspath(arguments.model))
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    else:
        model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, arguments.adapter, is_trainable=True)
    batch = json.load(open(arguments.batch))
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
        norms.append(torch.nn.utils.clip_grad_norm_(trainable, batch["max_grad_norm"]).item())
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(total)
        print(f"{len(losses)}: loss {total:.7f} norm {norms[-1]:.6f}", flush=True)
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump({"losses": losses, "grad_norms": norms}, file, indent=1)
            file.write("\n")


main()
