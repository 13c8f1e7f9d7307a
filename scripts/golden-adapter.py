#!/usr/bin/env python3
"""What peft and llama-server make of an adapter of ours, as a golden file.

usage: golden-adapter.py --hf MODEL --peft ADAPTER/ --ids IDS.json --out OUT.json [--top N]
                         [--gguf MODEL.F32.gguf [--lora ADAPTER.gguf] --server LLAMA_SERVER]

MODEL    a Hugging Face folder, or a GGUF file (transformers dequantises it); the same weights as MODEL.F32.gguf.
IDS      [[token ids of a prompt], ..], eight tokens or more each; or a golden file, whose prompts are taken.

Written for each prompt: from peft (f32) the top N (64) log-probabilities in millionths and the tail mass at the last eight
positions; from llama-server --lora (f32 cache, no flash attention) 32 greedy tokens, fewer where the text ends. DoRA has no
adapter in GGUF: then MODEL.F32.gguf is what `pipeline adapter merge` made of both, without --lora. An adapter of which peft
leaves a module out, or finds a module too many, is an error.
needs: torch, transformers, peft, and llama.cpp's llama-server. Read by inference/tests/golden_adapter.rs.
"""
import argparse, json, os, subprocess, sys, time, urllib.request

import torch
from peft import PeftModel
from peft.utils import load_peft_weights
from peft.utils.save_and_load import get_peft_model_state_dict
from transformers import AutoModelForCausalLM

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
for name in ["hf", "peft", "ids", "out"]:
    parser.add_argument(f"--{name}", required=True)
for name in ["gguf", "lora", "server"]:
    parser.add_argument(f"--{name}")
parser.add_argument("--top", type=int, default=64)
arguments = parser.parse_args()

if arguments.hf.endswith(".gguf"):
    folder, name = os.path.split(os.path.abspath(arguments.hf))
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
else:
    model = AutoModelForCausalLM.from_pretrained(arguments.hf, dtype=torch.float32)
model = PeftModel.from_pretrained(model, arguments.peft).eval()
stored, loaded = set(load_peft_weights(arguments.peft, device="cpu")), set(get_peft_model_state_dict(model))
if stored != loaded:
    sys.exit(f"peft has {sorted(loaded - stored)[:3]} of its own, and does not take {sorted(stored - loaded)[:3]}")

rows = []
prompts = json.load(open(arguments.ids))
for ids in [row["ids"] for row in prompts["prompts"]] if isinstance(prompts, dict) else prompts:
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    log_probabilities = torch.log_softmax(logits, -1)[-8:]
    tops = []
    for position in log_probabilities:
        values, indices = position.topk(min(arguments.top, position.numel()))
        tail = max(0.0, 1.0 - values.exp().sum().item())
        tops.append({"ids": indices.tolist(), "logprobs": [round(v * 1e6) for v in values.tolist()], "tail": tail})
    rows.append({"ids": ids, "first": len(ids) - 8, "top": tops})


def greedy(rows):
    """32 tokens of llama-server behind each prompt."""
    port = "18435"
    command = [arguments.server, "-m", arguments.gguf, "--port", port, "-ctk", "f32", "-ctv", "f32", "-fa", "off",
               "-c", "512", "-np", "1", "-t", "1", "--no-webui"]
    command += ["--lora", arguments.lora] if arguments.lora else []
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        def ask(path, body=None):
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
            return json.load(urllib.request.urlopen(request, timeout=120))

        for _ in range(120):
            try:
                ask("/health")
                break
            except OSError:
                time.sleep(0.5)
        for row in rows:
            body = {"prompt": row["ids"], "n_predict": 32, "temperature": 0, "top_k": 1, "return_tokens": True, "cache_prompt": False}
            row["greedy"] = ask("/completion", body)["tokens"]
    finally:
        server.terminate()
        server.wait()


if arguments.gguf:
    greedy(rows)
json.dump({"command": "scripts/golden-adapter.py", "prompts": rows}, open(arguments.out, "w"), separators=(",", ":"))
print(len(rows), "prompts")
