#!/usr/bin/env bash
# Runs the tests of the crates that have `unsafe` code with AddressSanitizer: the first read or write outside of a buffer ends
# them. The stable compiler does it (RUSTC_BOOTSTRAP=1); some 10 CPU minutes from nothing.
# usage: scripts/sanitize.sh [-p CRATE ...] [TEST]     (default: -p espalier-kernels -p espalier-model)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
# A target folder of its own: other flags would make everything anew in the usual one.
export CARGO_TARGET_DIR="${XDG_CACHE_HOME:-$HOME/.cache}/espalier-sanitize/target"
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address"
case " $* " in
    *" -p "*) ;;
    *) set -- -p espalier-kernels -p espalier-model "$@" ;;
esac
# With --target the flags leave build scripts and macros alone.
exec cargo test --release --locked --target "$host" "$@"
