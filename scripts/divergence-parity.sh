#!/usr/bin/env bash
# Divergence as `pipeline compare` and llama-perplexity --kl-divergence measure it, side by side: the same F32 reference, the
# same quantized file, the same windows of a text.
# usage: divergence-parity.sh MODEL.F32.gguf TEXT WINDOWS TYPE...
# Keys and values are kept as f32 and the candidate is decoded to F32 for llama-perplexity, so that both sides compute the same
# products: its own kernels round activations to 8 bits, which is measured on top in a second line.
# environment: LLAMA_BIN (the folder of llama-perplexity and llama-quantize), ESPALIER_PIPELINE (default: pipeline, on PATH)
set -euo pipefail
peers="${LLAMA_BIN:?set LLAMA_BIN to the folder of the tools of llama.cpp}"; ours="${ESPALIER_PIPELINE:-pipeline}"
[ $# -ge 4 ] || { sed -n 2,6p "$0" >&2; exit 2; }
model="$(realpath "$1")"; text="$(realpath "$2")"; windows="$3"; shift 3
work="$(mktemp -d)"; trap 'rm -rf "$work"' EXIT
exact=(-f "$text" -ctk f32 -ctv f32 -fa off -t 1 -c 512)
figures() { sed -nE 's/^(Mean +KLD|Median +KLD|99\.9% +KLD|RMS Δp|Same top p) *: */\1 /p' | tr -s ' ' | paste -sd';' ; }

"$peers/llama-perplexity" -m "$model" --kl-divergence-base "$work/base" --chunks "$windows" "${exact[@]}" >"$work/log" 2>&1
for type in "$@"; do
  "$peers/llama-quantize" "$model" "$work/candidate.gguf" "$type" >"$work/log" 2>&1
  "$peers/llama-quantize" --allow-requantize "$work/candidate.gguf" "$work/decoded.gguf" F32 >"$work/log" 2>&1
  for side in decoded candidate; do
    printf '%s llama-perplexity, %s: ' "$type" "$side"
    "$peers/llama-perplexity" -m "$work/$side.gguf" --kl-divergence-base "$work/base" --kl-divergence "${exact[@]}" 2>"$work/log" | figures
  done
  printf '%s ours: ' "$type"
  "$ours" --precision f32 compare "$work/candidate.gguf" --reference "$model" --text "$text" --chunks "$windows" --json | tail -1
done
