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
"$here/run.sh" --device cpu --tiny --binaries "$1" --python "$work/python" --variants eager \
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
grep -Eq '^\| torch eager tiny \|.*status' "$table" || fail 'does not say what failed'
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
    --merge "$(ls "$work"/out/*.json)" --out "$work/merged" >/dev/null 2>"$work/progress"
grep -Eq '^\| ours clips fp8 tiny, earlier \|.*done' "$work"/merged/*.md || fail 'the earlier call is not in the table'
grep -Eq '^\| tiny \| Gallop bf16 \| [0-9.]+ \|' "$work"/merged/*.md || fail 'nor its figures'

grep -q 'golden files: done' "$work/progress" || fail 'a group that is asked for by name is not run anew'

# A call goes on where an earlier one ended: what was done is not done again, what was left out is.
"$here/run.sh" --device cpu --tiny --binaries "$1" --python "$work/python" --variants eager --precisions bf16,fp8 \
    --merge "$(ls "$work"/short/*.json)" --dry-run >"$work/plan" || fail 'no plan'
grep -q 'ours clips fp8 tiny' "$work/plan" || fail 'does not go on with what was left out'
"$here/run.sh" --device cpu --tiny --binaries "$1" --python "$work/python" --variants eager --precisions bf16,fp8 \
    --merge "$(ls "$work"/out/*.json)" --dry-run >"$work/plan" || fail 'no plan'
grep -q 'ours' "$work/plan" && fail "does again what was done: $(cat "$work/plan")"
# Another machine's figures are not taken in.
python3 - "$work" <<'PY'
import json, pathlib, sys
work = pathlib.Path(sys.argv[1])
earlier = json.loads(next((work / "out").glob("*.json")).read_text())
earlier["facts"]["Gallop computes with"] = "another GPU"
(work / "other.json").write_text(json.dumps(earlier))
PY
"$here/run.sh" --device cpu --tiny --binaries "$1" --python "$work/python" --merge "$work/other.json" --out "$work/no" \
    >/dev/null 2>"$work/said" && fail "takes in another machine's figures"
grep -q 'another GPU' "$work/said" || fail "does not say whose figures they are: $(cat "$work/said")"

# All that is measured, in the order of its worth.
"$here/run.sh" --dry-run >"$work/plan" || fail 'no plan'
for part in 'golden files' 'agreement: ops' networks pipelines 'torch eager,padded 256p' 'torch compiled 256p' 'torch fp8 256p' \
    'torch eager,padded 540p' 'torch eager,padded 1080p' 'ours fp8 1080p' 'ours clips bf16 1080p' 'ours clips fp8 540p' \
    'torch decode 1080p' 'ceilings of PyTorch'; do
    grep -q "$part" "$work/plan" || fail "no part does: $part"
done
RUN_PARTS=agreement,nonsense "$here/run.sh" --dry-run >/dev/null 2>"$work/said" && fail 'takes parts that there are not'
grep -q nonsense "$work/said" || fail 'does not name the unknown part'

# What a broken engine would say: values that are not finite, tests that fail or end the program, a part that is killed
# after it has told something. The table and the JSON come all the same.
mkdir "$work/broken"
cat >"$work/broken/gpu_bench" <<'SH'
#!/bin/sh
case $1 in
    golden) echo '{"rows": [{"component": "dit", "case": "x", "largest_error": null, "agrees": false}], "agrees": false}'; exit 3 ;;
    forward) echo '{"seconds": [0.25]}'; echo '{"seconds": [0.25, 0.5'; exec sleep 100 ;;
    about) echo '{"made_of": "a card"}' ;;
    *) echo 'warning: nothing' >&2; exit 75 ;;
esac
SH
cat >"$work/broken/gpu_test" <<'SH'
#!/bin/sh
printf '[ RUN      ] A.B\n[       OK ] A.B (1 ms)\n[ RUN      ] A.C\n[  FAILED  ] A.C (1 ms)\n[ RUN      ] A.D\n'
exit 134
SH
chmod +x "$work"/broken/*
broken() {
    RUN_PARTS=$1 python3 "$here/report.py" --bench "$work/broken/gpu_bench" --tests "$work/broken/gpu_test" --tiny \
        --python "$work/python" --precisions bf16 --variants none --total "$2" --out "$work/ruin-$1" >"$work/said" 2>&1
    ruin=$(ls "$work/ruin-$1"/*.md) || fail "no table: $(cat "$work/said")"
    for words in "${@:3}"; do grep -q "$words" "$ruin" || { table=$ruin && fail "of a broken engine: no $words"; }; done
}
broken agreement,clips 60 '^0 of 1 golden comparisons agree.* inf' 'ops: 1 passed; FAILED: A.C; ended in A.D' \
    'Gallop computes with | a card' '^- warning: nothing'
broken forward 27 '^| tiny | Gallop bf16 | 250.0 |' 'was not done after'

# Packed programs run from their file alone.
"$here/pack.sh" "$(dirname "$1")" "$work/packed.tar.gz" >/dev/null || fail 'cannot be packed'
RUN_PARTS=ceilings "$here/run.sh" --device cpu --tiny --binaries "$work/packed.tar.gz" --python "$work/python" --total 60 \
    --out "$work/unpacked" >"$work/said" 2>&1
grep -Eq '^\| copy \|' "$work"/unpacked/*.md || fail "packed programs do not run: $(cat "$work/said")"

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
