#!/usr/bin/env bash
# Packs the GPU's tests and benches with the libraries that they need but CUDA's, for a machine that has no
# compiler: run.sh --binaries FILE takes them there.
#
# Usage: pack.sh BUILD FILE.tar.gz   (BUILD: a build folder with GALLOP_CUDA=ON and the targets gpu_bench, gpu_test)
set -euo pipefail
build=$1 file=$2
root=$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
mkdir "$out/lib" "$out/loader"
for program in gpu_bench gpu_test; do
    strip -o "$out/$program" "$build/tests/$program"
    ldd "$build/tests/$program" | awk '$3 ~ /^\// {print $1, $3} $1 ~ /^\// {print $1, $1}'
done | sort -u | while read -r name path; do
    case $name in
        libcuda* | libcublas* | libcudnn* | libnvrtc* | libnccl*) ;;  # the machine's own
        libc.so* | libm.so* | libpthread.so* | libdl.so* | librt.so* | */ld-linux*)
            cp -L "$path" "$out/loader/$(basename "$name")" ;;
        *) cp -L "$path" "$out/lib/$(basename "$name")" ;;
    esac
done
# For the table: the machine may have no git.
(git -C "$root" describe --always --dirty 2>/dev/null || echo "not a checkout") >"$out/commit"
mkdir -p "$(dirname "$file")"
tar -C "$out" -czf "$file" .
du -h "$file"
