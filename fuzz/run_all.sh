#!/usr/bin/env bash
# Runs every target for SECONDS_EACH (60) over its seeds; found inputs stay in corpus/, crashes in artifacts/.
set -euo pipefail
cd "$(dirname "$0")"
export RUSTC_BOOTSTRAP=1
mkdir -p corpus/{gguf,safetensors,yaml_leaf,json_tokenizer,jsonl,rows,request_body,pdf,docx,html,text_document,quality,flow}
cp seeds/gguf/whole corpus/gguf/
cp seeds/safetensors/* corpus/safetensors/
cp seeds/json_tokenizer/whole corpus/json_tokenizer/
number=0
while IFS= read -r leaf; do
    number=$((number + 1))
    cp "$leaf" "corpus/yaml_leaf/$number"
done < <(find ../tests/assets/taxonomy ../taxonomy/examples -name qna.yaml | sort)
head -n 3 ../taxonomy/examples/tiny/skills/go_on_with_a_story/test.jsonl > corpus/jsonl/whole
number=0
while IFS= read -r flow; do
    number=$((number + 1))
    sed -e 's#config_path: .*#config_path: p.yaml#' "$flow" > "corpus/flow/$number"
done < <(find ../tests/assets/instructlab-sdg/pipelines -name '*.yaml' | sort)
cp seeds/rows/* corpus/rows/
cp seeds/request_body/* corpus/request_body/
# The first line of the PDF is what the target puts before its input.
tail -n +2 seeds/document/pond.pdf > corpus/pdf/pond
cp seeds/document/pond.docx corpus/docx/
cp seeds/document/pond.html corpus/html/
number=0
for name in md txt csv tsv json jsonl rs; do
    printf "\\x0$number" > "corpus/text_document/$name"
    cat "seeds/document/pond.$name" >> "corpus/text_document/$name" 2> /dev/null || true
    number=$((number + 1))
done
printf '\2Write to anna@example.org.\0I am sorry, but as an AI I cannot. Tel. 030 1234567' > corpus/quality/text
for target in "${@:-gguf safetensors yaml_leaf json_tokenizer jsonl rows request_body pdf docx html text_document quality flow}"; do
    for name in $target; do
        cargo fuzz run "$name" -- -max_total_time="${SECONDS_EACH:-60}" -max_len=16384 -timeout=10 -rss_limit_mb=1024
    done
done
