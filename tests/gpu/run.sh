#!/usr/bin/env bash
# What the engine does on this machine's GPU, side by side with PyTorch: versions, ceilings, agreement, one
# forward, decoding, whole clips. A call takes under ten minutes and does what is of most worth first; a second one
# (--merge) goes on where it ended. Needs nvcc and CMake, or programs that were packed by pack.sh on another machine;
# PyTorch for the other side; nothing else. CUDA is looked for in $CUDA_HOME, else in /usr/local/cuda. See README.md.
#
# Usage: run.sh [--binaries FILE|DIR] [--python PYTHON] [--out DIR] [--total SECONDS] [--precisions bf16,fp32]
#               [--variants eager,compiled,padded,fp8] [--device cuda|cpu] [--tiny] [--merge JSON] [--logs DIR]
#               [--dry-run]    says each part, its budget and the minutes of all; runs nothing
# --out: else $OUT, else results/ beside this script. RUN_PARTS: only these groups (agreement, forward, clips, decode,
# ceilings, torch, again), with commas.
set -uo pipefail
export GPU_RUN_ARGUMENTS="$*"
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
root=$(cd "$here/../.." && pwd)
cuda=${CUDA_HOME:-/usr/local/cuda}
binaries= python=${PYTHON:-python3} device=cuda total=570 dry=
passed=()
while [ $# -gt 0 ]; do
    case $1 in
        --binaries) binaries=$(readlink -f "$2") && shift ;;
        --python) python=$2 && shift ;;
        --total) total=$2 && shift ;;
        --device) device=$2 && passed+=(--device "$2") && shift ;;
        --out | --precisions | --variants | --merge | --logs) passed+=("$1" "$2") && shift ;;
        --tiny) passed+=(--tiny) ;;
        --dry-run) dry=1 && passed+=(--dry-run) ;;
        -h | --help) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' && exit 0 ;;
        *) echo "run.sh: unknown option $1 (--help)" >&2 && exit 2 ;;
    esac
    shift
done
began=$SECONDS

# CUDA's libraries may be inside PyTorch's packages only.
libraries=$("$python" - 2>/dev/null <<'PY'
import importlib.util, pathlib
found = []
for name in ("nvidia", "torch"):
    spec = importlib.util.find_spec(name)
    for place in (spec.submodule_search_locations or []) if spec else []:
        found += sorted({str(p.parent) for p in pathlib.Path(place).glob("**/lib*.so*") if p.parent.name.startswith("lib")})
print(":".join(found))
PY
)
system=$(for folder in "$cuda/lib64" "$cuda/lib"; do [ -d "$folder" ] && printf '%s:' "$folder"; done)
# PyTorch always takes its own: so both sides have the same ones.
export LD_LIBRARY_PATH="${libraries:+$libraries:}$system${LD_LIBRARY_PATH:-}"

# CUDA 13 needs a driver of 580 or later, or what CUDA brings to stand before an older one.
driver=$([ "$device$dry" = cuda ] && nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)
if [ -n "$driver" ] && [ "${driver%%.*}" -lt 580 ]; then
    if ! ls "$cuda"/compat/libcuda.so* >/dev/null 2>&1; then
        echo "run.sh: the driver is $driver (CUDA 13 needs 580 or later, or its cuda-compat in $cuda/compat)" >&2
        exit 1
    fi
    export LD_LIBRARY_PATH=$cuda/compat:$LD_LIBRARY_PATH
fi

launchers=$(mktemp -d)
trap 'rm -rf "$launchers"' EXIT
if [ -f "$binaries" ]; then
    mkdir "$launchers/packed"
    tar -xf "$binaries" -C "$launchers/packed" || { echo "run.sh: $binaries cannot be unpacked" >&2 && exit 1; }
    binaries=$launchers/packed
fi
GPU_RUN_COMMIT=$(cat "$binaries/commit" 2>/dev/null || git -C "$root" rev-parse --short HEAD 2>/dev/null)
export GPU_RUN_COMMIT

if [ -z "$binaries" ] && [ -z "$dry" ]; then
    build=$root/build/gpu
    options=(-DGALLOP_ENGINE_ONLY=ON -DCMAKE_BUILD_TYPE=Release)
    [ "$device" = cuda ] && options+=(-DGALLOP_CUDA=ON "-DCMAKE_CUDA_COMPILER=$(command -v nvcc || echo "$cuda/bin/nvcc")")
    command -v ninja >/dev/null && options+=(-G Ninja)
    targets=(gpu_bench)
    [ "$device" = cuda ] && targets+=(gpu_test)
    if ! timeout $((total * 2 / 3)) sh -c 'root=$1; build=$2; shift 2
            targets=$1; shift
            cmake -S "$root" -B "$build" "$@" && cmake --build "$build" -j "$(nproc)" --target $targets' \
            build "$root" "$build" "${targets[*]}" "${options[@]}" >"$root/build-gpu.log" 2>&1; then
        tail -20 "$root/build-gpu.log" >&2
        rm -f "$root/build-gpu.log"
        echo "run.sh: the engine does not build here; pack it elsewhere (tests/gpu/pack.sh) and give --binaries" >&2
        exit 1
    fi
    rm -f "$root/build-gpu.log"
    binaries=$build/tests
fi

# program NAME ARGUMENTS: how NAME is run here. ARGUMENTS ask it for next to nothing: a packed program may be of a
# machine with a newer C library, and its own loader runs it then.
program() {
    local file=$binaries/$1
    [ -x "$file" ] || return
    if [ -d "$binaries/lib" ] && ! LD_LIBRARY_PATH="$binaries/lib:$LD_LIBRARY_PATH" timeout 20 "$file" "${@:2}" >/dev/null 2>&1 &&
        [ -x "$binaries/loader/ld-linux-x86-64.so.2" ]; then
        printf '#!/bin/sh\nexec "%s/loader/ld-linux-x86-64.so.2" --library-path "%s/loader:%s/lib:$LD_LIBRARY_PATH" "%s" "$@"\n' \
            "$binaries" "$binaries" "$binaries" "$file" >"$launchers/$1"
    else
        printf '#!/bin/sh\nLD_LIBRARY_PATH="%s/lib:$LD_LIBRARY_PATH" exec "%s" "$@"\n' "$binaries" "$file" >"$launchers/$1"
    fi
    chmod +x "$launchers/$1"
    echo "$launchers/$1"
}
bench=$(program gpu_bench about --backend cpu)
tests=$(program gpu_test --gtest_list_tests)
[ -n "$bench" ] || [ -n "$dry" ] || { echo "run.sh: no gpu_bench in ${binaries:-?}" >&2 && exit 1; }

# PyTorch's compiler keeps its results here, for the next call, too.
export TORCHINDUCTOR_CACHE_DIR=${TMPDIR:-/tmp}/gallop-inductor-$(id -u)
export GALLOP_TEST_NEEDS_GPU=1 GALLOP_TREE=$root
[ -n "$dry" ] && tests=${tests:-gpu_test}
[ "$device" = cpu ] && tests=
"$python" "$here/report.py" --bench "${bench:-gpu_bench}" ${tests:+--tests "$tests"} --python "$python" \
    --total $((total - (SECONDS - began))) "${passed[@]}"
