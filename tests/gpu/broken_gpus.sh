#!/usr/bin/env bash
# The program on machines whose GPU is missing, too old, of another kind, taken, full or broken: what it says,
# and with which status it ends; a run goes on afterwards. Needs no GPU: fake_cuda.c answers for one.
#
# Usage: broken_gpus.sh GALLOP GPU_BENCH LIBFAKE_CUDA SOURCE_TREE
set -u
gallop=$1 bench=$2 fake=$3 tree=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME=$work/cache
failed=0

# judge PROGRAM KIND STATUS TEXT CODE SAID
judge() {
    echo "$1, $2: $5: $6"
    [ "$5" = "$3" ] || { echo "  status $5 ($3 wanted)" && failed=1; }
    grep -Eq "$4" <<<"$6" || { echo "  does not say $4" && failed=1; }
}

# expect KIND STATUS TEXT: of `gallop` and of `gpu_bench` alike.
expect() {
    local kind=$1 status=$2 text=$3 said
    for program in gallop bench; do
        if [ "$program" = gallop ]; then
            said=$(GALLOP_FAKE_GPU=$kind LD_PRELOAD=$fake "$gallop" probe unipc --compare --backend cuda \
                --case "$tree/tests/golden/sampler/unipc-1.safetensors" 2>&1)
        else
            said=$(GALLOP_FAKE_GPU=$kind LD_PRELOAD=$fake "$bench" about --backend cuda 2>&1)
        fi
        judge "$program" "$kind" "$status" "$text" "$?" "$said"
    done
}

# expect_run KIND STATUS TEXT: of a run's renderer, all in one run directory.
expect_run() {
    local kind=$1 status=$2 text=$3 said
    said=$(GALLOP_FAKE_GPU=$kind LD_PRELOAD=$fake CUDA_VISIBLE_DEVICES=0 \
        "$gallop" run "$work/run.yaml" --out "$work/run" --threads 1 --backend cuda 2>&1)
    judge run "$kind" "$status" "$text" "$?" "$said"
    [ ! -e "$work/run/COMPLETE" ] || { echo "  the run counts as complete" && failed=1; }
}

none='no GPU is visible to CUDA .*CUDA_VISIBLE_DEVICES.*use the CPU backend'
old='driver is too old: it serves CUDA up to 11\.4 \(this build needs [0-9.]+\); update the driver'
ampere='compute capability 8\.0 \(this build.s kernels are compiled for [^)]*H100.*CMAKE_CUDA_ARCHITECTURES'
shut='cudaErrorUnknown.*CUDA cannot open a GPU here.*container'
held='another process holds the GPU'
full='allocating [0-9]+ bytes on the GPU: out of memory'
broken='context is lost and this process must end'

expect none 2 "$none"
expect old 2 "$old"
expect ampere 2 "$ampere"
expect shut 2 "$shut"
expect held 2 "$held"
expect full 1 "$full"
expect broken 75 "$broken"

"$gallop" make-model "$tree/configs/models/tiny.yaml" --out "$work/model" --seed 3 >/dev/null 2>&1 || failed=1
cat >"$work/run.yaml" <<'MANIFEST'
version: 1
name: broken
model: {path: model, variant: distill}
defaults: {resolution: 32x32, frames: 1, steps: {base: 1}}
items: [{name: rain, prompt: rain}]
MANIFEST
expect_run none 2 "$none"
expect_run old 2 "$old"
expect_run ampere 2 "$ampere"
expect_run shut 2 "$shut"
expect_run held 4 "$held"  # which it may let go of: the same command goes on
expect_run broken 4 "$broken"
said=$("$gallop" run "$work/run" --threads 1 --backend cpu 2>&1)
judge run cpu 0 "rain .*\.mp4" "$?" "$said"
exit "$failed"
