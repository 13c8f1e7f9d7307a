#!/usr/bin/env bash
# Compares our quantized files with llama-quantize's, tensor by tensor: names, order, types, bytes.
# usage: quantize-parity.sh [--golden] [MODEL.gguf]
#   MODEL.gguf   a model to compare on, made F32 first (default: $ESPALIER_TEST_SMOLLM2 if set); besides it always the 260K
#                model and a random llama whose widths are multiples of 256
#   --golden     also writes quantize/tests/golden/*.json from llama-quantize's files
# environment: LLAMA_QUANTIZE (default: llama-quantize on PATH), TYPES (default: all that we write)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
golden=""; [ "${1:-}" = "--golden" ] && { golden=1; shift; }
model="${1:-${ESPALIER_TEST_SMOLLM2:-}}"
peer="${LLAMA_QUANTIZE:-llama-quantize}"
types="${TYPES:-F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K}"
command -v "$peer" >/dev/null || { echo "no llama-quantize: set LLAMA_QUANTIZE to its path" >&2; exit 2; }

cargo build -q --release -p espalier-quantize --examples
bin="${CARGO_TARGET_DIR:-target}/release/examples"
work="$(mktemp -d)"; trap 'rm -rf "$work"' EXIT
stories=tests/assets/model/stories260K.bin
"$bin/quantize" "$stories" "$work/stories260K.gguf" F32 >/dev/null
"$bin/random_llama" "$stories" "$work/random_llama.gguf"
inputs=("$work/stories260K.gguf" "$work/random_llama.gguf")
if [ -n "$model" ]; then
  "$peer" --allow-requantize "$model" "$work/model.gguf" F32 >/dev/null 2>&1
  "$bin/quantize" "$model" "$work/ours.gguf" F32 >/dev/null
  if cmp -s "$work/model.gguf" "$work/ours.gguf"; then whole="whole file equal"; else whole="file differs"; fi
  diff <("$bin/tensor_hashes" "$work/model.gguf") <("$bin/tensor_hashes" "$work/ours.gguf") >/dev/null \
    && echo "model F32: tensors equal, $whole" || { echo "model F32: DIFFERENT"; exit 1; }
  inputs+=("$work/model.gguf")
fi

failed=0
for input in "${inputs[@]}"; do
  name="$(basename "$input" .gguf)"
  if [ -n "$golden" ] && [ "$name" != model ]; then
    printf '{"command": "scripts/quantize-parity.sh --golden: llama-quantize %s.gguf OUT.gguf TYPE; tensor_hashes OUT.gguf",\n "files": {' \
      "$name" >"$work/$name.json"; comma=""
  fi
  for type in $types; do
    start=$(date +%s.%N); "$peer" "$input" "$work/theirs.gguf" "$type" "$(nproc)" >/dev/null 2>&1
    between=$(date +%s.%N); NO_VERIFY=1 "$bin/quantize" "$input" "$work/ours.gguf" "$type" >/dev/null
    end=$(date +%s.%N)
    "$bin/tensor_hashes" "$work/theirs.gguf" >"$work/theirs.txt"
    "$bin/tensor_hashes" "$work/ours.gguf" >"$work/ours.txt"
    different=$(diff "$work/theirs.txt" "$work/ours.txt" | grep -c '^<' || true)
    [ "$different" = 0 ] || failed=1
    cmp -s "$work/theirs.gguf" "$work/ours.gguf" && whole="whole file equal" || whole="other metadata"
    printf '%-14s %-7s %3d of %3d tensors differ, %s; llama-quantize %.2f s, ours %.2f s\n' "$name" "$type" "$different" \
      "$(wc -l <"$work/theirs.txt")" "$whole" "$(echo "$between - $start" | bc)" "$(echo "$end - $between" | bc)"
    if [ -n "$golden" ] && [ "$name" != model ]; then
      { printf '%s\n  "%s": [\n' "$comma" "$type"; sed 's/.*/    "&",/; $s/,$//' "$work/theirs.txt"; printf '  ]'; } >>"$work/$name.json"; comma=","
    fi
  done
  if [ -n "$golden" ] && [ "$name" != model ]; then
    printf '\n }}\n' >>"$work/$name.json"; mv "$work/$name.json" "quantize/tests/golden/$name.json"
  fi
done

# The options, on the model in which every type occurs.
while read -r options; do
  # shellcheck disable=SC2086  # the words of $options are arguments
  "$peer" $options "$work/random_llama.gguf" "$work/theirs.gguf" Q4_K_M >/dev/null 2>&1
  # shellcheck disable=SC2086
  NO_VERIFY=1 "$bin/quantize" $options "$work/random_llama.gguf" "$work/ours.gguf" Q4_K_M >/dev/null
  if cmp -s "$work/theirs.gguf" "$work/ours.gguf"; then echo "whole file equal: $options"; else echo "DIFFERENT: $options"; failed=1; fi
done <<'OPTIONS'
--pure
--tensor-type ffn_(up|gate)=q5_k --tensor-type ffn=q2_k
--token-embedding-type q8_0 --output-tensor-type q4_0
--pure --tensor-type attn_v=q6_k --output-tensor-type f16
OPTIONS
exit $failed
