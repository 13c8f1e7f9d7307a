#!/usr/bin/env python3
"""Logits of llama.cpp as golden files: for each line of PROMPTS the last 8 positions, top 64 log-probabilities and the tail.

usage: golden-logits.py MODEL.F32.gguf PROMPTS OUT.json [TEXT TOKENS]
With TEXT its first TOKENS tokens are one more prompt, longer than the window of a model that has one. BOS stands in front
where the model wants one.
needs: llama-cpp-python over a llama.cpp build (keys and values in f32, no flash attention, one thread order)
The F32 file is `llama-quantize --allow-requantize IN.gguf OUT.gguf F32`. Log-probabilities are stored as integers in
millionths; greedy continuations are 32 tokens.
"""
import json, sys
import numpy as np
from llama_cpp import Llama

model, prompts, out = sys.argv[1:4]
long_text, long_tokens = (open(sys.argv[4], encoding="utf-8").read(), int(sys.argv[5])) if len(sys.argv) > 4 else ("", 0)
llama = Llama(model_path=model, n_ctx=256 + long_tokens, logits_all=True, type_k=0, type_v=0, flash_attn=False, n_threads=2, verbose=False)
begins = llama.metadata.get("tokenizer.ggml.add_bos_token") == "true"
texts = [(line.replace("\\n", "\n"), None) for line in open(prompts, encoding="utf-8").read().splitlines()]
if long_tokens:
    texts.append((long_text, long_tokens))
rows = []
for text, most in texts:
    ids = llama.tokenize(text.encode(), add_bos=begins, special=False)[:most]
    llama.reset()
    llama.eval(ids)
    positions = list(range(len(ids) - 8, len(ids)))
    tops = []
    for position in positions:
        logits = np.array(llama.scores[position], dtype=np.float64)
        log_probabilities = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        top = np.argsort(-log_probabilities, kind="stable")[:64]
        tail = max(0.0, 1.0 - float(np.exp(log_probabilities[top]).sum()))
        tops.append({"ids": [int(i) for i in top], "logprobs": [round(float(log_probabilities[i]) * 1e6) for i in top], "tail": tail})
    greedy = []
    while len(greedy) < 32:
        token = int(np.argmax(llama.scores[llama.n_tokens - 1]))
        greedy.append(token)
        llama.eval([token])
    rows.append({"text": text if most is None else "", "ids": ids, "first": positions[0], "top": tops, "greedy": greedy})
    print(len(rows), llama.detokenize(greedy)[:70], flush=True)
command = " ".join(["scripts/golden-logits.py", "F32.gguf", prompts, out, *sys.argv[4:]])
json.dump({"command": command, "prompts": rows}, open(out, "w"), separators=(",", ":"))
