#!/usr/bin/env bash
# Installs the Debian packages of .ci/packages.txt that this machine lacks; does nothing when there are none.
# Without root and sudo it prints the one command to run and exits 2. Where there is nvcc it also fetches the
# headers of .ci/requirements.txt into .cache/; without them the CUDA build leaves cuDNN out.
set -euo pipefail

here="$(dirname "$(readlink -f "$0")")"
list="$here/packages.txt"

headers() {
    local to="$here/../.cache/cudnn-frontend" wheels
    if [ -e "$to/include/cudnn_frontend.h" ] || ! { command -v nvcc || ls /usr/local/cuda/bin/nvcc; } >/dev/null 2>&1; then
        return
    fi
    wheels="$(mktemp -d)"
    if python3 -m pip download -q --no-deps --require-hashes --only-binary=:all: --python-version 3.11 \
        --platform manylinux_2_28_x86_64 -r "$here/requirements.txt" -d "$wheels" &&
        mkdir -p "$to" && python3 -m zipfile -e "$wheels"/nvidia_cudnn_frontend-*.whl "$wheels/all" &&
        cp -r "$wheels/all/include" "$to/"; then
        echo "setup: cudnn-frontend's headers are in .cache/cudnn-frontend"
    else
        echo "setup: cudnn-frontend's headers could not be fetched; the CUDA build leaves cuDNN out" >&2
    fi
    rm -rf "$wheels"
}
trap 'headers' EXIT

mapfile -t wanted < <(sed 's/#.*//; s/[[:space:]]//g; /^$/d' "$list")

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "setup: this is not Debian; install the equivalents of: ${wanted[*]}" >&2
    echo "setup: then call cmake directly: cmake --preset cpu && cmake --build --preset cpu" >&2
    exit 2
fi

present=" $(dpkg-query -W -f '${Package}=${db:Status-Status} ' "${wanted[@]}" 2>/dev/null || true)"
missing=()
for package in "${wanted[@]}"; do
    [[ "$present" == *" $package=installed "* ]] || missing+=("$package")
done
if [ "${#missing[@]}" -eq 0 ]; then
    echo "setup: all ${#wanted[@]} packages are there"
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        as_root=(sudo)
    else
        echo "setup: ${#missing[@]} packages are missing. Run this as root, then try again:" >&2
        echo "apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
        exit 2
    fi
fi

echo "setup: installing ${#missing[@]} packages: ${missing[*]}"
apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3)
# The timeout does not cover the lock of the package lists, which another apt may hold for a moment.
for attempt in 1 2 3 4 5; do
    "${as_root[@]}" "${apt[@]}" update && break
    [ "$attempt" -lt 5 ] || { echo "setup: apt-get update failed" >&2; exit 1; }
    echo "setup: apt-get update failed, next try in 10 s" >&2
    sleep 10
done
"${as_root[@]}" "${apt[@]}" install -y --no-install-recommends "${missing[@]}"
