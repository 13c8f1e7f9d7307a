#!/usr/bin/env python3
"""Small random models of each architecture, with what transformers and peft make of them in f32.

    golden-architectures.py OUT [--llama-cpp FOLDER] [--only NAME]

Writes for each architecture a Hugging Face folder OUT/NAME (weights in BF16) with
  adapter/      a LoRA adapter of rank 2 on all seven projections, both factors random
  golden.json   two sequences, longer than the sliding windows; logits at some positions without the adapter; the mean loss
                over all their targets with it
  gradient/     the gradient of that loss by the adapter, in the form of an adapter
and, given the sources of llama.cpp, OUT/NAME.gguf by its converter (not for mistral: it has no place for the window there).
With llama-cpp-python at hand it prints how far llama.cpp's logits of the GGUF file are from those of transformers.

The folder tests/assets/architectures was made so; read by model/tests, inference/tests and train/tests (architectures.rs).
needs: torch, transformers, peft
"""
import argparse, json, shutil, sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import (AutoModelForCausalLM, AutoTokenizer, Gemma3TextConfig, GraniteConfig, LlamaConfig, MistralConfig,
                          PreTrainedTokenizerFast, Qwen2Config, Qwen3Config, SmolLM3Config)

COMMON = dict(vocab_size=259, hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2,
              max_position_embeddings=512, bos_token_id=0, eos_token_id=1, pad_token_id=1)
CONFIGS = {
    "llama": LlamaConfig(**COMMON, num_hidden_layers=2, rms_norm_eps=1e-5, tie_word_embeddings=False,
                         rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
                                          "high_freq_factor": 4.0, "original_max_position_embeddings": 128}),
    "qwen2": Qwen2Config(**COMMON, num_hidden_layers=2, rms_norm_eps=1e-6, tie_word_embeddings=True,
                         rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
    "qwen3": Qwen3Config(**COMMON, num_hidden_layers=2, head_dim=16, rms_norm_eps=1e-6, tie_word_embeddings=True,
                         rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
    "granite": GraniteConfig(**COMMON, num_hidden_layers=2, rms_norm_eps=1e-5, tie_word_embeddings=True,
                             embedding_multiplier=12.0, attention_multiplier=0.15, residual_multiplier=0.22,
                             logits_scaling=8.0, rope_parameters={"rope_type": "default", "rope_theta": 1e4}),
    "smollm3": SmolLM3Config(**COMMON, num_hidden_layers=5, rms_norm_eps=1e-6, tie_word_embeddings=True,
                             rope_parameters={"rope_type": "default", "rope_theta": 5e6}),
    "mistral": MistralConfig(**{**COMMON, "num_key_value_heads": 1}, num_hidden_layers=2, head_dim=12, sliding_window=24,
                             rms_norm_eps=1e-5, tie_word_embeddings=False,
                             rope_parameters={"rope_type": "default", "rope_theta": 1e4}),
    "gemma3": Gemma3TextConfig(**{**COMMON, "num_key_value_heads": 1}, num_hidden_layers=6, head_dim=16,
                               sliding_window=24, query_pre_attn_scalar=16, rms_norm_eps=1e-6,
                               rope_parameters={"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                                                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}),
}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def write_tokenizer(folder):
    """Bytes as tokens, with the characters that stand for bytes as GPT-2 has them; and one pair, as llama.cpp asks for."""
    vocabulary, other = {"<s>": 0, "</s>": 1}, 256
    for byte in range(256):
        code = byte
        if not (33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte):
            code, other = other, other + 1
        vocabulary[chr(code)] = byte + 2
    vocabulary["th"] = 258
    special = dict(special=True, single_word=False, lstrip=False, rstrip=False, normalized=False)
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": "<s>", **special}, {"id": 1, "content": "</s>", **special}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [["t", "h"]]},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def randomize(model, generator):
    for name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 2:
            # Sharper than a fresh model, so that what attention looks at matters.
            scale = 1.0 if "embed" in name or "lm_head" in name else 1.5 / parameter.shape[1] ** 0.5
            parameter.data = values * scale
        else:
            parameter.data = parameter.data + 0.2 * values


def sequence(length, seed):
    state, tokens = seed, []
    for _ in range(length):
        state = (state * 1103515245 + 12345) % 2**31
        tokens.append(2 + (state >> 16) % 256)
    return tokens


def make(name, config, out):
    folder = out / name
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(sum(name.encode()))
    model = AutoModelForCausalLM.from_config(config)
    randomize(model, generator)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    write_tokenizer(folder)

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    sequences = [sequence(150, 1), sequence(45, 2)]
    positions = [[0, 1, 23, 24, 25, 63, 64, 88, 110, 148], [0, 5, 30, 43]]
    with torch.no_grad():
        logits = [model(input_ids=torch.tensor([s])).logits[0] for s in sequences]
    chosen = [[[round(v, 6) for v in rows[p].tolist()] for p in places] for rows, places in zip(logits, positions)]

    options = LoraConfig(r=2, lora_alpha=3, target_modules=TARGETS, lora_dropout=0.0, task_type="CAUSAL_LM")
    tuned = get_peft_model(model, options)
    trainable = [p for p in tuned.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5
    tuned.peft_config["default"].base_model_name_or_path = name
    tuned.save_pretrained(folder / "adapter")
    targets = sum(len(s) - 1 for s in sequences)
    loss = 0.0
    for s in sequences:
        rows = tuned(input_ids=torch.tensor([s])).logits[0]
        part = torch.nn.functional.cross_entropy(rows[:-1], torch.tensor(s[1:]), reduction="sum") / targets
        part.backward()
        loss += part.item()
    for parameter in trainable:
        parameter.data = parameter.grad
    tuned.save_pretrained(folder / "gradient")
    for readme in folder.glob("*/README.md"):
        readme.unlink()
    golden = {"sequences": sequences, "positions": positions, "logits": chosen, "loss": loss}
    (folder / "golden.json").write_text(json.dumps(golden, separators=(",", ":")))
    return logits


def convert(folder, target, sources, kind):
    """The converter knows pre-tokenizers by the hash of a text; this one is GPT-2's with fewer tokens."""
    sys.path[:0] = [str(sources), str(sources / "gguf-py")]
    import convert_hf_to_gguf
    from conversion import base
    base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
    # The class for qwen2 adds a token of its own to any vocabulary.
    AutoTokenizer.from_pretrained = lambda path, **options: PreTrainedTokenizerFast.from_pretrained(path)
    sys.argv = ["convert_hf_to_gguf.py", str(folder), "--outfile", str(target), "--outtype", kind]
    convert_hf_to_gguf.main()


def compare(path, sequences, logits):
    try:
        import numpy
        from llama_cpp import Llama
    except (ImportError, FileNotFoundError):
        return
    model = Llama(model_path=str(path), n_ctx=256, logits_all=True, type_k=0, type_v=0, flash_attn=False, verbose=False)
    for tokens, expected in zip(sequences, logits):
        model.reset()
        model.eval(tokens)
        found = numpy.array(model.scores[:len(tokens)])
        print(f"{path.name}: llama.cpp differs by {abs(found - expected.numpy()).max():.2e}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--llama-cpp", type=Path)
    parser.add_argument("--only", choices=list(CONFIGS))
    arguments = parser.parse_args()
    for name, config in CONFIGS.items():
        if arguments.only not in (None, name):
            continue
        shutil.rmtree(arguments.out / name, ignore_errors=True)
        logits = make(name, config, arguments.out)
        print(name, f"logits up to {max(rows.abs().max() for rows in logits):.2f}", flush=True)
        if arguments.llama_cpp and name != "mistral":
            folder = arguments.out / name
            convert(folder, arguments.out / f"{name}.gguf", arguments.llama_cpp, "bf16")
            # llama.cpp rounds what it multiplies by BF16.
            exact = arguments.out / f"{name}.f32.gguf"
            convert(folder, exact, arguments.llama_cpp, "f32")
            compare(exact, json.loads((folder / "golden.json").read_text())["sequences"], logits)
            exact.unlink()


main()
