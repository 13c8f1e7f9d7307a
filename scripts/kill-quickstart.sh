#!/usr/bin/env bash
# The quickstart once unbroken and once killed (kill -9) at two random moments, then compared byte for byte.
#
#   scripts/kill-quickstart.sh [FOLDER]      (about three times the quickstart's own time; FOLDER is made anew)
#
# SEED picks the moments, within what the unbroken run took.
set -euo pipefail
cd "$(dirname "$0")/.."
folder="${1:-$(mktemp -d)}"
cargo build --release --quiet --bin pipeline
pipeline="${CARGO_TARGET_DIR:-target}/release/pipeline"
RANDOM="${SEED:-$$}"

mkdir -p "$folder"
rm -rf "$folder/unbroken" "$folder/killed"
started=$SECONDS
"$pipeline" run --run-dir "$folder/unbroken" --quiet
seconds=$((SECONDS - started))
echo "unbroken: $seconds s"

for attempt in 1 2; do
    # Each kill falls into the first 45 % of what an unbroken run takes, counted from where the last one ended.
    wait_for=$((1 + RANDOM % (seconds * 45 / 100)))
    "$pipeline" run --run-dir "$folder/killed" --quiet &
    process=$!
    sleep "$wait_for"
    if kill -9 "$process" 2>/dev/null; then
        where=$("$pipeline" status --run-dir "$folder/killed" 2>/dev/null | grep -E -v -m1 'up to date| done: |^ {14}' || true)
        echo "kill $attempt after $wait_for s: ${where#"${where%%[![:space:]]*}"}"
    else
        echo "kill $attempt: the run had ended"
    fi
    wait "$process" 2>/dev/null || true
done
"$pipeline" run --run-dir "$folder/killed" --quiet

# Logs and the journals of unfinished work know what happened; everything else must be the same.
if diff -r --brief --exclude=logs --exclude=.work "$folder/unbroken" "$folder/killed"; then
    echo "equal: $(cd "$folder/killed" && find . \( -name logs -o -name .work \) -prune -o -type f -print | wc -l) files"
else
    echo "NOT equal" >&2
    exit 1
fi
