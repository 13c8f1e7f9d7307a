#!/usr/bin/env python3
"""The same items by lm-evaluation-harness and by `pipeline eval`, held against each other item by item.

    lm-eval-parity.py ask BENCH MODEL OUT TASK[:LIMIT]...    lm-eval's side: writes OUT/results_*.json and OUT/samples_*.jsonl
    lm-eval-parity.py compare OURS THEIRS                    two folders of samples: log-likelihoods, choices, metrics
    lm-eval-parity.py exact MODEL OURS THEIRS [APART]        where they are more than APART (5e-4) apart: which one double precision
                                                             is nearer to

BENCH is a folder of benchmarks as `--data-dir` takes it: MMLU's CSV files in mmlu/test, the JSON lines of llm-foundry (arc_easy,
arc_challenge, piqa, openbook_qa), hellaswag_val_full.txt or .txt.bz2. `ask` takes lm-eval's own task files, puts the same rows in
the columns of their origin in place of the hub, and runs them through its hf backend in f32; MODEL is a Hugging Face folder
(`pipeline model convert FILE.gguf --out MODEL --dtype f32`). Ours is

    pipeline eval --model FILE.gguf --precision f32 --tasks TASK,... --limit LIMIT --data-dir BENCH --out OURS

`compare` exits with 1 where a log-likelihood is off by more than 1e-3, where another choice is made although lm-eval's margin
exceeds 2e-3, or where prompts differ. `exact` asks lm-eval again with every product, norm and angle in f64 (llama only): a sum over a
hundred tokens in f32 has an error of its own, on either side; it exits with 1 where ours is off by more than 1e-3.
needs: for `ask` and `exact` lm_eval 0.4.13 with torch and transformers, no network; for `compare` nothing.
"""
import bz2
import csv
import json
import pathlib
import re
import shutil
import sys

# Where lm-eval keeps the task, and the split that it asks.
PLACES = {
    "arc_easy": ("arc/arc_easy.yaml", "test"),
    "arc_challenge": ("arc/arc_challenge.yaml", "test"),
    "openbookqa": ("openbookqa/openbookqa.yaml", "test"),
    "piqa": ("piqa/piqa.yaml", "validation"),
    "hellaswag": ("hellaswag/hellaswag.yaml", "validation"),
}
FOUNDRY = {"openbookqa": "openbook_qa"}
LETTERS = "ABCDEFGH"
FAR, MARGIN = 1e-3, 2e-3


def lettered(choices):
    return {"text": choices, "label": list(LETTERS[: len(choices)])}


def foundry(bench, task):
    """The rows of a file of llm-foundry in the columns of their origin."""
    (file,) = bench.rglob(f"{FOUNDRY.get(task, task)}.jsonl")
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        query = row["query"]
        if task.startswith("arc"):
            query = query.removeprefix("Question: ").rstrip("\n")
            yield {"question": query, "choices": lettered(row["choices"]), "answerKey": LETTERS[row["gold"]]}
        elif task == "piqa":
            goal = query.removeprefix("Question: ").rstrip("\n")
            yield {"goal": goal, "sol1": row["choices"][0], "sol2": row["choices"][1], "label": row["gold"]}
        else:
            yield {"question_stem": query, "choices": lettered(row["choices"]), "answerKey": LETTERS[row["gold"]]}


def hellaswag(bench):
    """Six lines an item: `activity: context`, the right ending, four endings. A last sentence that does not end begins the endings."""
    file = next(bench.rglob("hellaswag_val_full.txt*"))
    text = (bz2.decompress(file.read_bytes()) if file.suffix == ".bz2" else file.read_bytes()).decode("utf-8")
    lines = text.removesuffix("\n").split("\n")
    for at in range(0, len(lines), 6):
        label, context = lines[at].split(": ", 1)
        whole, begun = context, ""
        if context[-1] not in ".!?":
            ends = [found.end() for found in re.finditer(r"[.!?] ", context)]
            cut = ends[-1] if ends else 0
            whole, begun = context[:cut].rstrip(" "), context[cut:]
        yield {"activity_label": label, "ctx_a": whole, "ctx_b": begun, "endings": lines[at + 2 : at + 6], "label": lines[at + 1]}


def mmlu(bench, subject, split):
    (file,) = bench.rglob(f"{subject}_{split}.csv")
    for row in csv.DictReader(file.open(encoding="utf-8", newline="")):
        choices = [row[f"choice{place}"] for place in range(4)]
        yield {"question": row["question"], "subject": subject, "choices": choices, "answer": int(row["answer"])}


def written(rows, path):
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path


def local(text, files):
    """A task file of lm-eval whose data set is these files."""
    named = "".join(f"    {split}: {path}\n" for split, path in files.items())
    text = re.sub(r'^"?dataset_name"?: .*\n', "", text, flags=re.M)
    splits = "|".join(split for split in ("training", "validation", "test") if {"training": "train"}.get(split, split) not in files)
    text = re.sub(rf"^({splits})_split: .*\n", "", text, flags=re.M)
    there = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n{named}"
    return re.sub(r"^dataset_path: .*\n", there, text, flags=re.M) if "dataset_path" in text else text + "\n" + there


def tasks(bench, folder, names):
    """Writes lm-eval's own files of the tasks over local data."""
    import lm_eval

    theirs = pathlib.Path(lm_eval.__file__).parent / "tasks"
    for name in names:
        if name == "mmlu":
            shutil.copytree(theirs / "mmlu" / "default", folder / "mmlu")
            template = folder / "mmlu" / "_default_template_yaml"
            template.write_text(re.sub(r"^dataset_path: .*\n", "dataset_path: json\n", template.read_text(), flags=re.M))
            for file in (folder / "mmlu").glob("mmlu_*.yaml"):
                subject = file.stem.removeprefix("mmlu_")
                data = {s: written(mmlu(bench, subject, s), folder / f"{subject}.{s}.jsonl") for s in ("dev", "test")}
                named = "".join(f"    {split}: {path}\n" for split, path in data.items())
                text = re.sub(r'^"?dataset_name"?: .*\n', "", file.read_text(), flags=re.M)
                file.write_text(text + f'\ndataset_kwargs:\n  data_files:\n{named}')
            continue
        place, split = PLACES[name]
        rows = hellaswag(bench) if name == "hellaswag" else foundry(bench, name)
        text = (theirs / place).read_text()
        if name == "arc_challenge":
            base = (theirs / "arc/arc_easy.yaml").read_text()
            text = base.replace("task: arc_easy", "task: arc_challenge").replace("tag:\n  - ai2_arc\n", "")
        (folder / f"{name}.yaml").write_text(local(text, {split: written(rows, folder / f"{name}.jsonl")}))
        for function in (theirs / place).parent.glob("utils.py"):
            shutil.copy(function, folder)


def ask(bench, model, out, asked):
    import os
    import tempfile

    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = folder + "/cache"
        import lm_eval
        from lm_eval.loggers import EvaluationTracker
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        limits = {name: int(limit) if limit else None for name, _, limit in (task.partition(":") for task in asked)}
        tasks(bench, pathlib.Path(folder), limits)
        network = HFLM(pretrained=model, dtype="float32", device="cpu", batch_size=8)
        manager = TaskManager(include_path=folder, include_defaults=False)
        for name, limit in limits.items():
            results = lm_eval.simple_evaluate(
                model=network, tasks=[name], task_manager=manager, limit=limit, log_samples=True, bootstrap_iters=100, num_fewshot=0
            )
            samples = results.pop("samples")
            tracker = EvaluationTracker(output_path=str(out / name))
            tracker.save_results_aggregated(results=results, samples=samples)
            for task, rows in samples.items():
                tracker.save_results_samples(task_name=task, samples=rows)
            print(name, {key: value for key, value in results["results"][name].items() if "," in key}, flush=True)


def read(folder):
    """Samples by task and item, metrics by task. Both sides name their files samples_TASK_STEM.jsonl beside results_STEM.json."""
    samples, metrics = {}, {}
    for file in sorted(folder.rglob("results_*.json")):
        metrics.update(json.loads(file.read_text(encoding="utf-8"))["results"])
        stem = file.stem.removeprefix("results")
        for rows in sorted(file.parent.glob(f"samples_*{stem}.jsonl")):
            task = rows.stem.removeprefix("samples_").removesuffix(stem)
            items = map(json.loads, rows.read_text(encoding="utf-8").splitlines())
            samples[task] = {item["doc_id"]: item for item in items}
    return samples, metrics


def likelihoods(row):
    """Of each choice; both write a pair, as texts or as numbers."""
    return [float(pair[0]) if isinstance(pair, list) else float(pair) for pair in row["filtered_resps"]]


def compare(ours, theirs):
    (our_samples, our_metrics), (their_samples, their_metrics) = read(ours), read(theirs)
    wrong, lines = False, {}
    for task in sorted(their_samples):
        # Tasks of one group are one line.
        group = "mmlu" if task.startswith("mmlu_") else task
        rows, line = our_samples.get(task, {}), lines.setdefault(group, [0, 0, 0.0, 0, 0.0, 0, 0])
        for item, their in their_samples[task].items():
            line[0] += 1
            if item not in rows:
                line[1] += 1
                continue
            our = rows[item]
            if our["prompt_hash"] != their["prompt_hash"] or our["target_hash"] != their["target_hash"]:
                line[5] += 1
                continue
            line[6] += our["doc_hash"] != their["doc_hash"]
            found, expected = likelihoods(our), likelihoods(their)
            line[2] = max(line[2], *(abs(a - b) for a, b in zip(found, expected)))
            best = max(expected)
            # First of equals, as numpy's argmax.
            if found.index(max(found)) != expected.index(best):
                line[3] += 1
                line[4] = max(line[4], best - expected[found.index(max(found))])
    print(f"{'task':16} {'items':>6} {'missing':>7} {'max |d ll|':>10} {'other choice':>12} {'margin':>8} {'other prompt':>12} {'other doc':>9}")
    for task, (items, missing, far, other, margin, unlike, document) in lines.items():
        print(f"{task:16} {items:6} {missing:7} {far:10.2e} {other:12} {margin:8.1e} {unlike:12} {document:9}")
        wrong |= bool(missing or unlike or far > FAR or margin > MARGIN)
    print(f"\n{'task':34} {'metric':20} {'ours':>10} {'lm-eval':>10} {'difference':>10}")
    differ = count = 0
    for task, metrics in sorted(their_metrics.items()):
        for name, value in metrics.items():
            if "," not in name or isinstance(value, str):
                continue
            our = our_metrics.get(task, {}).get(name)
            our = float("nan") if our is None or isinstance(our, str) else our
            same = abs(our - value) <= 1e-9
            count, differ = count + 1, differ + (not same)
            if not same or not task.startswith("mmlu_"):
                print(f"{task:34} {name:20} {our:10.6f} {value:10.6f} {our - value:10.1e}")
    print(f"{differ} of {count} metrics differ by more than 1e-9")
    return 1 if wrong else 0


def in_double_precision(model):
    """lm-eval's model with weights, norms, rotary angles and softmax in f64. transformers takes some of them in f32 in any type."""
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers.models.llama import modeling_llama as llama

    def norm(self, hidden):
        return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    def angles(self, hidden, position_ids):
        width = 2 * self.inv_freq.numel()
        powers = torch.arange(0, width, 2, dtype=torch.float64) / width
        found = position_ids[..., None].double() * (1.0 / self.config.rope_parameters["rope_theta"] ** powers)
        found = torch.cat((found, found), dim=-1)
        return found.cos(), found.sin()

    llama.LlamaRMSNorm.forward, llama.LlamaRotaryEmbedding.forward = norm, angles
    # The attention of torch keeps its softmax in the type of its inputs; transformers' own goes to f32.
    network = HFLM(pretrained=model, dtype="float64", device="cpu", batch_size=1, attn_implementation="sdpa")
    assert network.model.config.rope_parameters["rope_type"] == "default", "only plain rotary angles"
    assert {parameter.dtype for parameter in network.model.parameters()} == {torch.float64}
    return network


def exact(model, ours, theirs, apart):
    from lm_eval.api.instance import Instance

    (our_samples, _), (their_samples, _) = read(ours), read(theirs)
    found = []
    for task, rows in their_samples.items():
        for item, their in rows.items():
            our = our_samples.get(task, {}).get(item)
            for place, pair in enumerate(zip(likelihoods(our), likelihoods(their)) if our else ()):
                if abs(pair[0] - pair[1]) > apart:
                    found.append((task, item, place, *pair, tuple(their["arguments"][f"gen_args_{place}"].values())))
    print(f"{len(found)} log-likelihoods are more than {apart} apart")
    if not found:
        return 0
    requests = [Instance("loglikelihood", {}, arguments, place) for place, (*_, arguments) in enumerate(found)]
    exactly = [value for value, _ in in_double_precision(model).loglikelihood(requests, disable_tqdm=True)]
    print(f"{'task':16} {'item':>6} {'choice':>6} {'f64':>15} {'ours - f64':>11} {'lm-eval - f64':>13}")
    errors = [(value - right, their - right) for right, (_, _, _, value, their, _) in zip(exactly, found)]
    for right, (ours_off, theirs_off), (task, item, place, *_) in zip(exactly, errors, found):
        print(f"{task:16} {item:6} {place:6} {right:15.6f} {ours_off:11.1e} {theirs_off:13.1e}")
    worst = [max(abs(pair[side]) for pair in errors) for side in (0, 1)]
    print(f"furthest from f64: ours {worst[0]:.1e}, lm-eval's {worst[1]:.1e}")
    return 1 if worst[0] > FAR else 0


def main():
    match sys.argv[1:]:
        case ["ask", bench, model, out, *asked] if asked:
            ask(pathlib.Path(bench).resolve(), model, pathlib.Path(out), asked)
        case ["compare", ours, theirs]:
            sys.exit(compare(pathlib.Path(ours), pathlib.Path(theirs)))
        case ["exact", model, ours, theirs, *apart] if len(apart) < 2:
            sys.exit(exact(model, pathlib.Path(ours), pathlib.Path(theirs), float(apart[0]) if apart else 5e-4))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
