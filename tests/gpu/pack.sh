#!/usr/bin/env bash
# Packs the GPU's tests and benches with the libraries that they need but CUDA's, for a machine that has no
# compiler: run.sh --binaries DIR takes them there.
#
# Usage: pack.sh BUILD DIR   (BUILD: a build folder with GALLOP_CUDA=ON and the targets gpu_bench, gpu_test)
set -euo pipefail
build=$1 out=$2
mkdir -p "$out/lib" "$out/loader"
for program in gpu_bench gpu_test; do
    cp "$build/tests/$program" "$out/"
    strip --strip-debug "$out/$program"
    ldd "$build/tests/$program" | awk '$3 ~ /^\// {print $1, $3} $1 ~ /^\// {print $1, $1}'
done | sort -u | while read -r name path; do
    case $name in
        libcuda* | libcublas* | libcudnn* | libnvrtc* | libnccl*) ;;  # the machine's own
        libc.so* | libm.so* | libpthread.so* | libdl.so* | librt.so* | */ld-linux*)
            cp -L "$path" "$out/loader/$(basename "$name")" ;;
        *) cp -L "$path" "$out/lib/$(basename "$name")" ;;
    esac
done
du -sh "$out"
