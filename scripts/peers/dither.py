"""A model whose weights were decoded from blocks, moved off the grid of those blocks.

usage: dither.py DECODED.F32.gguf OUT.gguf

Types on a model's old grid leave no error in it, so that comparing types there says nothing about a model that never was rounded.
Each weight of a matrix moves at random (seed 7) by at most half the step of its block of 32: the least distance of two values in it.
needs: gguf, numpy
"""

import shutil
import sys

import numpy
from gguf import GGUFReader

source, target = sys.argv[1:]
shutil.copyfile(source, target)
generator = numpy.random.default_rng(7)
for tensor in GGUFReader(target, "r+").tensors:
    if len(tensor.shape) < 2 or tensor.data.dtype != numpy.float32:
        continue
    blocks = tensor.data.reshape(-1, 32)
    steps = numpy.diff(numpy.sort(blocks, axis=1), axis=1)
    largest = numpy.abs(blocks).max(axis=1, keepdims=True)
    steps = numpy.where(steps > 1e-5 * largest, steps, numpy.inf).min(axis=1, keepdims=True)
    steps[~numpy.isfinite(steps)] = 0
    blocks += (generator.random(blocks.shape, dtype=numpy.float32) - numpy.float32(0.5)) * steps.astype(numpy.float32)
