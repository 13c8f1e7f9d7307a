#!/usr/bin/env python3
"""Rate of LoRA steps by transformers + peft on a device, as one JSON line: peft_rate.py SHAPE DEVICE SEQUENCE RANK STEPS

A model of random weights in bf16, rank-r updates of every linear layer in f32 as peft keeps them, AdamW, one row of SEQUENCE
tokens a step, attention by torch's own choice. Both settings of gradient checkpointing are tried; the faster one counts.
needs: torch, transformers, peft.
"""
import json, sys, time

import peft
import torch
import transformers

from shapes import CONTEXT, EPSILON, SHAPES

name, device, sequence, rank, steps = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
device = "cpu" if device == "flex" else device
shape = SHAPES[name]
transformers.logging.set_verbosity_error()
settings = dict(
    vocab_size=shape["vocabulary"], hidden_size=shape["hidden"], intermediate_size=shape["feed_forward"],
    num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"], num_key_value_heads=shape["key_heads"],
    max_position_embeddings=CONTEXT, rms_norm_eps=EPSILON, rope_theta=shape["theta"], tie_word_embeddings=True,
)
config = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config}[shape["architecture"]](**settings)
on_card = device.startswith("cuda")


def synchronize():
    if on_card:
        torch.cuda.synchronize()


def product_rate():
    """Operations a second of a large bf16 product: the rate that a share of is told."""
    size = 8192 if on_card else 1024
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(6):
        synchronize()
        begun = time.perf_counter()
        one @ other
        synchronize()
        times.append(time.perf_counter() - begun)
    return 2 * size**3 / min(times)


def rate(checkpointing):
    torch.manual_seed(7)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.config.use_cache = False
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    lora = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, lora).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
    tokens = torch.randint(0, shape["vocabulary"], (1, sequence), device=device)
    if on_card:
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(steps):
        synchronize()
        begun = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        synchronize()
        times.append(time.perf_counter() - begun)
    # The first steps choose kernels and fill the allocator.
    counted = sorted(times[min(3, steps - 1):])
    seconds = counted[len(counted) // 2]
    return {
        "tokens_per_second": sequence / seconds, "seconds": seconds, "checkpointing": checkpointing,
        "peak_bytes": torch.cuda.max_memory_allocated() if on_card else None,
    }


results = []
for checkpointing in (False, True):
    try:
        results.append(rate(checkpointing))
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
if not results:
    sys.exit("out of memory with checkpointing and without")
best = max(results, key=lambda result: result["tokens_per_second"])
best |= {
    "product_operations_per_second": product_rate(),
    "versions": f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}",
}
print(json.dumps(best))
