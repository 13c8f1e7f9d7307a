#!/usr/bin/env bash
# Builds `pipeline` with the cargo feature `cuda` on Linux x86_64, without a CUDA toolkit and without GitHub.
#
#   scripts/build-cuda.sh                 # build; more arguments go to cargo
#   scripts/build-cuda.sh --package DIR   # build, then put into DIR what scripts/gpu-check.sh needs on another machine
#
# burn compiles its CUDA kernels with LLVM, which its build script links in and downloads from GitHub. Whoever reaches GitHub
# needs no more than `cargo build --release --features cuda` and a C++ compiler. This script takes the same LLVM from two
# wheels of the Python package index, held to their hashes, and lays it where that build script looks. Nothing outside
# $ESPALIER_CUDA_CACHE (~/.cache/espalier-cuda) is written: 400 MB of LLVM, and a target folder of its own, so that builds
# with and without the feature do not undo each other. A second run finds all that in place.
#
# Needs: cargo, a C++ compiler (g++ 12 does), python3 (3.10 or later) with pip. On two cores: some twenty minutes from nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

stop() {
    echo "build-cuda.sh: $*" >&2
    exit 2
}

package=
if [ "${1:-}" = --package ]; then
    package=$(realpath -m "${2:?--package needs a folder}")
    shift 2
fi
cache=${ESPALIER_CUDA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/espalier-cuda}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}

[ "$(uname -sm)" = "Linux x86_64" ] || stop "the wheels of LLVM are for Linux x86_64: elsewhere run \`cargo build --release --features cuda\`, which downloads its own"
command -v cargo >/dev/null || stop "no cargo here: install a Rust toolchain"
command -v "${CXX:-c++}" >/dev/null || stop "no C++ compiler here: install g++ (12 or later), or name one in CXX"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || stop "no python3 of 3.10 or later here: LLVM's wheels need it"
python3 -m pip --version >/dev/null 2>&1 || stop "python3 has no pip: install python3-pip"

# The folder is named after the release of LLVM that this version of burn was made for.
wanted=$(grep -A1 '^name = "tracel-llvm-bundler"$' Cargo.lock | sed -n 's/^version = "\(.*\)"$/\1/p')
[ "$wanted" = 23.1.0-4 ] || stop "Cargo.lock has tracel-llvm-bundler ${wanted:-of no version}, and the wheels named here are for 23.1.0-4: name the ones that match it"

data=$cache/data
llvm=$data/tracel/tracel-llvm-$wanted
if [ ! -e "$llvm/.tracel-llvm-installed" ]; then
    echo "== LLVM 23.1.1 into $data/tracel"
    wheels=$data/tracel/wheels
    rm -rf "$wheels"
    mkdir -p "$wheels"
    cat >"$wheels/requirements.txt" <<'PINS'
mlc-llvm-static==23.1.1.post0 --hash=sha256:dcfec888abfaa418be77d41af585805f31463584cf9c90582992c00f392c1ac5
mlc-llvm-static-extra-targets==23.1.1.post0 --hash=sha256:c36e834d9a4e9cf9759f27fece65711ece7a2fc2b5a96dbb15d66f5e9e787929
PINS
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --require-hashes --only-binary :all: \
        --target "$wheels" --requirement "$wheels/requirements.txt"
    ln -sfn "$wheels/mlc_llvm_static/static" "$llvm"
    targets=$("$llvm/bin/llvm-config" --targets-built)
    [[ " $targets " == *" NVPTX "* ]] || stop "this LLVM compiles for $targets, not for NVPTX"
    # The build script asks for this file alone before it takes the folder as it is.
    touch "$llvm/.tracel-llvm-installed"
fi

echo "== cargo build --profile cuda --locked --features cuda, into $CARGO_TARGET_DIR"
began=$SECONDS
XDG_DATA_HOME=$data cargo build --profile cuda --locked --features cuda --bin pipeline "$@"
binary=$CARGO_TARGET_DIR/cuda/pipeline
echo "== built in $((SECONDS - began)) s: $binary ($(stat -c %s "$binary") bytes)"
needed=$(readelf -d "$binary" 2>/dev/null | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | tr '\n' ' ' || true)
[ -z "$needed" ] || echo "== it needs $needed"

if [ -n "$package" ]; then
    echo "== package into $package"
    mkdir -p "$package/scripts" "$package/tests/assets/model" "$package/tests/golden"
    strip -o "$package/pipeline" "$binary"
    xz --force -6 -T0 "$package/pipeline"
    cp scripts/gpu-check.sh "$package/scripts/"
    mkdir -p "$package/scripts/gpu"
    cp scripts/gpu/*.py scripts/gpu/goldens.json "$package/scripts/gpu/"
    cp tests/assets/model/*.bin "$package/tests/assets/model/"
    cp tests/golden/prompts.txt "$package/tests/golden/"
    if [ ! -e "$package/libdevice.10.bc" ]; then
        wheels=$(mktemp -d)
        trap 'rm -rf "$wheels"' EXIT
        echo "nvidia-nvvm==13.5.37 --hash=sha256:c41bfa362e407405163f103c2229f0765f8cc2ed7d148b754dc77f228bf7e070" >"$wheels/requirements.txt"
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
            --dest "$wheels" --requirement "$wheels/requirements.txt"
        python3 - "$wheels" "$package" <<'UNPACK'
import glob, sys, zipfile

wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
for name in wheel.namelist():
    if name.endswith("/libdevice.10.bc"):
        open(sys.argv[2] + "/libdevice.10.bc", "wb").write(wheel.read(name))
    elif name.endswith("/licenses/License.txt"):
        open(sys.argv[2] + "/libdevice.LICENSE.txt", "wb").write(wheel.read(name))
UNPACK
    fi
    du -sh "$package"
fi
