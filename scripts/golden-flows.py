#!/usr/bin/env python3
"""Writes sdg/tests/flows/golden.json: what instructlab-sdg's own pipelines make of rows when a script answers.

Usage, with instructlab-sdg 0.8.3 installed: python scripts/golden-flows.py

The script's answers follow from the prompt's words and, where the temperature is above 0, from how often the prompt came
before; sdg/tests/flows/script.rs says the same in Rust.
"""

import hashlib
import importlib.abc
import importlib.machinery
import json
import pathlib
import sys
import types
from collections import Counter
from types import SimpleNamespace
from unittest.mock import MagicMock



class WithoutDocling(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Readers of documents are imported there, but not used here."""

    def find_spec(self, name, path=None, target=None):
        known = name.split(".")[0] in ("docling", "docling_core", "docling_parse")
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec):
        stub = types.ModuleType(spec.name)
        stub.__getattr__ = lambda name: MagicMock()
        return stub

    def exec_module(self, module):
        pass


sys.meta_path.append(WithoutDocling())

from datasets import Dataset, disable_progress_bars  # noqa: E402
from instructlab.sdg.pipeline import Pipeline, PipelineContext  # noqa: E402

disable_progress_bars()
ROOT = pathlib.Path(__file__).resolve().parent.parent
ASSETS = ROOT / "tests/assets/instructlab-sdg/pipelines"
OWN = ROOT / "sdg/tests/flows/instructlab_blocks/pipeline.yaml"


def answer(prompt, time):
    words = " ".join(prompt.split())
    value = int(hashlib.sha256(f"{words}|{time}".encode()).hexdigest()[:8], 16)
    if value % 11 == 0:
        return "I would rather not."
    if "[Start of Score]" in words or "[Start of Rating]" in words or "[Start of Explanation]" in words:
        one = "[Start of Rating]" in words or "binary" in words
        scores = ["1", "1", " 1.0 ", "1", "0", "n/a", "2"] if one else ["2", "2.0", "2", " 2", "3", "n/a", "1"]
        score = scores[value % 7]
        verdict = "YES" if value % 5 else "NO"
        return "\n".join(
            f"[Start of {tag}] {text} [End of {tag}]"
            for tag, text in [
                ("Evaluation", f"Because of {value}."),
                ("Explanation", f"It is {value}."),
                ("Feedback", f"Fine:\n{value}"),
                ("Answer", verdict),
                ("Score", score),
                ("Rating", score),
            ]
        )
    if "diverse questions -" in words or "Ask one question" in words:
        count = 1 + value % 4
        asked = [f"[Start of Question]\nWhy {value % 97 + i // 2}?\n[End of Question]" for i in range(count)]
        return "Here they are.\n" + "\n".join(asked)
    if "diverse context for" in words:
        return f"[Start of Context]\nA text of {value % 5} words.\n[End of Context]"
    if "With certainty:" in words:
        return f"Answer: Ten<end> or {value % 13}. Certainty: {['1', '2', '3', 'x', '2.5'][value % 5]} and so on"
    if "[Start of Response]" in words:
        return f"[Start of Response] Since {value}. [End of Response]"
    if "[QUESTION]" in words:
        pairs = [f"[QUESTION]\nWhat is {value % 89 + i}?\n[ANSWER]\nIt is {i}.\n[END]\n" for i in range(value % 4)]
        return "\n".join(pairs)
    if "[Start of Question]" in words:
        return f"[Start of Question] Which {value}? A) 1 [End of Question] [Start of Answer] A) 1 [End of Answer]"
    return f"  Who is {value % 7}? He is {value}.  "


class Client:
    """Stands in for openai.OpenAI."""

    server_supports_batched = True

    def __init__(self):
        self.seen = Counter()
        self.completions = SimpleNamespace(create=self.complete)
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self.converse))

    def say(self, prompt, temperature):
        if temperature <= 0:
            return answer(prompt, 0)
        words = " ".join(prompt.split())
        time = self.seen[words]
        self.seen[words] += 1
        return answer(prompt, time)

    def complete(self, prompt, temperature=0.0, n=1, **_):
        texts = [self.say(one, temperature) for one in prompt for _ in range(n)]
        return SimpleNamespace(choices=[SimpleNamespace(text=text) for text in texts])

    def converse(self, messages, temperature=0.0, n=1, **_):
        prompt = " ".join(message["content"] for message in messages)
        texts = [self.say(prompt, temperature) for _ in range(n)]
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=text)) for text in texts])


def knowledge(number):
    row = {
        "document": f"Pond {number} has {number + 3} toads.",
        "icl_document": f"A lake of {number}.",
        "document_outline": "Waters",
        "domain": "ponds",
        "leaf_node_type": "knowledge",
    }
    for pair in range(1, 4):
        row[f"icl_query_{pair}"] = f"How deep is {pair}?"
        row[f"icl_response_{pair}"] = f"{number} metres."
    return row


def skill(number, grounded):
    context = {"seed_context": f"It rained {number} days."} if grounded else {}
    return {
        "task_description": "to count",
        **context,
        "seed_question": f"How many are {number}?",
        "seed_response": f"{number}.",
        "leaf_node_type": "grounded_skill" if grounded else "freeform_skill",
    }


def own(number):
    return {
        "kind": ["short", "long"][number % 2],
        "place": ["pond", "pond", "wood"][number % 3],
        "style_short": "brief",
        "style_long": "wordy",
        "word": f"leaf{number}",
        "deep": number % 4 == 0,
        "messages": [{"role": "user", "content": f"Say {number}."}],
    }


def run(path, rows):
    context = PipelineContext(
        client=Client(),
        model_family="blank",
        model_id="scripted",
        num_instructions_to_generate=3,
        dataset_num_procs=1,
        batch_size=0,
    )
    made = Pipeline.from_file(context, str(path)).generate(Dataset.from_list(rows))
    return {"in": rows, "out": made.to_list()}


golden = {}
for pipeline in ["full", "simple", "llama"]:
    golden[f"{pipeline}/knowledge"] = run(ASSETS / pipeline / "knowledge.yaml", [knowledge(n) for n in range(6)])
    for kind in ["freeform", "grounded"]:
        rows = [skill(n, kind == "grounded") for n in range(5)]
        golden[f"{pipeline}/{kind}_skills"] = run(ASSETS / pipeline / f"{kind}_skills.yaml", rows)
golden["eval/mmlu_bench"] = run(ASSETS / "eval/mmlu_bench.yaml", [knowledge(n) for n in range(4)])
golden["instructlab_blocks"] = run(OWN, [own(n) for n in range(12)])
for name, rows in golden.items():
    print(name, len(rows["in"]), "rows in,", len(rows["out"]), "rows out")
path = ROOT / "sdg/tests/flows/golden.json"
path.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")
