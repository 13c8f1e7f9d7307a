"""Writes block_decoding.bin: random blocks of every type and their values by gguf-py 0.19.0.

    pip install gguf==0.19.0 numpy
    python block_decoding.py

The file is a sequence of records: name (8 bytes, zero padded), length of the blocks in bytes (u32), number of values
(u32), the blocks, the values (f32); all little endian.
"""

import struct
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

# Offsets of the half-precision scales in a block.
HALVES = {
    "F16": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": [], "NVFP4": [], "TQ1_0": [52], "TQ2_0": [64],
    "IQ1_S": [0], "IQ1_M": [], "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0],
}
NAMES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
# In the order of BlockType; gguf-py does not decode Q1_0 and Q2_0.
NAMES += ["IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4", "TQ1_0", "TQ2_0"]
NAMES += ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]

random = np.random.default_rng(7)
with open(Path(__file__).with_name("block_decoding.bin"), "wb") as file:
    for name in NAMES:
        kind = GGMLQuantizationType[name]
        size, width = GGML_QUANT_SIZES[kind]
        blocks = max(64 // size, 3)
        if name in ("F32", "BF16"):
            floats = random.standard_normal(blocks).astype("<f4")
            data = floats.view(np.uint8) if name == "F32" else (floats.view("<u4") >> 16).astype("<u2").view(np.uint8)
            data = data.reshape(blocks, width)
        else:
            data = random.integers(0, 256, (blocks, width), dtype=np.uint8)
            for offset in HALVES[name]:
                halves = (random.standard_normal((blocks, 1)) * 0.05).astype("<f2")
                data[:, offset : offset + 2] = halves.view(np.uint8)
        values = np.ascontiguousarray(dequantize(data, kind), dtype="<f4").ravel()
        file.write(struct.pack("<8sII", name.encode(), data.size, values.size))
        file.write(data.tobytes())
        file.write(values.tobytes())
