#!/usr/bin/env python3
"""What lm-eval's filters of BIG-Bench Hard (zero-shot) take from stored generations, for eval/tests/golden/bbh.json.

usage: golden-bbh.py OUT.json
needs: lm_eval 0.4.13, word2number, regex; no network, no model
Questions and generations are ours. lm-eval's own task files are asked of a model that says them; the prompts are kept too.
"""
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

DATE = "It is the first of May 2020. What is the date tomorrow in MM/DD/YYYY?\nOptions:\n(A) 05/02/2020\n(B) 05/01/2020\n(C) 04/30/2020"
SNARK = "Which statement is sarcastic?\nOptions:\n(A) What a fine day, said the sun\n(B) What a fine day, said the sun in the rain"
COUNT = "I have two dogs, a cat and six hens. How many animals do I have?"
LIES = "Ann says that Bob lies. Bob tells the truth. Does Ann tell the truth?"
SPORT = "Is the following sentence plausible? \"A goalkeeper scored a home run.\""
SORT = "Sort the following words alphabetically: List: pear apple fig plum"
ROWS = {
    "boolean_expressions": ("not ( True ) and True is", "False", ["False", " False.", "It is True, no, False", "false", "TRUE", "", "Falsehood"]),
    "date_understanding": (DATE, "(A)", [
        "(A)", "(A) 05/02/2020", "The answer is (B), not (A)", "05/02/2020", "It is 04/30/2020.", "Answer: C", ": B", "(D)", "nothing", "A", "",
    ]),
    "snarks": (SNARK, "(B)", ["(B)", "what a fine day said the sun in the rain", "What a fine day, said the Sun!", "the second", "b", ":\nA"]),
    "dyck_languages": ("Complete: [ {", "} ]", ["} ]", " } ]", "] }", "the rest is } ]", "none", ""]),
    "object_counting": (COUNT, "9", [
        "9", "There are 9 animals.", "nine", "I count ninety", "twenty one", "two hundred and five", "three thousand four hundred",
        "one million", "-9", "7 or 9", "no one", "many", "", "forty-two", "eight", "eighteen", "fourteen", "Five, and four", "two and three",
    ]),
    "multistep_arithmetic_two": ("((1 + 2) * -3) =", "-9", ["-9", "= -9", "minus nine", "The answer is -9.", "9", "--", "twelve"]),
    "navigate": ("Take 1 step. Turn around. Take 1 step. Do you return?", "Yes", ["Yes", "yes.", "No, yes", "YES", "I do", ""]),
    "sports_understanding": (SPORT, "no", ["no", "No.", "It is not plausible.", "plausible", "Yes, it is not plausible", "maybe", "", "know"]),
    "web_of_lies": (LIES, "no", ["No", "Ann does not tell the truth.", "Ann tells the truth", "yes", "is telling the truth", "who knows", "no yes"]),
    "word_sorting": (SORT, "apple fig pear plum", [
        "apple fig pear plum", "fig, apple, fig, pear, plum", "The list: apple pear", "none", "", "pear apple fig plum -> apple fig pear plum", "figs",
    ]),
}


class Stored(LM):
    """Says what is stored, document by document."""

    def __init__(self):
        super().__init__()
        self.texts = []

    def generate_until(self, requests, disable_tqdm=False):
        return [self.texts[request.doc_id] for request in requests]

    def loglikelihood(self, requests):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


def main():
    theirs = pathlib.Path(lm_eval.__file__).parent / "tasks" / "bbh" / "zeroshot"
    model, golden = Stored(), {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = folder + "/cache"
        path = pathlib.Path(folder)
        for file in theirs.iterdir():
            if file.is_file() and not file.name.startswith("_bbh"):
                (path / file.name).write_text(file.read_text())
        for task, (question, target, texts) in ROWS.items():
            (path / f"{task}.jsonl").write_text((json.dumps({"input": question, "target": target}) + "\n") * len(texts), encoding="utf-8")
            template = path / "_zeroshot_template_yaml"
            template.write_text(re.sub(r"^dataset_path: .*\n", "dataset_path: json\n", template.read_text(), flags=re.M))
            file = path / f"{task}.yaml"
            text = re.sub(r'^"?dataset_name"?: .*\n', "", file.read_text(), flags=re.M)
            file.write_text(text + f"\ndataset_kwargs:\n  data_files:\n    test: {path}/{task}.jsonl\n")
            model.texts = texts
            results = lm_eval.simple_evaluate(
                model=model, tasks=[f"bbh_zeroshot_{task}"], task_manager=TaskManager(include_path=folder, include_defaults=False),
                bootstrap_iters=0, log_samples=True,
            )
            found = [{"response": text, "filters": {}} for text in texts]
            for sample in results["samples"][f"bbh_zeroshot_{task}"]:
                found[sample["doc_id"]]["filters"][sample["filter"]] = [sample["filtered_resps"][0], sample["exact_match"]]
                prompt = sample["arguments"][0][0]
            golden[task] = {"input": question, "target": target, "prompt": prompt, "generations": found}
    whole = {"command": "scripts/golden-bbh.py bbh.json", "lm_eval": lm_eval.__version__, "tasks": golden}
    pathlib.Path(sys.argv[1]).write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    for task, row in golden.items():
        print(task, [found["filters"]["flexible-extract"] for found in row["generations"]])


if __name__ == "__main__":
    main()
