#!/usr/bin/env bash
# Compares our quantized files with llama-quantize's, whole files, with and without an importance matrix; where they differ
# it says which tensors do.
# usage: quantize-parity.sh [--golden] [NAME=MODEL.gguf ...]
#   NAME=MODEL   models to compare on, made F32 first; besides them always the 260K model and a random llama whose widths are
#                multiples of 256 (BUILT_IN= leaves these two out)
#   --golden     also writes the SHA-256 of llama-quantize's files into quantize/tests/golden/files.sha256
# environment: LLAMA_QUANTIZE and LLAMA_IMATRIX (default: on PATH; the second may be missing), TYPES (default: all that we
# write), WEIGHED ("no yes": without and with an importance matrix)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
golden=""; [ "${1:-}" = "--golden" ] && { golden=1; shift; }
peer="${LLAMA_QUANTIZE:-llama-quantize}"; collector="${LLAMA_IMATRIX:-llama-imatrix}"
types="${TYPES:-F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 IQ4_NL IQ4_XS MXFP4_MOE TQ1_0 TQ2_0 Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K}"
command -v "$peer" >/dev/null || { echo "no llama-quantize: set LLAMA_QUANTIZE to its path" >&2; exit 2; }

cargo build -q --release -p espalier-quantize --examples
bin="$(realpath "${CARGO_TARGET_DIR:-target}")/release/examples"
root="$PWD"; hashes="$root/quantize/tests/golden/files.sha256"
work="$(mktemp -d)"; trap 'rm -rf "$work"' EXIT
# Paths as given end up in the metadata: both run where the files are.
cd "$work"
inputs=()
if [ "${BUILT_IN-yes}" = yes ]; then
  stories="$root/tests/assets/model/stories260K.bin"
  "$bin/quantize" "$stories" stories260K.gguf F32 >/dev/null
  "$bin/random_llama" "$stories" random_llama.gguf
  inputs+=(stories260K random_llama)
fi
failed=0
for model in "$@"; do
  name="${model%%=*}"; path="${model#*=}"
  "$peer" --allow-requantize "$path" "$name.gguf" F32 >/dev/null 2>&1
  "$bin/quantize" "$path" ours.gguf F32 >/dev/null
  if cmp -s "$name.gguf" ours.gguf; then echo "$name F32: whole file equal"; else echo "$name F32: DIFFERENT"; failed=1; fi
  inputs+=("$name")
done

# note FILE NAME: keeps the hash of a file of llama-quantize.
note() {
  [ -n "$golden" ] || return 0
  { grep -v "  $2\$" "$hashes" 2>/dev/null || true; printf '%s  %s\n' "$(sha256sum <"$1" | cut -d' ' -f1)" "$2"; } >hashes.new
  LC_ALL=C sort -k2 hashes.new >"$hashes"
}

# compare NAME FILE OPTIONS...: both quantize NAME.gguf with these options, the last of which is the type.
compare() {
  local name="$1" label="$2"; shift 2
  local type="${*: -1}"; local options=("${@:1:$#-1}")
  local start between end
  start=$(date +%s.%N)
  if ! "$peer" "${options[@]}" "$name.gguf" theirs.gguf "$type" "$(nproc)" >peer.log 2>&1; then
    if NO_VERIFY=1 "$bin/quantize" "${options[@]}" "$name.gguf" ours.gguf "$type" >ours.log 2>&1; then
      echo "$label: DIFFERENT: llama-quantize refuses, we do not"; failed=1
    elif grep -q DiskFull ours.log; then echo "$label: no room for the file below ${TMPDIR:-/tmp}" >&2; exit 2
    else echo "$label: both refuse: $(tail -1 ours.log | cut -c1-100)"; fi
    return
  fi
  between=$(date +%s.%N)
  NO_VERIFY=1 "$bin/quantize" "${options[@]}" "$name.gguf" ours.gguf "$type" >ours.log
  end=$(date +%s.%N)
  note theirs.gguf "$label"
  local result="whole file equal"
  if ! cmp -s theirs.gguf ours.gguf; then
    "$bin/tensor_hashes" theirs.gguf >theirs.txt; "$bin/tensor_hashes" ours.gguf >ours.txt
    result="DIFFERENT: $(diff theirs.txt ours.txt | grep -c '^<' || true) of $(wc -l <theirs.txt) tensors"
    diff theirs.txt ours.txt | cut -c1-60 | head -6 || true
    failed=1
  fi
  printf '%-28s %s; llama-quantize %.2f s, ours %.2f s\n' "$label" "$result" \
    "$(echo "$between - $start" | bc)" "$(echo "$end - $between" | bc)"
}

for name in "${inputs[@]}"; do
  note "$name.gguf" "$name.F32"
  "$bin/importance_matrix" "$name.gguf" "$name.imatrix.gguf"
  for type in $types; do
    for weighed in ${WEIGHED:-no yes}; do
      if [ "$weighed" = yes ]; then compare "$name" "$name.imatrix.$type" --imatrix "$name.imatrix.gguf" "$type"
      else compare "$name" "$name.$type" "$type"; fi
    done
  done
done

if [ "${BUILT_IN-yes}" = yes ]; then
  # The options, on the model in which every type occurs.
  while read -r options; do
    # shellcheck disable=SC2086  # the words of $options are arguments
    golden="" compare random_llama "random_llama $options" $options Q4_K_M
  done <<'OPTIONS'
--pure
--tensor-type ffn_(up|gate)=q5_k --tensor-type ffn=q2_k
--token-embedding-type q8_0 --output-tensor-type q4_0
--pure --tensor-type attn_v=q6_k --output-tensor-type f16
--imatrix random_llama.imatrix.gguf --pure --token-embedding-type iq4_nl
--imatrix random_llama.imatrix.gguf --tensor-type attn_(q|k)=iq4_xs --output-tensor-type tq2_0
OPTIONS
  # MXFP4 is in no mix of a model without experts.
  compare random_llama random_llama.mxfp4 --tensor-type ffn_up=mxfp4 --token-embedding-type mxfp4 Q4_K_M
  # A matrix that llama-imatrix measured, in both of its forms.
  if command -v "$collector" >/dev/null; then
    head -c 60000 "$root/tests/assets/text/wiki.test.raw" >text.txt
    for form in gguf dat; do
      "$collector" -m random_llama.gguf -f text.txt -o "measured.$form" --output-format "$form" -c 128 --chunks 8 --no-ppl >collector.log 2>&1
      for type in Q4_K_M IQ4_XS Q2_K_S; do
        golden="" compare random_llama "random_llama measured.$form $type" --imatrix "measured.$form" "$type"
      done
    done
  fi
fi
exit $failed
