"""Rates of torch's matrix products, as one JSON line. usage: torch_gemm.py THREADS MxKxN ...

cast: f32 activations to bf16, product with bf16 weights, back to f32; bf16: bf16 in and out; f32: f32 throughout.
"""

import json
import sys
import time

import torch

torch.set_num_threads(int(sys.argv[1]))


def seconds(call):
    """Median of repeated calls within half a second, the first not counted: as `pipeline bench gemm` counts."""
    call()
    times, begun = [], time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - begun < 0.5 and len(times) < 200):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


rows = []
with torch.inference_mode():
    for shape in sys.argv[2:]:
        m, k, n = map(int, shape.split("x"))
        x, w = torch.rand(m, k) - 0.5, torch.rand(n, k) - 0.5
        xb, wb = x.bfloat16(), w.bfloat16()
        calls = {
            "cast": lambda: (x.bfloat16() @ wb.T).float(),
            "bf16": lambda: xb @ wb.T,
            "f32": lambda: x @ w.T,
        }
        rates = {name: 2 * m * k * n / seconds(call) / 1e9 for name, call in calls.items()}
        rows.append({"m": m, "k": k, "n": n, **rates})
print(json.dumps({"version": torch.__version__, "gemm": rows}))
