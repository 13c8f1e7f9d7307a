#!/usr/bin/env python3
"""Whether transformers makes of a merged folder what we make of its base and adapter.

usage: check-merged.py FOLDER --base MODEL --adapter ADAPTER --score target/release/examples/score_texts [--golden OUT.json]

FOLDER   what `pipeline adapter merge ADAPTER --model MODEL --out FOLDER --dtype f32` wrote.
score    cargo build --release -p espalier-inference --example score_texts

Compared: token ids of some hundred lines (words, numbers, code, scripts, emoji, white space, special tokens of the model),
the chat template, log-probabilities of transformers in f32 with ours (base with adapter, unmerged; and the folder as we read
it). --golden writes what transformers found for the prompts. Exit code 1 where ids or texts differ, or log-probabilities by
more than 1e-3.
needs: torch, transformers.
"""
import argparse, json, os, random, subprocess, sys, unicodedata

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

here = os.path.dirname(os.path.abspath(__file__))
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder")
for name in ["base", "adapter", "score"]:
    parser.add_argument(f"--{name}", required=True)
parser.add_argument("--golden")
arguments = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(arguments.folder)
model = AutoModelForCausalLM.from_pretrained(arguments.folder, dtype=torch.float32).eval()

prompts = [line.replace("\\n", "\n") for line in open(f"{here}/../tests/golden/prompts.txt", encoding="utf-8").read().splitlines()]
wiki = [line for line in open(f"{here}/../tests/assets/text/wiki.test.raw", encoding="utf-8").read().splitlines() if line.strip()]
code = open(__file__, encoding="utf-8").read().splitlines() + open(f"{here}/../model/src/tokenizer/split.rs", encoding="utf-8").read().splitlines()
chosen = [
    "", " ", "  ", "\n", "\n\n \t\n", " a", "a ", "  two  spaces  ", "tab\tand\u00a0no-break", "\u3000x", "1234567890 1,234.56 x²³¹ ½ Ⅷ 五",
    "I'll we've IT'S don'T 'RE", "héllo naïve Größe Привет мир", "日本語 こんにちは 你好世界 한국어", "नमस्ते ि́ ﷺ مرحبا שלום", "🙂👩‍🔬🦙🚀 \u200d",
    "e\u0301 and é", "...!!!\n\r\n(x)\n", "$1 <=> ~|~ ^^ ++", "\x00\x01\x7f", "<s></s><unk>", "<|im_start|>user\nHello<|im_end|>\n", "▁▁ a▁b", "<0x0A>",
]
special = tokenizer.all_special_tokens + [str(token) for token in tokenizer.added_tokens_decoder.values()]
generator = random.Random(7)
for token in dict.fromkeys(special):
    chosen += [token, f"a{token}b", f" {token} {token}", f"Hi {token}\nthere é"]
pieces = ["a", "Z", " ", "  ", "\n", "7", "42", ".", "'s", "é", "語", "🙂", "_", "-", "\t", "the", " and", "=", "(", "▁"]
chosen += ["".join(generator.choice(pieces) for _ in range(generator.randint(1, 40))) for _ in range(200)]
texts = chosen + prompts + wiki[:150] + code[:150]
chats = [
    [{"role": "user", "content": "What is 2 + 2?"}],
    [{"role": "system", "content": "Be brief. "}, {"role": "user", "content": " Größe?\n"}],
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!\n\nYou?"}, {"role": "user", "content": "<b>\"x\" & 'y'</b>"}],
]
scored = prompts[:8]
wanted = json.dumps({"texts": texts, "scored": scored, "chats": chats})


def ours(*model_and_adapter):
    return json.loads(subprocess.run([arguments.score, *model_and_adapter], input=wanted, capture_output=True, text=True, check=True).stdout)


# The class of transformers for Qwen 2 normalises to NFC whatever tokenizer.json says; llama.cpp and we do not.
normalises = tokenizer("e\u0301")["input_ids"] == tokenizer("\u00e9")["input_ids"]
if normalises:
    texts = [unicodedata.normalize("NFC", text) for text in texts]
    wanted = json.dumps({"texts": texts, "scored": scored, "chats": chats})
base, folder = ours(arguments.base, arguments.adapter), ours(arguments.folder)
wrong = 0
for text, one, two in zip(texts, base["texts"], folder["texts"]):
    theirs = tokenizer(text)["input_ids"]
    if theirs != one or theirs != two:
        wrong += 1
        if wrong <= 10:
            print(f"ids of {text!r}:\n  transformers  {theirs}\n  base          {one}\n  folder        {two}")
print(f"token ids: {len(texts) - wrong} of {len(texts)} texts equal, {len(special)} special tokens among them" + (", all in NFC" if normalises else ""))

different = 0
for chat, one, two in zip(chats, base["chats"], folder["chats"]):
    theirs = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    if theirs != one or theirs != two:
        different += 1
        print(f"chat: transformers {theirs!r}\n  base {one!r}\n  folder {two!r}")
print(f"chat template: {len(chats) - different} of {len(chats)} conversations equal")

worst = {"base and adapter": 0.0, "folder": 0.0}
golden = []
for text, one, two in zip(scored, base["scored"], folder["scored"]):
    with torch.no_grad():
        log_probabilities = torch.log_softmax(model(torch.tensor([one["ids"]])).logits[0].double(), -1)
    for name, found in [("base and adapter", one), ("folder", two)]:
        for offset, top in enumerate(found["top"]):
            theirs = log_probabilities[found["first"] + offset][torch.tensor(top["ids"])]
            worst[name] = max(worst[name], (theirs - torch.tensor(top["logprobs"], dtype=torch.float64)).abs().max().item())
    tops = [log_probabilities[one["first"] + offset].topk(32) for offset in range(len(one["top"]))]
    golden.append({"ids": one["ids"], "first": one["first"],
                   "top": [{"ids": top.indices.tolist(), "logprobs": [round(v * 1e6) for v in top.values.tolist()]} for top in tops]})
for name, value in worst.items():
    print(f"log-probabilities: transformers and our {name} differ by {value:.2e} at most")
if arguments.golden:
    command = f"scripts/check-merged.py FOLDER --base {os.path.basename(arguments.base)} --adapter {os.path.basename(arguments.adapter)} --golden"
    texts_and_ids = [{"text": text, "ids": tokenizer(text)["input_ids"]} for text in chosen + prompts[:10]]
    rendered = [{"messages": chat, "text": tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)} for chat in chats]
    json.dump({"command": command, "prompts": golden, "texts": texts_and_ids, "chats": rendered}, open(arguments.golden, "w"), separators=(",", ":"), ensure_ascii=False)
sys.exit(1 if wrong or different or max(worst.values()) > 1e-3 else 0)
