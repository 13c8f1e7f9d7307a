#!/usr/bin/env python3
"""Checks deny.toml's licences and sources with nothing but cargo: for machines without cargo-deny.

Usage: scripts/check-licences.py (in the repository; needs the crates to be downloaded)
"""

import re
import subprocess
import sys
import tomllib

rules = tomllib.load(open("deny.toml", "rb"))["licenses"]
allowed = set(rules["allow"])
exceptions = {entry["crate"]: set(entry["allow"]) for entry in rules["exceptions"]}


def satisfied(expression, extra):
    """An SPDX expression of OR, AND and brackets; `/` is the old way to write OR."""
    licences = re.findall(r"[A-Za-z0-9.\-]+(?: WITH [A-Za-z0-9.\-]+)?", expression.replace("/", " OR "))
    text = expression.replace("/", " OR ")
    for licence in sorted(set(licences) - {"OR", "AND"}, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.\-]){re.escape(licence)}(?![\w.\-])", str(licence in allowed | extra), text)
    return eval(text.replace("OR", "or").replace("AND", "and"), {"__builtins__": {}})  # only True, False, or, and


tree = subprocess.run(
    ["cargo", "tree", "--workspace", "--locked", "--target", "all", "-e", "normal,build,dev", "--prefix", "none",
     "--format", "{p}|{l}"],
    check=True, capture_output=True, text=True,
).stdout
seen = sorted({line.removesuffix(" (*)") for line in tree.splitlines() if line})
bad = []
for line in seen:
    package, licence = line.split("|")
    name = package.split()[0]
    if not licence or not satisfied(licence, exceptions.get(name, set())):
        bad.append(f"{package}: {licence or 'no licence stated'}")
    if "(http" in package or "(git" in package:
        bad.append(f"{package}: not from the registry")
print(f"{len(seen)} packages, {len(bad)} refused")
for line in bad:
    print(f"  {line}")
sys.exit(1 if bad else 0)
