#!/usr/bin/env python3
"""Writes eval/data/languages.txt.bz2: the profiles of languages and the groups of Chinese characters of langdetect.

usage: embed-languages.py
needs: langdetect 1.0.9
Lines: `@CODE N1 N2 N3` a language with its count of runs of one, two and three characters; `=CHARACTERS` characters of which the
first stands for all; `RUN<tab>LANGUAGE:COUNT,...` how often a run stands in the language of that place.
"""
import bz2
import json
import pathlib

import langdetect
from langdetect.utils.ngram import NGram

profiles = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(pathlib.Path(langdetect.__file__).parent.glob("profiles/*"))]
lines = [f"@{profile['name']} {' '.join(map(str, profile['n_words']))}" for profile in profiles]
lines += ["=" + group for group in NGram.CJK_CLASS]
runs = {}
for place, profile in enumerate(profiles):
    for run, count in profile["freq"].items():
        runs.setdefault(run, []).append(f"{place}:{count}")
lines += [f"{run}\t{','.join(counts)}" for run, counts in sorted(runs.items())]
data = bz2.compress(("\n".join(lines) + "\n").encode())
(pathlib.Path(__file__).parent.parent / "eval" / "data" / "languages.txt.bz2").write_bytes(data)
print(len(profiles), "languages,", len(runs), "runs,", len(data), "bytes")
