#!/usr/bin/env python3
"""What InstructLab's own reader says of mutated leaves of the public taxonomy.

    taxonomy-verdicts.py TREE OUT

TREE is the copy of the public taxonomy (tests/assets/taxonomy), OUT the folder to write (tests/assets/taxonomy-verdicts):
  bases.jsonl     {"base", "text"}: leaves that the mutations start from
  verdicts.jsonl  {"name", "path", "base", "at": [from, to], "with" | "with_base64", "schema", "ilab", "first"}: bytes
                  `from..to` of the base are replaced; `path` is where the file lies in a tree; `schema` and `ilab` tell
                  whether it is accepted by PyYAML and the JSON schema, and by the reader as `ilab` calls it (with yamllint,
                  where a warning counts as an error); `first` is its first complaint

The same seed gives the same files. Read by taxonomy/tests/verdicts.rs.
needs: instructlab-schema 0.4.2, yamllint 1.38, PyYAML, jsonschema
"""
import base64, contextlib, io, json, logging, os, random, re, sys, tempfile
from pathlib import Path

import yaml
from instructlab.schema.taxonomy import TaxonomyMessageFormat, TaxonomyParser

os.environ["PATH"] = str(Path(sys.executable).parent)  # yamllint beside this Python; no yq, which gives lines only
logging.disable(logging.CRITICAL)


class Indented(yaml.SafeDumper):
    """Lists are indented below their key, as the public leaves have them."""

    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, False)


def dump(value):
    return yaml.dump(value, Dumper=Indented, sort_keys=False, allow_unicode=True, width=1000)


def verdict(path, data, lint):
    """Whether the reader accepts a file, and its first complaint."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        reader = TaxonomyParser(schema_version=0, yamllint_strict=True, message_format=TaxonomyMessageFormat.STANDARD)
        if not lint:
            reader._yamllint = lambda **_: None
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                taxonomy = reader.parse(file)
        except Exception as error:
            cause = error.__cause__ or error
            return False, re.sub(r"\s+", " ", f"{type(cause).__name__}: {cause}")[:120]
        lines = [line for line in out.getvalue().splitlines() if line.startswith("ERROR")]
        # Where the package lies is this machine's own affair.
        first = re.sub(r"^ERROR: \S*?qna\.ya?ml:|/\S*?/site-packages/", "", lines[0])[:120] if lines else ""
        return taxonomy.errors == 0, first.replace(folder, "TREE")


SKILL = "compositional_skills/linguistics/words/qna.yaml"
KNOWLEDGE = "knowledge/arts/music/qna.yaml"
FREE = "skills/words/qna.yaml"


def bases(tree):
    skill = yaml.safe_load((tree / "compositional_skills/linguistics/synonyms/qna.yaml").read_text())
    skill["seed_examples"] = [
        {"question": seed["question"], "answer": " ".join(seed["answer"].split())[:40]} for seed in skill["seed_examples"][:5]
    ]
    skill["task_description"] = skill.pop("task_description")
    knowledge = yaml.safe_load((tree / "knowledge/arts/music/fandom/swifties/qna.yaml").read_text())
    for seed in knowledge["seed_examples"]:
        seed["context"] = " ".join(seed["context"].split())[:60]
        for pair in seed["questions_and_answers"]:
            pair.update({key: " ".join(pair[key].split())[:30] for key in ("question", "answer")})
    knowledge["document_outline"] = "Overview of Swifties"
    first = yaml.safe_load((tree / "foundational_skills/reasoning/linguistics_reasoning/odd_one_out/qna.yaml").read_text())
    grounded = yaml.safe_load((tree / "compositional_skills/grounded/linguistics/writing/rewriting/qna.yaml").read_text())
    for seed in grounded["seed_examples"]:
        seed.update({key: " ".join(value.split())[:40] for key, value in seed.items()})
    return {"skill": skill, "knowledge": knowledge, "first": first, "grounded": grounded}


def removed(value, path):
    copy = json.loads(json.dumps(value))
    place = copy
    for part in path[:-1]:
        place = place[part]
    del place[path[-1]]
    return copy


def changed(value, path, new):
    copy = json.loads(json.dumps(value))
    place = copy
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = new
    return copy


def paths(value, prefix=()):
    """Every place in a leaf; of lists the first item alone."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*prefix, key)
            yield from paths(inner, (*prefix, key))
    elif isinstance(value, list) and value:
        yield (*prefix, 0)
        yield from paths(value[0], (*prefix, 0))


def structural(name, leaf, path):
    """Values taken away, emptied, of another type, and keys that no form has."""
    where = lambda place: ".".join(map(str, place))
    for place in paths(leaf):
        if place[-1] == 0:
            continue
        yield f"{name} without {where(place)}", path, dump(removed(leaf, place))
        for title, new in (("empty", ""), ("blank", " "), ("null", None), ("number", 7), ("list", ["x"]), ("mapping", {"x": "y"}), ("true", True)):
            if title == "true" and random.random() < 0.6 or title in ("list", "mapping", "blank") and random.random() < 0.4:
                continue
            yield f"{name} {title} {where(place)}", path, dump(changed(leaf, place, new))
    for place in [(), *paths(leaf)]:
        inner = leaf
        for part in place:
            inner = inner[part]
        if isinstance(inner, dict):
            yield f"{name} extra key in {where(place) or 'root'}", path, dump(changed(leaf, (*place, "extra"), "x"))


def seeds(name, leaf, path):
    examples = leaf["seed_examples"]
    for count in (0, 1, 4):
        if count < len(examples):
            yield f"{name} {count} seeds", path, dump(changed(leaf, ("seed_examples",), examples[:count]))
    yield f"{name} twin seeds", path, dump(changed(leaf, ("seed_examples",), examples + examples[:1]))
    other = {key: examples[0][key] for key in reversed(examples[0])}
    yield f"{name} twin seeds in other order of keys", path, dump(changed(leaf, ("seed_examples",), examples + [other]))
    yield f"{name} seed that is text", path, dump(changed(leaf, ("seed_examples",), examples + ["x"]))
    yield f"{name} seed that is null", path, dump(changed(leaf, ("seed_examples",), examples + [None]))
    if "questions_and_answers" in examples[0]:
        pairs = examples[0]["questions_and_answers"]
        at = ("seed_examples", 0, "questions_and_answers")
        yield f"{name} two pairs", path, dump(changed(leaf, at, pairs[:2]))
        yield f"{name} twin pairs", path, dump(changed(leaf, at, pairs + pairs[:1]))
        yield f"{name} twin pairs but for a note", path, dump(changed(leaf, at, pairs + [{**pairs[0], "note": "x"}]))
        yield f"{name} a pair in two contexts", path, dump(changed(leaf, ("seed_examples", 1, "questions_and_answers"), pairs))
        again = {"context": examples[0]["context"], "questions_and_answers": pairs[:1] + examples[1]["questions_and_answers"]}
        yield f"{name} a pair twice in one context", path, dump(changed(leaf, ("seed_examples",), examples + [again]))
        at = ("document", "patterns")
        for title, patterns in (("no", []), ("twin", ["a.md", "a.md"]), ("number in", [7]), ("empty", [""]), ("upward", ["../x.md"])):
            yield f"{name} {title} patterns", path, dump(changed(leaf, at, patterns))
        yield f"{name} with task_description", path, dump({**leaf, "task_description": "x"})
        yield f"{name} flat seed", path, dump(changed(leaf, ("seed_examples", 0), {"question": "q", "answer": "a"}))
    else:
        yield f"{name} mixed context", path, dump(changed(leaf, ("seed_examples", 0, "context"), "c"))
        yield f"{name} with document", path, dump({**leaf, "document": {"repo": "r", "commit": "c", "patterns": ["p"]}})
        yield f"{name} with domain", path, dump({**leaf, "domain": "d"})


VERSIONS = ["0", "1", "2", "3", "4", "-3", "'3'", '"2"', "3.0", "2.0", "3.5", "1e0", "3.", "true", "yes", "null", "~", "", "three", "0x3", "03", "0b11", "+3", "3_0", "[3]", "{}", ".inf", "!!int '3'", "!!str 3", "0o3", "3 # three"]


def versions(name, text, path):
    for written in VERSIONS:
        yield f"{name} version {written}", path, re.sub(r"(?m)^version:.*$", f"version: {written}", text)
    yield f"{name} version absent", path, re.sub(r"(?m)^version:.*\n", "", text)


def scalars(name, text, path):
    """A value written without quotes."""
    for written in ["yes", "No", "on", "y", "2020-01-01", "2020-1-1 10:00:00", "12", "1e3", "1.5", ".5", "1_000", "1:30", "0x1f", "0o17", "017", "null", "~", "Null", "=", "<<", "true", "TRUE", ".nan", "-", "- a", "a: b", "a:b", "a #b", "'it''s'", '"\\u00e9\\n"', "!!str 12", "!!int 12", "!foo x", "!!python/none x", "!!binary aGk=", "@x", "`x`", "%x", "*x", "&x y", "[a]", "{a: b}", "|\n    long\n    text", ">-\n    long\n    text", "two\n    lines", "'two\n    lines'", "ünï 漢字 🦀", "a\tb", "\tb", "x" * 3000, "a,b", "[a,b]", "?", "? x", "\\", "'", '"a', '"\\q"']:
        yield f"{name} created_by {written[:20]!r}", path, re.sub(r"(?m)^created_by:.*$", lambda _: f"created_by: {written}", text)


def layouts(name, text, path):
    lines = text.splitlines(keepends=True)
    index = next(i for i, line in enumerate(lines) if line.startswith("seed_examples:"))
    put = lambda at, what: "".join([*lines[:at], what, *lines[at:]])
    yield f"{name} trailing blank", path, text.replace("\n", " \n", 1)
    yield f"{name} trailing tab", path, text.replace("\n", "\t\n", 1)
    yield f"{name} trailing blank in a seed", path, text.replace(lines[index + 2], lines[index + 2][:-1] + "  \n", 1)
    yield f"{name} no newline at the end", path, text.rstrip("\n")
    yield f"{name} blank lines at the end", path, text + "\n"
    yield f"{name} blank line at the start", path, "\n" + text
    for count in (1, 2, 3):
        yield f"{name} {count} blank lines", path, put(index, "\n" * count)
    yield f"{name} line of blanks", path, put(index, "   \n")
    yield f"{name} CRLF", path, text.replace("\n", "\r\n")
    yield f"{name} CR", path, text.replace("\n", "\r")
    yield f"{name} one CRLF", path, text.replace("\n", "\r\n", 1)
    yield f"{name} BOM", path, "\ufeff" + text
    yield f"{name} BOM and comment", path, "\ufeff# hello\n" + text
    yield f"{name} not UTF-8", path, text.encode().replace(b"created_by: ", b"created_by: \xff\xfe", 1)
    yield f"{name} Latin-1", path, ("# caf\u00e9\n" + text).encode("latin-1", "replace")
    yield f"{name} UTF-16", path, text.encode("utf-16-le")
    yield f"{name} NUL", path, text.replace("created_by: ", "created_by: \0", 1)
    yield f"{name} control character", path, text.replace("created_by: ", "created_by: \x07", 1)
    yield f"{name} no-break space", path, text.replace("created_by: ", "created_by: \u00a0", 1)
    yield f"{name} line separator", path, text.replace("created_by: ", "created_by: a\u2028b ", 1)
    yield f"{name} next line", path, text.replace("created_by: ", "created_by: a\u0085b ", 1)
    yield f"{name} zero-width space", path, text.replace("created_by: ", "created_by: \u200b", 1)
    yield f"{name} tab after colon", path, text.replace("created_by: ", "created_by:\t", 1)
    yield f"{name} two blanks after colon", path, text.replace("created_by: ", "created_by:  ", 1)
    yield f"{name} blank before colon", path, text.replace("created_by: ", "created_by : ", 1)
    yield f"{name} no blank after colon", path, text.replace("created_by: ", "created_by:", 1)
    yield f"{name} tab in indentation", path, text.replace("\n    ", "\n\t", 1)
    yield f"{name} two blanks after hyphen", path, text.replace("  - ", "  -  ", 1).replace("\n    ", "\n     ", 1)
    yield f"{name} one deeper key", path, text.replace("\n    ", "\n     ", 1)
    yield f"{name} duplicate key", path, put(index, lines[index - 1])
    yield f"{name} duplicate key in a seed", path, text.replace(lines[index + 2], lines[index + 2] * 2, 1)
    yield f"{name} document start", path, "---\n" + text
    yield f"{name} document start and comment", path, "# SPDX-License-Identifier: MIT\n---\n" + text
    yield f"{name} document end", path, text + "...\n"
    yield f"{name} two documents", path, text + "---\n" + text
    yield f"{name} second document empty", path, text + "---\n"
    yield f"{name} directive", path, "%YAML 1.1\n---\n" + text
    yield f"{name} directive of 1.2", path, "%YAML 1.2\n---\n" + text
    yield f"{name} comment without blank", path, "#x\n" + text
    yield f"{name} comment close to a value", path, text.replace("\n", " #x\n", 1)
    yield f"{name} comment far in", path, put(index + 1, "          # x\n")
    yield f"{name} comment at the end", path, text + "# x"
    yield f"{name} anchor and alias", path, text.replace("created_by: ", "created_by: &me ", 1).replace("\n    answer: ", "\n    answer: *me # ", 1) if "\n    answer: " in text else text.replace("created_by: ", "created_by: &me ", 1)
    yield f"{name} unknown alias", path, re.sub(r"(?m)^created_by:.*$", "created_by: *you", text)
    yield f"{name} merge key", path, put(index, "<<: {created_by: x}\n")
    yield f"{name} merge key that adds", path, put(index, "<<: {extra: x}\n")
    yield f"{name} merge key of nothing", path, put(index, "<<: 3\n")
    yield f"{name} number as key", path, put(index, "7: x\n")
    yield f"{name} null as key", path, put(index, "~: x\n")
    yield f"{name} list as key", path, put(index, "[a]: x\n")
    yield f"{name} explicit key", path, re.sub(r"(?m)^created_by: ", "? created_by\n: ", text)
    yield f"{name} indented root", path, "".join("  " + line for line in lines)
    yield f"{name} very long line", path, text.replace("created_by: ", "created_by: " + "word " * 400, 1)
    yield f"{name} unclosed quote", path, text.replace("created_by: ", "created_by: \"", 1)
    yield f"{name} unclosed bracket", path, text.replace("created_by: ", "created_by: [", 1)
    yield f"{name} cut short", path, text[: len(text) * 2 // 3]
    yield f"{name} yml", path.replace("qna.yaml", "qna.yml"), text
    yield f"{name} flat lists", path, yaml.safe_dump(yaml.safe_load(text), sort_keys=False, width=1000)
    four = yaml.dump(yaml.safe_load(text), Dumper=Indented, sort_keys=False, width=1000, indent=4)
    yield f"{name} four blanks", path, four
    yield f"{name} narrow", path, yaml.dump(yaml.safe_load(text), Dumper=Indented, sort_keys=False, width=20)
    yield f"{name} JSON", path, json.dumps(yaml.safe_load(text)) + "\n"
    yield f"{name} JSON in lines", path, json.dumps(yaml.safe_load(text), indent=2) + "\n"
    yield f"{name} JSON without blanks", path, json.dumps(yaml.safe_load(text), separators=(",", ":")) + "\n"
    for title, flow in (("", "{question: q, answer: a}"), (" padded", "{ question: q, answer: a }"), (" too padded", "{  question: q, answer: a  }"), (" tight", "{question: q,answer: a}"), (" wide", "{question: q,  answer: a}"), (" blank before comma", "{question: q , answer: a}"), (" in lines", "{question: q,\n     answer: a}"), (" in crooked lines", "{question: q,\n  answer: a}"), (" open", "{\n      question: q,\n      answer: a\n    }"), (" open and crooked", "{\n      question: q,\n      answer: a\n  }"), (" with comma at the end", "{question: q, answer: a,}")):
        yield f"{name} flow seed{title}", path, put(index + 1, f"  - {flow}\n")
    yield f"{name} seed below its hyphen", path, put(index + 1, "  -\n    question: q\n    answer: a\n")
    yield f"{name} seed far below its hyphen", path, put(index + 1, "  -\n      question: q\n      answer: a\n")
    yield f"{name} value below its key", path, re.sub(r"(?m)^created_by: ", "created_by:\n  ", text)
    yield f"{name} value far below its key", path, re.sub(r"(?m)^created_by: ", "created_by:\n    ", text)
    yield f"{name} two kinds of lists", path, text.replace("seed_examples:\n  - ", "seed_examples:\n  - ", 1).replace("patterns:\n    - ", "patterns:\n  - ", 1)
    yield f"{name} block text with blank lines", path, re.sub(r"(?m)^created_by:.*$", "created_by: |\n  a\n\n\n\n  b", text)
    yield f"{name} block text with trailing blanks", path, re.sub(r"(?m)^created_by:.*$", "created_by: |\n  a  \n  b", text)
    yield f"{name} block text deeper", path, re.sub(r"(?m)^created_by:.*$", "created_by: |\n      a\n        b", text)
    yield f"{name} block text with a tab", path, re.sub(r"(?m)^created_by:.*$", "created_by: |\n  a\tb\n  \tc", text)
    yield f"{name} block text kept", path, re.sub(r"(?m)^created_by:.*$", "created_by: |+\n  a\n\n", text)
    yield f"{name} yamllint off", path, "# yamllint disable\n" + text.replace("created_by: ", "created_by:  ", 1)


def small(path):
    for title, text in (("empty", ""), ("newline", "\n"), ("blank", " "), ("comment", "# nothing yet\n"), ("comment without newline", "# x"), ("document start", "---\n"), ("null", "~\n"), ("zero", "0\n"), ("false", "false\n"), ("empty text", "''\n"), ("empty list", "[]\n"), ("empty mapping", "{}\n"), ("text", "hello\n"), ("number", "7\n"), ("list", "- a\n"), ("version alone", "version: 3\n"), ("tab", "\t\n"), ("colon", ":\n"), ("hyphen", "-\n"), ("BOM", "\ufeff"), ("brackets", "[" * 50 + "]" * 50 + "\n"), ("aliases", "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n")):
        yield f"{title} file", path, text


def old_knowledge(leaf):
    flat = [{"question": pair["question"], "answer": pair["answer"]} for seed in leaf["seed_examples"] for pair in seed["questions_and_answers"]]
    for version in (None, 1, 2):
        old = {"version": version, "created_by": "me", "domain": "d", "task_description": "t", "seed_examples": flat[:5], "document": leaf["document"]}
        if version is None:
            del old["version"]
        for path in (KNOWLEDGE, FREE, SKILL):
            yield f"knowledge of version {version} at {path.split('/')[0]}", path, dump(old)


def places(leaf, title):
    text = dump(leaf)
    for path in (KNOWLEDGE, SKILL, FREE, "foundational_skills/x/qna.yaml", "knowledge/compositional_skills/x/qna.yaml", "compositional_skills/knowledge/x/qna.yaml", "knowledge/x/skills/qna.yaml", "qna.yaml"):
        yield f"{title} at {path}", path, text


def splice(base, data):
    """The shortest replacement of one stretch of bytes."""
    start = 0
    while start < min(len(base), len(data)) and base[start] == data[start]:
        start += 1
    end = 0
    while end < min(len(base), len(data)) - start and base[-1 - end] == data[-1 - end]:
        end += 1
    return start, len(base) - end, data[start : len(data) - end]


def main():
    tree, out = Path(sys.argv[1]), Path(sys.argv[2])
    random.seed(7)
    leaves = bases(tree)
    texts = {name: dump(leaf) for name, leaf in leaves.items()}
    cases = []
    for name, path in (("skill", SKILL), ("knowledge", KNOWLEDGE), ("first", FREE), ("grounded", SKILL)):
        cases += [(name, case) for case in structural(name, leaves[name], path)] if name != "grounded" else []
        cases += [(name, case) for case in seeds(name, leaves[name], path)]
    for name, path in (("skill", SKILL), ("knowledge", KNOWLEDGE)):
        cases += [(name, case) for case in versions(name, texts[name], path)]
        cases += [(name, case) for case in layouts(name, texts[name], path)]
    cases += [("skill", case) for case in scalars("skill", texts["skill"], SKILL)]
    first = "version: 1\n" + texts["first"]
    cases += [("first", case) for case in layouts("first", first, FREE)]
    cases += [("skill", case) for case in small(SKILL)]
    cases += [("knowledge", case) for case in old_knowledge(leaves["knowledge"])]
    for name in ("skill", "knowledge", "first"):
        cases += [(name, case) for case in places(leaves[name], name)]
    out.mkdir(parents=True, exist_ok=True)
    write = lambda name, rows: (out / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write("bases.jsonl", [{"base": name, "text": text} for name, text in texts.items()])
    rows, seen = [], set()
    for base, (name, path, data) in cases:
        data = data.encode() if isinstance(data, str) else data
        if (path, data) in seen:
            continue
        seen.add((path, data))
        schema, _ = verdict(path, data, lint=False)
        ilab, complaint = verdict(path, data, lint=True)
        start, end, new = splice(texts[base].encode(), data)
        row = {"name": name, "path": path, "base": base, "at": [start, end]}
        try:
            row["with"] = new.decode()
        except UnicodeDecodeError:
            row["with_base64"] = base64.b64encode(new).decode()
        rows.append({**row, "schema": schema, "ilab": ilab, "first": complaint})
    write("verdicts.jsonl", rows)
    accepted = sum(row["ilab"] for row in rows)
    print(f"{len(rows)} files, {accepted} accepted, {sum(row['schema'] for row in rows)} by the schema alone")


if __name__ == "__main__":
    main()
