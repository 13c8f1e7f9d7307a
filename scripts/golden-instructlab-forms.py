#!/usr/bin/env python3
"""What instructlab-sdg 0.8.3 makes of generated rows in its two phases, as a golden file for dataset/tests/instructlab.rs:

    python scripts/golden-instructlab-forms.py dataset/tests/golden/instructlab_forms.json

Needs instructlab-sdg and its dependencies; docling, which these functions do not use, may be absent. The documents of
phase 1.0 are drawn without a seed there, so that only their form is a golden: rows of one chunk, which have no distractor.
"""

import importlib.abc
import importlib.machinery
import json
import sys
import types


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for docling: any name of it is an empty class."""

    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("docling", "docling_core", "docling_parse"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__path__ = []
        module.__getattr__ = lambda name: type(name, (), {})
        return module

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, Absent())

from datasets import Dataset  # noqa: E402
from instructlab.sdg import datamixing  # noqa: E402

CHUNK = "# A pond\n\nThe pond at Ely is nine metres depe. Carp live in it."
MENDED = "# A pond\n\nThe pond at Ely is nine metres deep. Carp live in it."
ROWS = [
    {"question": "How deep is the pond?", "response": "Nine metres.", "document": MENDED, "dataset_type": "spellcheck"},
    {"question": "What lives in it?", "response": "Carp.", "document": MENDED, "dataset_type": "spellcheck"},
    {"question": "Where is the pond?", "response": "At Ely.", "document": CHUNK, "dataset_type": "base_document"},
]
for row in ROWS:
    row.update(raw_document=CHUNK, domain="geography", document_outline="ponds")
INSTRUCTIONS = {"spellcheck": ["Mend it."]}


def plain(dataset):
    return [
        {"messages": row["messages"], "metadata": json.loads(row["metadata"]), "unmask": row["unmask"]} for row in dataset
    ]


phase07 = datamixing._create_phase07_ds(Dataset.from_list(ROWS), INSTRUCTIONS, False)
alone = datamixing._create_phase10_ds(Dataset.from_list(ROWS[:2]), INSTRUCTIONS, False)
golden = {"rows": ROWS, "instructions": INSTRUCTIONS, "phase07": plain(phase07), "phase10_of_first_two": plain(alone)}
with open(sys.argv[1], "w", encoding="utf-8") as file:
    json.dump(golden, file, indent=1, ensure_ascii=False)
    file.write("\n")
