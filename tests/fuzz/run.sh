#!/bin/sh
# Builds every fuzz target with clang, address and undefined-behaviour sanitizers, and runs each for
# SECONDS (default 60) from the committed seeds. Fails on the first finding. Needs clang with its runtimes
# (Debian: clang, libclang-rt-14-dev).
# Usage: tests/fuzz/run.sh [SECONDS] [NAME ...]
set -eu
cd "$(dirname "$0")/../.."
seconds=${1:-60}
[ $# -gt 0 ] && shift
build=build/fuzz
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz
[ $# -gt 0 ] || set -- $(cd tests/fuzz/corpus && ls)
for name in "$@"; do
  found="$build/corpus/$name"
  mkdir -p "$found"
  echo "fuzz_$name: $seconds s"
  "$build/tests/fuzz/fuzz_$name" -max_total_time="$seconds" -rss_limit_mb=1024 -malloc_limit_mb=128 \
    -timeout=5 -print_final_stats=1 -print_funcs=0 -verbosity=0 -artifact_prefix="$build/" \
    "$found" "tests/fuzz/corpus/$name"
done
