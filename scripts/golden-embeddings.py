#!/usr/bin/env python3
"""Vectors as transformers makes them, in f32: of a small random encoder, and of the small models of golden-architectures.py.

    golden-embeddings.py ASSETS

Writes
  ASSETS/encoders/bert/                  a Hugging Face folder of a BertModel with random weights and a WordPiece tokenizer
  ASSETS/encoders/bert/golden.json       texts with their token ids, and their vectors by mean and by first token, normalised
  ASSETS/architectures/NAME/vectors.json the mean and the last state of two sequences, as they are, for each decoder

read by inference/tests/embeddings.rs.
needs: torch, transformers
"""
import json, shutil, sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, BertConfig, BertModel

TEXTS = [
    "The frog lived in a pond.",
    "Where did it live?",
    "Café au lait, naïve façades & ÉCLAIRS – “quoted” … (twice)",
    "中文字 and 日本 tab\tnew\nline \u200b zero\u00adwidth \u0007 bell",
    "x",
    "",
    "supercalifragilistic antidisestablishmentarianism [SEP] a_b-c'd 3.14 $5 #tag @me İstanbul ǅ",
    "a pond " * 27,
]


def rounded(rows):
    return [[round(value, 7) for value in row] for row in rows.tolist()]


def tokenizer(folder):
    words = ["the", "frog", "lived", "live", "in", "a", "pond", "where", "did", "it", "cafe", "and", "tag", "quoted", "##ed"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    signs = list(",.?&–“”…()[]_-'$#@中文字日")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + words + list(letters[1:]) + ["##" + c for c in letters] + signs
    assert len(set(tokens)) == len(tokens)
    made = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]", max_input_chars_per_word=20))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    made.save(str(folder / "tokenizer.json"), pretty=False)
    return made, len(tokens)


def encoder(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cut, vocabulary = tokenizer(folder)
    torch.manual_seed(5)
    config = BertConfig(vocab_size=vocabulary, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
                        max_position_embeddings=64, type_vocab_size=2, layer_norm_eps=1e-12, hidden_act="gelu")
    model = BertModel(config, add_pooling_layer=True).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data = torch.randn(parameter.shape) * (1.0 if parameter.shape[0] > 60 else 1.5 / parameter.shape[1] ** 0.5)
        else:
            parameter.data = parameter.data + 0.2 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    golden = {"texts": TEXTS, "tokens": [], "mean": [], "first": []}
    for text in TEXTS:
        ids = cut.encode(text).ids
        ids = ids[:63] + [3] if len(ids) > 64 else ids
        with torch.no_grad():
            states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        golden["tokens"].append(ids)
        normal = torch.nn.functional.normalize(torch.stack([states.mean(0), states[0]]))
        golden["mean"] += rounded(normal[:1])
        golden["first"] += rounded(normal[1:])
    (folder / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")))


def decoder(folder):
    sequences = json.loads((folder / "golden.json").read_text())["sequences"]
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    found = {"mean": [], "last": []}
    for sequence in sequences:
        with torch.no_grad():
            states = model(input_ids=torch.tensor([sequence])).last_hidden_state[0]
        found["mean"] += rounded(states.mean(0, keepdim=True))
        found["last"] += rounded(states[-1:])
    (folder / "vectors.json").write_text(json.dumps(found, separators=(",", ":")))


assets = Path(sys.argv[1])
encoder(assets / "encoders/bert")
for folder in sorted((assets / "architectures").iterdir()):
    if folder.is_dir():
        decoder(folder)
        print(folder.name)
