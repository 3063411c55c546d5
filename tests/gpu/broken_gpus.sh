#!/usr/bin/env bash
# The program on machines whose GPU is missing, too old, of another kind, taken, full or broken: what it says,
# and with which status it ends. Needs no GPU: fake_cuda.c answers for one.
#
# Usage: broken_gpus.sh GALLOP GPU_BENCH LIBFAKE_CUDA GOLDEN
set -u
gallop=$1 bench=$2 fake=$3 golden=$4
failed=0

# expect KIND STATUS TEXT: of `gallop` and of `gpu_bench` alike.
expect() {
    local kind=$1 status=$2 text=$3 said code
    for program in gallop bench; do
        if [ "$program" = gallop ]; then
            said=$(GALLOP_FAKE_GPU=$kind LD_PRELOAD=$fake "$gallop" probe unipc --compare --backend cuda \
                --case "$golden/sampler/unipc-1.safetensors" 2>&1)
        else
            said=$(GALLOP_FAKE_GPU=$kind LD_PRELOAD=$fake "$bench" about --backend cuda 2>&1)
        fi
        code=$?
        echo "$program, $kind: $code: $said"
        [ "$code" = "$status" ] || { echo "  status $code ($status wanted)" && failed=1; }
        grep -Eq "$text" <<<"$said" || { echo "  does not say $text" && failed=1; }
    done
}

expect none 2 'no GPU is visible to CUDA .*CUDA_VISIBLE_DEVICES.*use the CPU backend'
expect old 2 'driver is too old: it serves CUDA up to 11\.4 \(this build needs [0-9.]+\); update the driver'
expect ampere 2 'compute capability 8\.0 \(this build.s kernels are compiled for [^)]*H100.*CMAKE_CUDA_ARCHITECTURES'
expect shut 2 'cudaErrorUnknown.*CUDA cannot open a GPU here.*container'
expect held 2 'another process holds the GPU'
expect full 1 'allocating [0-9]+ bytes on the GPU: out of memory'
expect broken 75 'context is lost and this process must end'
exit "$failed"
