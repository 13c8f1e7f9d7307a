"""One knowledge leaf through a pipeline of instructlab-sdg, driven on an OpenAI-compatible server; prints its wall time.

usage: instructlab_sdg_rate.py --url http://127.0.0.1:8080/v1 --model NAME --pipeline full/knowledge.yaml --input rows.jsonl
                               --output rows_out.jsonl [--workers N] [--batch N]

The rows are what both sides begin with: document, icl_document, icl_query_1..3, icl_response_1..3, domain, document_outline
(`pipeline generate --sources FILE` writes them). Needs instructlab-sdg 0.8.3, datasets, openai 1.x. docling, which only
converts documents, may be absent: the pipelines do not use it.
"""

import argparse
import json
import logging
import sys
import time
import types


class Absent(types.ModuleType):
    """Stands for a module that an import names and nothing here calls."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(f"{self.__name__}.{name}")


def allow_absent(*names):
    for name in names:
        try:
            __import__(name)
        except ImportError:
            sys.modules[name] = Absent(name)


allow_absent(
    "docling",
    "docling.chunking",
    "docling.datamodel",
    "docling.datamodel.accelerator_options",
    "docling.datamodel.base_models",
    "docling.datamodel.document",
    "docling.datamodel.pipeline_options",
    "docling.document_converter",
    "docling_core",
    "docling_core.transforms",
    "docling_core.transforms.chunker",
    "docling_parse",
    "submodlib",
)

from datasets import Dataset  # noqa: E402
from instructlab.sdg.pipeline import Pipeline, PipelineContext  # noqa: E402
from openai import OpenAI  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--family", default="llama", help="its table of chat templates has no chatml; the nearest")
    parser.add_argument("--pipeline", default="pipelines/full/knowledge.yaml")
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.ERROR)

    with open(arguments.input, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    client = OpenAI(base_url=arguments.url, api_key="none", timeout=3600)
    context = PipelineContext(
        client,
        model_family=arguments.family,
        model_id=arguments.model,
        num_instructions_to_generate=30,
        batch_size=arguments.batch,
        batch_num_workers=arguments.workers,
    )
    pipeline = Pipeline.from_file(context, arguments.pipeline)
    started = time.perf_counter()
    try:
        made = list(pipeline.generate(Dataset.from_list(rows)))
        stopped = None
    except Exception as error:  # a block that leaves no row raises: the time until then is what a user waits
        made, stopped = [], str(error)
    seconds = time.perf_counter() - started
    with open(arguments.output, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
    print(json.dumps({"rows_in": len(rows), "rows_out": len(made), "seconds": round(seconds, 2), "stopped": stopped}))


if __name__ == "__main__":
    main()
