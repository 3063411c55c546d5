#!/usr/bin/env bash
# run.sh without a GPU and with a Python that may have no torch: our parts give figures, what cannot be
# measured is said, and a table comes out.
#
# Usage: run_test.sh FOLDER_OF_GPU_BENCH
set -u
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/python" <<'SH'
#!/bin/sh
exec python3 -S "$@"
SH
chmod +x "$work/python"  # without site-packages: no torch
"$here/run.sh" --device cpu --tiny --binaries "$1" --python "$work/python" --variants eager --precisions fp32,bf16 \
    --total 840 --out "$work/out" >"$work/said" 2>"$work/progress"
code=$?
cat "$work/progress"
table=$(ls "$work"/out/*.md) || exit 1
fail() { echo "run_test.sh: $1" && cat "$table" && exit 1; }
[ "$code" = 1 ] || fail "exit code $code (1: PyTorch's parts could not be measured)"
grep -q 'On a CPU, with tiny networks' "$table" || fail 'does not say that it proves nothing'
grep -Eq '^[0-9]+ of [0-9]+ golden comparisons agree' "$table" || fail 'no agreement'
grep -Eq '^\| tiny \| Gallop bf16 \| [0-9.]+ \|' "$table" || fail 'no time of a forward'
grep -Eq '^\| tiny \| PyTorch eager \| – \|' "$table" || fail 'a time of PyTorch, which is not there'
grep -Eq '^\| torch eager tiny \(1\) \|.*(status|not run)' "$table" || fail 'does not say what failed'
grep -Eq '^\| ours clips tiny \|.*done' "$table" || fail 'what comes after a failed part was not run'
python3 -c "import json, sys; parts = json.load(open(sys.argv[1]))['parts']; assert len(parts) > 8" "$work"/out/*.json ||
    fail 'no JSON'
# A time that is too short: parts are left out, and the table says which.
"$here/run.sh" --device cpu --tiny --binaries "$1" --python "$work/python" --total 6 --out "$work/short" >/dev/null 2>&1
grep -q 'not run:' "$work"/short/*.md || fail 'nothing was left out within six seconds'

# What registers.py makes of ptxas's words.
python3 - "$here" <<'PY' || fail 'registers.py misreads ptxas'
import importlib.util, sys
spec = importlib.util.spec_from_file_location("registers", sys.argv[1] + "/registers.py")
registers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(registers)
text = """ptxas info    : Compiling entry function '_Z1av' for 'sm_90a'
ptxas info    : Function properties for _Z1av
    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 512 bytes smem
ptxas info    : Compiling entry function '_Z1bv' for 'sm_90a'
ptxas info    : Function properties for _Z1bv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers"""
a, b = registers.parse(text)
assert (a["registers"], a["stores"], a["loads"], a["shared"]) == (255, 12, 8, 512), a
assert (b["registers"], b["stores"], b["shared"]) == (32, 0, 0), b
PY
echo passed
