#!/usr/bin/env python3
"""Token ids and labels that instructlab-training 0.16.2 makes of lines of messages, as a golden file for train/tests/data.rs:

    python scripts/golden-instructlab-mask.py tests/assets/vocab/ggml-vocab-qwen2.gguf train/tests/golden/instructlab_mask.json

Needs instructlab-training, transformers and gguf. The tokenizer is that of the GGUF file, and the chat template is the model's
own, where InstructLab's default would write one of its own into the tokenizer. The end of an answer is `<|im_end|>`, as in the
tokenizer of the model; the file of the vocabulary names the end of a text.
"""

import json
import os
import sys
import tempfile

from gguf import GGUFReader
from instructlab.training import data_process
from transformers import AutoTokenizer

vocabulary, out = sys.argv[1:]
TURN = [{"role": "user", "content": "How deep is the pond?"}, {"role": "assistant", "content": "Nine metres.\n"}]
SYSTEM = [{"role": "system", "content": "You answer shortly."}]
MORE = [{"role": "user", "content": " And now?\n\nSay it in words: 日本語, naïve."}, {"role": "assistant", "content": "\n  deep ☕"}]
DOCUMENT = [
    {"role": "user", "content": "# A pond\n\nIt is nine metres deep; user and assistant stand in the text.\n\nHow deep?"},
    {"role": "assistant", "content": "user: nine metres."},
]
ROWS = [
    {"messages": TURN, "unmask": False},
    {"messages": TURN, "unmask": True},
    {"messages": SYSTEM + TURN, "unmask": False},
    {"messages": SYSTEM + TURN, "unmask": True},
    {"messages": TURN + MORE, "unmask": False},
    {"messages": SYSTEM + TURN + MORE, "unmask": True},
    {"messages": MORE, "unmask": True},
    {"messages": DOCUMENT, "unmask": True},
    {"messages": [{"role": "user", "content": "user"}, {"role": "assistant", "content": "im_end"}], "unmask": True},
]
with tempfile.TemporaryDirectory() as folder:
    tokenizer = AutoTokenizer.from_pretrained(os.path.dirname(vocabulary), gguf_file=os.path.basename(vocabulary))
    field = GGUFReader(vocabulary).fields["tokenizer.chat_template"]
    tokenizer.chat_template = bytes(field.parts[-1]).decode()
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.save_pretrained(folder)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump({"model_type": "qwen2"}, file)
    tokenizer = data_process.configure_tokenizer(folder)
    golden = []
    for row in ROWS:
        done = data_process.unmask_sample(row, tokenizer)
        golden.append({"row": row, "input_ids": done["input_ids"], "labels": done["labels"]})
with open(out, "w", encoding="utf-8") as file:
    file.write("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in golden) + "\n]\n")
