#!/usr/bin/env bash
# The program on a machine without a usable GPU: asked for CUDA it says why not and what to do, and ends
# with 2 (the request is wrong), not with a crash.
#
# Usage: no_gpu.sh GALLOP GOLDEN. Where there is a GPU it hides it first.
set -u
gallop=$1 golden=$2
export CUDA_VISIBLE_DEVICES=
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$gallop" probe dit --weights "$golden/dit-tiny/checkpoint" --arch "$golden/dit-tiny/arch.json" \
    --case "$golden/dit-tiny/single-frame.safetensors" --out "$work/out.safetensors" --backend cuda \
    >"$work/out" 2>"$work/err"
code=$?
echo "exit code $code: $(cat "$work/err")"
[ "$code" = 2 ] || { echo "exit code $code (2 wanted)"; exit 1; }
grep -Eq 'GPU|driver' "$work/err" || { echo "does not say what is missing"; exit 1; }
grep -q 'CPU backend' "$work/err" || { echo "does not say what to do"; exit 1; }
[ ! -s "$work/out" ] || { echo "results on stdout: $(cat "$work/out")"; exit 1; }
