#!/usr/bin/env bash
# One call that says whether `pipeline` trains rightly on a device, and how fast, beside transformers + peft on the same device:
# one table, and the same as JSON. Under 10 minutes; every step has a limit of its own, and what fails is a row of the table.
#
#   scripts/gpu-check.sh [--device cuda:0] [--out gpu-check.json] ...      (--help tells all options)
#
# Needs: the driver, python3 with torch, transformers, peft and numpy (PYTHON names another python3). The binary is, in this
# order: $ESPALIER_PIPELINE, `pipeline` or `pipeline.xz` in the folder above this script's (scripts/build-cuda.sh --package
# makes such a folder), release/pipeline of $CARGO_TARGET_DIR, cuda/pipeline of ~/.cache/espalier-cuda/target, or release/pipeline of ./target.
# libdevice.10.bc comes from $CUDA_PATH, from a CUDA toolkit, from the folder of the package, or from an installed wheel
# nvidia-nvvm or nvidia-cuda-nvcc, in this order.
# exit: 0 all is as it should be, 1 something is not (or a step failed), 2 wrong usage or no binary, 3 something could not be
#       done on this machine, and the rest is as it should be
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "gpu-check.sh needs python3" >&2; exit 2; }
work=${ESPALIER_GPU_WORK:-$(mktemp -d)}
mkdir -p "$work"
[ -n "${ESPALIER_GPU_WORK:-}" ] || trap 'rm -rf "$work"' EXIT

binary=${ESPALIER_PIPELINE:-}
if [ -z "$binary" ] && [ -f "$root/pipeline.xz" ]; then
    binary=$work/pipeline
    [ -x "$binary" ] || { "$python" -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"))' "$root/pipeline.xz" "$binary" && chmod +x "$binary"; }
fi
for place in "$root/pipeline" "${CARGO_TARGET_DIR:-/nowhere}/release/pipeline" \
    "${XDG_CACHE_HOME:-$HOME/.cache}/espalier-cuda/target/cuda/pipeline" "$root/target/release/pipeline"; do
    [ -n "$binary" ] || { [ -f "$place" ] && [ -x "$place" ] && binary=$place; } || true
done
[ -n "$binary" ] || { echo "gpu-check.sh: no pipeline here: build one with scripts/build-cuda.sh, or name one in ESPALIER_PIPELINE" >&2; exit 2; }

# Kernels with an exp cannot be compiled without this file; the driver does not bring it.
if [ -z "${CUDA_PATH:-}" ] && ! ls /usr/local/cuda/nvvm/libdevice/libdevice.10.bc /opt/cuda/nvvm/libdevice/libdevice.10.bc \
    /usr/lib/cuda/nvvm/libdevice/libdevice.10.bc /usr/nvvm/libdevice/libdevice.10.bc >/dev/null 2>&1; then
    for place in "$root" "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia"; do
        found=$(find "$place" -name libdevice.10.bc -print -quit 2>/dev/null || true)
        [ -n "$found" ] || continue
        mkdir -p "$work/cuda/nvvm/libdevice"
        cp "$found" "$work/cuda/nvvm/libdevice/"
        export CUDA_PATH=$work/cuda
        break
    done
fi
"$python" "$here/gpu/check.py" --pipeline "$binary" --work "$work" "$@"
