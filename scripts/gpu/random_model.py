#!/usr/bin/env python3
"""A GGUF file of random bf16 weights in the shape of a known model: random_model.py SHAPE OUT.gguf

The tokenizer knows the 256 bytes and two marks of a conversation; the rest of its vocabulary is never met.
needs: numpy.
"""
import struct, sys

import numpy as np

from shapes import CONTEXT, EPSILON, SHAPES

UINT32, FLOAT32, BOOL, STRING, ARRAY, INT32 = 4, 6, 7, 8, 9, 5
TENSOR_F32, TENSOR_BF16, FILE_BF16, ALIGNMENT = 0, 30, 32, 32
NORMAL, CONTROL, UNUSED = 1, 3, 5
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def scalar(kind, value):
    if kind == STRING:
        return text(value)
    return struct.pack({UINT32: "<I", FLOAT32: "<f", BOOL: "<?", INT32: "<i"}[kind], value)


def entry(key, kind, value):
    return text(key) + struct.pack("<I", kind) + scalar(kind, value)


def array(key, kind, values):
    return text(key) + struct.pack("<IIQ", ARRAY, kind, len(values)) + b"".join(scalar(kind, value) for value in values)


def byte_symbols():
    """The printable characters that stand for the 256 bytes in a byte-level vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + place) for place in range(len(others))]


def tokenizer(vocabulary):
    known = [*byte_symbols(), "<|im_start|>", "<|im_end|>"]
    tokens = known + [f"<unused_{index}>" for index in range(vocabulary - len(known))]
    kinds = [NORMAL] * 256 + [CONTROL] * 2 + [UNUSED] * (vocabulary - len(known))
    return [
        entry("tokenizer.ggml.model", STRING, "gpt2"), entry("tokenizer.ggml.pre", STRING, "smollm"),
        array("tokenizer.ggml.tokens", STRING, tokens), array("tokenizer.ggml.token_type", INT32, kinds),
        array("tokenizer.ggml.merges", STRING, []),
        entry("tokenizer.ggml.bos_token_id", UINT32, 256), entry("tokenizer.ggml.eos_token_id", UINT32, 257),
        entry("tokenizer.ggml.add_bos_token", BOOL, False), entry("tokenizer.chat_template", STRING, TEMPLATE),
    ]


def tensors(shape):
    """Name, rows and columns; a vector has no rows."""
    hidden, width = shape["hidden"], shape["hidden"] // shape["heads"]
    keys, inner = width * shape["key_heads"], shape["feed_forward"]
    yield "token_embd.weight", shape["vocabulary"], hidden
    for layer in range(shape["layers"]):
        block = f"blk.{layer}."
        yield block + "attn_norm.weight", 0, hidden
        for name, rows, columns in [("attn_q", hidden, hidden), ("attn_k", keys, hidden), ("attn_v", keys, hidden)]:
            yield block + name + ".weight", rows, columns
            if shape["architecture"] == "qwen2":
                yield block + name + ".bias", 0, rows
        yield block + "attn_output.weight", hidden, hidden
        yield block + "ffn_norm.weight", 0, hidden
        yield block + "ffn_gate.weight", inner, hidden
        yield block + "ffn_up.weight", inner, hidden
        yield block + "ffn_down.weight", hidden, inner
    yield "output_norm.weight", 0, hidden


def padded(size):
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def write(name, path):
    shape = SHAPES[name]
    kind = shape["architecture"]
    head = [
        entry("general.architecture", STRING, kind), entry("general.name", STRING, f"random {name}"),
        entry("general.file_type", UINT32, FILE_BF16),
        entry(f"{kind}.context_length", UINT32, CONTEXT), entry(f"{kind}.embedding_length", UINT32, shape["hidden"]),
        entry(f"{kind}.block_count", UINT32, shape["layers"]), entry(f"{kind}.feed_forward_length", UINT32, shape["feed_forward"]),
        entry(f"{kind}.attention.head_count", UINT32, shape["heads"]),
        entry(f"{kind}.attention.head_count_kv", UINT32, shape["key_heads"]),
        entry(f"{kind}.attention.layer_norm_rms_epsilon", FLOAT32, EPSILON),
        entry(f"{kind}.rope.freq_base", FLOAT32, shape["theta"]),
        entry(f"{kind}.rope.dimension_count", UINT32, shape["hidden"] // shape["heads"]),
        entry(f"{kind}.vocab_size", UINT32, shape["vocabulary"]),
        *tokenizer(shape["vocabulary"]),
    ]
    layout, infos, offset = list(tensors(shape)), b"", 0
    for tensor, rows, columns in layout:
        dimensions = [columns, rows] if rows else [columns]
        size = rows * columns * 2 if rows else columns * 4
        infos += text(tensor) + struct.pack("<I", len(dimensions)) + struct.pack(f"<{len(dimensions)}Q", *dimensions)
        infos += struct.pack("<IQ", TENSOR_BF16 if rows else TENSOR_F32, offset)
        offset += padded(size)
    # One pool of values serves every matrix, each from a place of its own: a billion draws would take longer than the check.
    pool = np.random.default_rng(7).standard_normal(1 << 22, dtype=np.float32)
    with open(path, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(layout), len(head)) + b"".join(head) + infos)
        file.write(b"\0" * (padded(file.tell()) - file.tell()))
        for index, (tensor, rows, columns) in enumerate(layout):
            if rows:
                scaled = pool * np.float32(0.02 if tensor.startswith("token") else columns**-0.5)
                halves = np.roll((scaled.view(np.uint32) >> 16).astype(np.uint16), 7919 * index)
                whole, rest = divmod(rows * columns, halves.size)
                for _ in range(whole):
                    halves.tofile(file)
                halves[:rest].tofile(file)
                size = rows * columns * 2
            else:
                (np.zeros if tensor.endswith("bias") else np.ones)(columns, dtype=np.float32).tofile(file)
                size = columns * 4
            file.write(b"\0" * (padded(size) - size))


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        sys.exit(__doc__)
    write(sys.argv[1], sys.argv[2])
