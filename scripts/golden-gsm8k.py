#!/usr/bin/env python3
"""What lm-eval's filters of gsm8k take from stored generations, for eval/tests/golden/gsm8k.json.

usage: golden-gsm8k.py OUT.json
needs: lm_eval 0.4.13; no network, no model
The generations are ours: answers of the data set in every form that a model gives them, wrong ones, and none. lm-eval's own task file
is asked of a model that says them.
"""
import gzip
import json
import os
import pathlib
import re
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
import lm_eval
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

DATA = pathlib.Path(__file__).parent.parent / "eval" / "data"
# {a} is the right answer, {c} the same with commas, {w} a wrong one.
FORMS = [
    "#### {a}",
    "First 3 + 4 = <<3+4=7>>7.\nThen more.\n#### {a}",
    "The answer is {a}.",
    "She has {c} of them in the end.",
    "#### {c}",
    "They pay ${a}",
    "#### ${a}",
    "#### {a}.",
    "#### {a}.00",
    "It is -{a}",
    "#### -{a}",
    "No number is known.",
    "",
    "#### ",
    "####{a}",
    "**{a}**",
    "The answer is {a}, not {w}",
    "The answer is {w}.\n#### {a}",
    "The answer is {a}.\n#### {w}",
    "#### {a}\n\nNext: 5",
    "{a}%",
    "{a} - 1 = {w}",
    "#### {a} apples",
    "Seven, that is {a}",
    "answer: \\boxed{{{a}}}",
    "#### {w}",
    ".,",
    "$",
    "#### .",
    "x = {a}.",
    "#### {a}\n#### {w}",
    "1. She buys 2.\n2. She has {c}.",
]


class Stored(LM):
    """Says what is stored, document by document."""

    def __init__(self, texts):
        super().__init__()
        self.texts = texts

    def generate_until(self, requests, disable_tqdm=False):
        return [self.texts[request.doc_id] for request in requests]

    def loglikelihood(self, requests):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


def main():
    rows = [json.loads(line) for line in gzip.open(DATA / "gsm8k.test.jsonl.gz", "rt", encoding="utf-8")]
    count = 3 * len(FORMS)
    texts = []
    for place, row in enumerate(rows[:count]):
        answer = row["answer"].split("#### ")[1].replace(",", "")
        commas = f"{int(answer):,}" if place % 2 else answer
        texts.append(FORMS[place % len(FORMS)].format(a=answer, c=commas, w=int(answer) + 1))
    # Answers of four digits and more, where commas matter.
    large = [place for place, row in enumerate(rows) if re.search(r"#### -?\d,?\d{3}", row["answer"]) and place >= count][:40]
    for place in large:
        answer = rows[place]["answer"].split("#### ")[1].replace(",", "")
        form = FORMS[len(texts) % len(FORMS)]
        texts.append(form.format(a=answer, c=f"{int(answer):,}", w=int(answer) + 1))
    chosen = list(range(count)) + large
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = folder + "/cache"
        path = pathlib.Path(folder)
        (path / "test.jsonl").write_text("".join(json.dumps(rows[place]) + "\n" for place in chosen), encoding="utf-8")
        text = (pathlib.Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml").read_text()
        text = re.sub(r"^dataset_path: .*\n", f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {path}/test.jsonl\n", text, flags=re.M)
        text = re.sub(r"^(dataset_name|training_split|fewshot_split): .*\n", "", text, flags=re.M)
        text = re.sub(r"^fewshot_config:\n( .*\n)+", "", text, flags=re.M)
        (path / "gsm8k.yaml").write_text(text)
        results = lm_eval.simple_evaluate(
            model=Stored(texts), tasks=["gsm8k"], task_manager=TaskManager(include_path=folder, include_defaults=False),
            num_fewshot=0, bootstrap_iters=100, log_samples=True,
        )
    found = [{"row": chosen[place], "response": text, "filters": {}} for place, text in enumerate(texts)]
    for sample in results["samples"]["gsm8k"]:
        found[sample["doc_id"]]["filters"][sample["filter"]] = [sample["filtered_resps"][0], sample["exact_match"]]
    golden = {
        "command": "scripts/golden-gsm8k.py gsm8k.json", "lm_eval": lm_eval.__version__,
        "results": {key: value for key, value in results["results"]["gsm8k"].items() if "," in key}, "generations": found,
    }
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in golden.pop("generations"))
    head = json.dumps(golden, ensure_ascii=False)[:-1]
    pathlib.Path(sys.argv[1]).write_text(f'{head}, "generations": [\n{lines}\n]}}\n', encoding="utf-8")
    print(golden["results"], len(found))


if __name__ == "__main__":
    main()
