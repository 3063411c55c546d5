#!/usr/bin/env bash
# Every golden file through `gallop probe --compare`, as a person would check a build.
# Usage: golden.sh GALLOP GOLDEN_FOLDER [cuda]
#
# With cuda on the GPU; where there is none it says so and ends with 77 (skipped), or with 1 where
# GALLOP_TEST_NEEDS_GPU is set.
set -uo pipefail
gallop=$(readlink -f "$1")
cd "$2" || exit 1
backend=${3:-cpu}
cases=0
failed=0
if [ "$backend" = cuda ] &&
    ! said=$("$gallop" probe unipc --case sampler/unipc-1.safetensors --compare --backend cuda 2>&1); then
    if grep -Eq 'GPU|driver' <<<"$said" && [ -z "${GALLOP_TEST_NEEDS_GPU:-}" ]; then
        echo "NOT TESTED, no usable GPU: $said"
        exit 77
    fi
    echo "$said"
    exit 1
fi
# A GPU adds in other orders and has functions of its own: ten times what the CPU is allowed.
more=$([ "$backend" = cpu ] && echo 1 || echo 10)

# one TOLERANCE COMPONENT CASE [option...]: the largest error over the largest value.
one() {
    local tolerance=$1 component=$2 case=$3
    shift 3
    cases=$((cases + 1))
    printf '%s %s %s\n' "$component" "$case" "$*"
    tolerance=$(awk "BEGIN { print $tolerance * $more }")
    "$gallop" probe "$component" --case "$case" --compare --tolerance "$tolerance" --backend "$backend" "$@" ||
        failed=$((failed + 1))
}

for case in dit-tiny/*.safetensors; do
    one 1e-5 dit "$case" --weights dit-tiny/checkpoint --arch dit-tiny/arch.json --precision fp32
    # The casts turn a last place of f32 into a whole step of bf16: 2e-3 says that no rounding was turned.
    one 2e-3 dit "$case" --weights dit-tiny/checkpoint --arch dit-tiny/arch.json --precision bf16
done
for case in dit-tiny/*.safetensors; do  # sharded over threads, the same network
    one 1e-5 dit "$case" --weights dit-tiny/checkpoint --arch dit-tiny/arch.json --precision fp32 --tensor-parallel 2
done
for case in sampler/unipc-*.safetensors; do one 2e-6 unipc "$case"; done
for case in renoise-8 sde-8 zero-snr-1000; do one 2e-6 renoise "sampler/$case.safetensors"; done
for case in base-cfg base-cfg-i2v distill-8; do
    one 1e-5 pipeline "pipeline-tiny/$case.safetensors" --weights dit-tiny/checkpoint --arch dit-tiny/arch.json
done
one 1e-5 pipeline pipeline-tiny/sr.safetensors --weights pipeline-tiny/checkpoint-sr --arch dit-tiny/arch.json
for weights in turbo_vae.safetensors checkpoint.ckpt .; do  # a folder holds what the published one does
    for case in turbo-vae-tiny/decode-*.safetensors; do
        one 1e-5 turbo-vae "$case" --weights "turbo-vae-tiny/$weights"
    done
done
for weights in Wan2.2_VAE.safetensors Wan2.2_VAE.pth .; do
    for case in wan-vae-tiny/encode-*.safetensors; do
        one 1e-5 wan-vae-encode "$case" --weights "wan-vae-tiny/$weights"
    done
    for case in wan-vae-tiny/decode-*.safetensors; do
        one 1e-5 wan-vae-decode "$case" --weights "wan-vae-tiny/$weights"
    done
done
for case in audio-vae-tiny/case-*.safetensors; do  # sines of large arguments
    one 5e-4 audio-vae-encode "$case" --weights audio-vae-tiny/model.safetensors
    one 5e-4 audio-vae-decode "$case" --weights audio-vae-tiny/model.safetensors
done
one 5e-4 audio-vae-encode audio-vae-tiny/encode-rest.safetensors --weights audio-vae-tiny/model.safetensors
for case in fp32-1 fp32-5 fp32-40 fp32-40-soft-cap; do
    one 1e-5 text "text/$case.safetensors" --weights text/checkpoint
done

echo "$((cases - failed)) of $cases golden comparisons agree"
[ "$failed" -eq 0 ]
