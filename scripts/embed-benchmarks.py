#!/usr/bin/env python3
"""Makes eval/data/*.jsonl.gz from public benchmark files: scripts/embed-benchmarks.py BENCHMARKS

BENCHMARKS holds llm-foundry/{arc_easy,arc_challenge,openbook_qa,copa}.jsonl ({query, choices, gold} a line), gsm8k/{train,test}.jsonl,
ifeval/input_data.jsonl and mmlu/{dev,test}/SUBJECT_{dev,test}.csv (question, choice0 to choice3, answer 0 to 3). The rows get the columns of the data sets
that lm-eval reads; of MMLU the first 20 test questions of each subject are kept. The same input gives the same bytes.
"""
import csv
import gzip
import json
import pathlib
import sys

SOURCE = pathlib.Path(sys.argv[1])
TARGET = pathlib.Path(__file__).parent.parent / "eval" / "data"
LETTERS = "ABCDEFGH"


def lines(path):
    return [json.loads(line) for line in (SOURCE / path).read_text(encoding="utf-8").splitlines() if line.strip()]


def write(name, rows):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with open(TARGET / f"{name}.jsonl.gz", "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text.encode())
    print(name, len(rows))


def lettered(row):
    return {"text": row["choices"], "label": list(LETTERS[: len(row["choices"])])}


def arc(name):
    for row in lines(f"llm-foundry/{name}.jsonl"):
        question = row["query"].removeprefix("Question: ").rstrip("\n").removesuffix("\nAnswer:")
        yield {"question": question, "choices": lettered(row), "answerKey": LETTERS[row["gold"]]}


def copa():
    for row in lines("llm-foundry/copa.jsonl"):
        premise, connector = row["query"].rstrip().rsplit(" ", 1)
        first, second = row["choices"]
        question = {"because": "cause", "therefore": "effect"}[connector]
        yield {"premise": premise + ".", "choice1": first, "choice2": second, "question": question, "label": row["gold"]}


def mmlu(split, most):
    for path in sorted((SOURCE / "mmlu" / split).glob("*.csv")):
        subject = path.stem.removesuffix("_" + split)
        with open(path, newline="", encoding="utf-8") as file:
            for row in list(csv.DictReader(file))[:most]:
                choices = [row[f"choice{place}"] for place in range(4)]
                yield {"question": row["question"], "subject": subject, "choices": choices, "answer": int(row["answer"])}


def openbookqa():
    for row in lines("llm-foundry/openbook_qa.jsonl"):
        yield {"question_stem": row["query"], "choices": lettered(row), "answerKey": LETTERS[row["gold"]]}


write("arc_easy.test", list(arc("arc_easy")))
write("arc_challenge.test", list(arc("arc_challenge")))
write("openbookqa.test", list(openbookqa()))
write("copa.validation", list(copa()))
write("gsm8k.train", lines("gsm8k/train.jsonl"))
write("gsm8k.test", lines("gsm8k/test.jsonl"))
write("ifeval.train", lines("ifeval/input_data.jsonl"))
write("mmlu.dev", list(mmlu("dev", None)))
write("mmlu.test", list(mmlu("test", 20)))
