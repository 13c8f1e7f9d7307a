#!/usr/bin/env python3
"""What peft and llama-server make of an adapter of ours, as a golden file.

usage: golden-adapter.py --hf MODEL --gguf MODEL.F32.gguf --peft ADAPTER/ --lora ADAPTER.gguf --ids IDS.json --out OUT.json
                         --server LLAMA_SERVER

MODEL    a Hugging Face folder, or a GGUF file (transformers dequantises it); the same weights as MODEL.F32.gguf.
IDS      [[token ids of a prompt], ..], eight tokens or more each.

Written for each prompt: from peft (f32) the top 64 log-probabilities in millionths and the tail mass at the last eight
positions; from llama-server --lora (f32 cache, no flash attention) 32 greedy tokens, fewer where the text ends.
needs: torch, transformers, peft, and llama.cpp's llama-server. Read by inference/tests/golden_adapter.rs.
"""
import argparse, json, os, subprocess, time, urllib.request

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
for name in ["hf", "gguf", "peft", "lora", "ids", "out", "server"]:
    parser.add_argument(f"--{name}", required=True)
arguments = parser.parse_args()

if arguments.hf.endswith(".gguf"):
    folder, name = os.path.split(os.path.abspath(arguments.hf))
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
else:
    model = AutoModelForCausalLM.from_pretrained(arguments.hf, dtype=torch.float32)
model = PeftModel.from_pretrained(model, arguments.peft).eval()

rows = []
for ids in json.load(open(arguments.ids)):
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    log_probabilities = torch.log_softmax(logits, -1)[-8:]
    tops = []
    for position in log_probabilities:
        values, indices = position.topk(min(64, position.numel()))
        tail = max(0.0, 1.0 - values.exp().sum().item())
        tops.append({"ids": indices.tolist(), "logprobs": [round(v * 1e6) for v in values.tolist()], "tail": tail})
    rows.append({"ids": ids, "first": len(ids) - 8, "top": tops})

port = "18435"
command = [arguments.server, "-m", arguments.gguf, "--lora", arguments.lora, "--port", port, "-ctk", "f32", "-ctv", "f32",
           "-fa", "off", "-c", "512", "-np", "1", "-t", "1", "--no-webui"]
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

json.dump({"command": "scripts/golden-adapter.py", "prompts": rows}, open(arguments.out, "w"), separators=(",", ":"))
print(len(rows), "prompts")
