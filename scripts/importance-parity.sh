#!/usr/bin/env bash
# Writes the golden files of importance matrices and divergence with llama.cpp's tools, from the 260K model in F32:
#   quantize/tests/golden/stories260K.imatrix.gguf and .dat   llama-imatrix on four windows of tests/assets/text/wiki.test.raw
#   quantize/tests/golden/stories260K.divergence.txt          llama-perplexity --kl-divergence of Q4_0 on sixteen windows
# Keys and values are kept as f32 and Q4_0 is decoded to F32 before it runs, so that both sides compute the same products.
# environment: LLAMA_BIN (the folder of llama-imatrix, llama-perplexity and llama-quantize)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
peers="${LLAMA_BIN:?set LLAMA_BIN to the folder of the tools of llama.cpp}"
golden="$PWD/quantize/tests/golden"
work="$(mktemp -d)"; trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1

cargo build -q --release -p espalier-quantize --example quantize
NO_VERIFY=1 "${CARGO_TARGET_DIR:-target}/release/examples/quantize" tests/assets/model/stories260K.bin "$work/f32.gguf" F32
cd tests/assets/text
exact=(-f wiki.test.raw -ctk f32 -ctv f32 -fa off -t 1 -c 512)
for form in gguf dat; do
  "$peers/llama-imatrix" -m "$work/f32.gguf" -o "$golden/stories260K.imatrix.$form" --output-format "$form" --chunks 4 --no-ppl \
    "${exact[@]}"
done
"$peers/llama-quantize" "$work/f32.gguf" "$work/q4_0.gguf" Q4_0
"$peers/llama-quantize" --allow-requantize "$work/q4_0.gguf" "$work/decoded.gguf" F32
"$peers/llama-perplexity" -m "$work/f32.gguf" --kl-divergence-base "$work/base" --chunks 16 "${exact[@]}"
"$peers/llama-perplexity" -m "$work/decoded.gguf" --kl-divergence-base "$work/base" --kl-divergence "${exact[@]}" 2>"$work/log" |
  sed -n '/====== Perplexity/,$p' | sed '/^[0-9.]* I/d' >"$golden/stories260K.divergence.txt"
