#!/usr/bin/env bash
# One clip over two renderers, processes that Gloo joins, beside one renderer alone: latents within 1e-5, clips
# alike to the eye. Then a member of the group is killed in mid-item: the same bytes come out all the same.
# Usage: shared_item.sh GALLOP SOURCE_TREE; exits with 77 where the program was built without Gloo.
set -uo pipefail
gallop=$(readlink -f "$1")
tree=$(readlink -f "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME=$work/cache
cd "$work" || exit 1

fail() { echo "FAILED: $*" >&2; tail -n 5 log shared*/logs/renderer-*.log >&2; exit 1; }
files() { (cd "$1" && find clips latents -type f | sort | xargs sha256sum); }

"$gallop" make-model "$tree/configs/models/tiny.yaml" --out model --seed 3 >log 2>&1 || fail "make-model"
cat >alone.yaml <<'M'
version: 1
name: shared
model: {path: model, variant: distill, precision: fp32}
defaults: {resolution: 128x96, frames: 9, steps: {base: 8}}
outputs: {video: {preset: ultrafast}, latents: {dtype: f32}}
items:
  - {name: rain, prompt: "Rain on a window"}
  - {name: wind, prompt: "Wind in a wood", passes: 2}
M
{ cat alone.yaml && echo "resources: {gpus_per_item: 2}"; } >shared.yaml

echo "== two renderers an item, and one"
"$gallop" run alone.yaml --threads 1 --out alone >out 2>log || fail "one renderer an item"
"$gallop" run shared.yaml --threads 2 --slots 2 --out shared >out 2>log || {
    grep -q "needs Gloo, which this program was built without" log && echo "skipped: no Gloo" && exit 77
    fail "two renderers an item"
}
files shared >shared.txt
[ "$(wc -l <shared.txt)" -eq 4 ] || fail "four files wanted: $(cat shared.txt)"
/usr/bin/python3 - <<'P' || fail "two renderers give another clip than one"
import glob, json, subprocess
import h5py, numpy

events = [json.loads(line) for line in open("shared/journal.jsonl")]
slots = [event["slots"] for event in events if event["event"] == "joined"]
assert slots == [1], f"{slots} groups of two renderers"

def samples(clip, stream, dtype):
    raw = subprocess.check_output(["ffmpeg", "-v", "error", "-i", clip, "-map", f"0:{stream}:0", "-f",
                                   {"v": "rawvideo", "a": "s16le"}[stream], "-"])
    return numpy.frombuffer(raw, dtype).astype(float)

for path in glob.glob("alone/latents/*/*/*.h5"):
    with h5py.File(path) as one, h5py.File(path.replace("alone/", "shared/")) as two:
        for name in ("video_base", "audio"):
            a, b = one[name][:], two[name][:]
            error = numpy.abs(a - b).max() / numpy.abs(a).max()
            print(f"{name}: {error:.1e} of the largest value")
            assert a.shape == b.shape and error < 1e-5, (name, error)
            assert name == "audio" or error > 0, "was anything shared?"
    clip = path.replace("/latents/", "/clips/").replace(".h5", ".mp4")
    for stream, dtype in (("v", "u1"), ("a", "<i2")):
        a, b = samples(clip, stream, dtype), samples(clip.replace("alone/", "shared/"), stream, dtype)
        assert len(a) == len(b) > 0, (stream, len(a), len(b))
        error = numpy.abs(a - b).mean() / numpy.abs(a).mean()
        print(f"{'pictures' if stream == 'v' else 'sound'}: {error:.1e} of the average value, as encoded")
        assert error < 3e-2, (stream, error)  # an encoder may decide otherwise by the last bit
P

echo "== a member killed in mid-item"
"$gallop" run shared.yaml --threads 2 --slots 2 --out shared-killed >out 2>log &
run=$!
member() { pgrep -P "$run" -f -- '--rank 1'; }
begun() { grep -qs "begins name" shared-killed/logs/renderer-*.log; }
until begun && member >/dev/null; do
    kill -0 "$run" 2>/dev/null || fail "it ended before a member was killed"
    sleep 0.02
done
kill -KILL "$(member)"
wait "$run" || fail "a run whose member was killed"
grep '"event":"failed"' shared-killed/journal.jsonl | grep -q group || fail "nothing failed: it was killed too late"
files shared-killed | diff shared.txt - >/dev/null || fail "other files after a member was killed"
[ -z "$(find . -name '*.tmp')" ] || fail "temporary files are left"
echo "all as it should be"
