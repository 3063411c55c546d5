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
RUN_PARTS=1,2,3 "$here/run.sh" --device cpu --tiny --binaries "$1" --python "$work/python" --variants eager \
    --precisions bf16,fp8 --total 840 --out "$work/out" >"$work/said" 2>"$work/progress"
code=$?
cat "$work/progress"
table=$(ls "$work"/out/*.md) || exit 1
fail() { echo "run_test.sh: $1" && cat "$table" && exit 1; }
[ "$code" = 1 ] || fail "exit code $code (1: PyTorch's parts could not be measured)"
grep -q 'On a CPU, with tiny networks' "$table" || fail 'does not say that it proves nothing'
grep -Eq '^[0-9]+ of [0-9]+ golden comparisons agree' "$table" || fail 'no agreement'
grep -Eq '^\| tiny \| Gallop bf16 \| [0-9.]+ \|' "$table" || fail 'no time of a forward'
grep -Eq '^\| tiny \| PyTorch eager \| – \|' "$table" || fail 'a time of PyTorch, which is not there'
grep -Eq '^\| torch eager tiny \|.*(status|not run)' "$table" || fail 'does not say what failed'
# Every row of ours is there, as on a GPU.
grep -Eq '^\| tiny \| Gallop fp8 \| [0-9.]+ \|' "$table" || fail 'no forward in fp8'
for precision in bf16 fp8; do
    grep -Eq "^\| tiny \| $precision \| [0-9.]+ \| text [0-9.]+, base [0-9.]+, decode audio [0-9.]+,.* decode [0-9.]+" "$table" ||
        fail "no clip in $precision, stage by stage"
done
grep -Eq '^\| tiny \| bf16 \| base \| [0-9.]+ \| [0-9.]+ \| 0 times \|' "$table" || fail 'no memory of a stage'
grep -Eq '^\| tiny \| Gallop \| [0-9.]+ \|' "$table" || fail 'no decode'
grep -Eq '^Text encoder, [0-9]+ tokens: [0-9.]+ ms' "$table" || fail 'no text encoder'
for op in copy 'product qkv' 'product fp8 down padded' attention 'conv3d 16 channels'; do
    grep -Eq "^\| $op \| [0-9]* \| [^|]* \| [0-9.e+-]+ \|" "$table" || fail "no $op alone"
done
grep -Eq '^\| ours bf16 tiny again \|.*done' "$table" || fail 'what comes after a failed part was not run'
failed=$(sed -n 's/^| \(ours[^|]*\|our ops[^|]*\) |.*\(status\|not done\|not run\).*/\1/p' "$table")
[ -z "$failed" ] || fail "of ours: $failed"
python3 -c "import json, sys; parts = json.load(open(sys.argv[1]))['parts']; assert len(parts) > 8" "$work"/out/*.json ||
    fail 'no JSON'
# A time that is too short: parts are left out, and the table says which.
"$here/run.sh" --device cpu --tiny --binaries "$1" --python "$work/python" --total 6 --out "$work/short" >/dev/null 2>&1
grep -q 'not run:' "$work"/short/*.md || fail 'nothing was left out within six seconds'
# A call's table takes in an earlier call's parts.
RUN_PARTS=agreement "$here/run.sh" --device cpu --tiny --binaries "$1" --python "$work/python" \
    --merge "$(ls "$work"/out/*.json)" --out "$work/merged" >/dev/null 2>&1
grep -Eq '^\| ours clips fp8 tiny, earlier \|.*done' "$work"/merged/*.md || fail 'the earlier call is not in the table'
grep -Eq '^\| tiny \| Gallop bf16 \| [0-9.]+ \|' "$work"/merged/*.md || fail 'nor its figures'

# Two calls of under ten minutes do everything but the repeats, by their budgets.
for parts in 1 2 3; do
    RUN_PARTS=$parts "$here/run.sh" --dry-run >"$work/plan$parts" || fail "call $parts does not fit: $(tail -1 "$work/plan$parts")"
    grep -Eq '^at most [1-5][0-9][0-9] s' "$work/plan$parts" || fail "call $parts says no time: $(cat "$work/plan$parts")"
done
for part in golden 'ops, networks, pipelines' 'torch padded 256p' 'torch compiled 256p' 'torch fp8 256p' 'torch best 540p' \
    'torch best 1080p' 'ours fp8 1080p' 'ours clips bf16 1080p' 'ours clips fp8 540p' 'torch decode 1080p' 'ceilings of PyTorch'; do
    grep -qh "$part" "$work"/plan[12] || fail "no call does: $part"
done
RUN_PARTS=1,nonsense "$here/run.sh" --dry-run >/dev/null 2>"$work/said" && fail 'takes parts that there are not'
grep -q nonsense "$work/said" || fail 'does not name the unknown part'

# A driver that is too old for CUDA 13: said at once, or CUDA's own stands before it. Packed programs are asked for
# next to nothing before they are run.
mkdir -p "$work/old/bin" "$work/old/cuda/compat" "$work/old/packed/lib"
printf '#!/bin/sh\necho 570.86.15\n' >"$work/old/bin/nvidia-smi"
printf '#!/bin/sh\necho "${0##*/} $* with $LD_LIBRARY_PATH" >>"%s"\n' "$work/old/calls" >"$work/old/packed/gpu_bench"
cp "$work/old/packed/gpu_bench" "$work/old/packed/gpu_test"
chmod +x "$work/old/bin/nvidia-smi" "$work"/old/packed/gpu_*
old() {
    PATH=$work/old/bin:$PATH CUDA_HOME=$work/old/cuda RUN_PARTS=agreement "$here/run.sh" --binaries "$work/old/packed" \
        --python "$work/python" --total 20 --out "$work/old/out" >"$work/said" 2>&1
}
old && fail 'goes on with an old driver'
grep -q '^run.sh: the driver is 570.86.15 ' "$work/said" || fail "does not say that the driver is old: $(cat "$work/said")"
[ ! -e "$work/old/calls" ] || fail 'runs something with an old driver'
touch "$work/old/cuda/compat/libcuda.so.1"
old
grep -q "^gpu_bench .* with .*lib:$work/old/cuda/compat:" "$work/old/calls" || fail "CUDA's own driver is not in front"
[ "$(grep -m 1 '^gpu_test ' "$work/old/calls" | cut -d ' ' -f 2)" = --gtest_list_tests ] || fail 'tests run as a probe'

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
