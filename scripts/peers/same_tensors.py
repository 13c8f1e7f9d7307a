"""Says how many tensors of two GGUF files differ in name, type, shape or bytes, as one JSON line. usage: same_tensors.py A B"""

import hashlib
import json
import sys

from gguf import GGUFReader


def tensors(path):
    return {
        t.name: (t.tensor_type, tuple(t.shape.tolist()), hashlib.sha256(t.data.tobytes()).digest())
        for t in GGUFReader(path).tensors
    }


ours, theirs = tensors(sys.argv[1]), tensors(sys.argv[2])
names = ours.keys() | theirs.keys()
print(json.dumps({"tensors": len(names), "different": sum(ours.get(n) != theirs.get(n) for n in names)}))
