#!/usr/bin/env bash
# The program from a manifest to files, with a tiny model of random weights: the three kinds of item, the
# same bytes twice, resuming after kills and signals, exit codes, bad requests.
# Runs that are compared use different numbers of threads: the clips must not tell.
# Usage: end_to_end.sh GALLOP SOURCE_TREE
set -uo pipefail
gallop=$(readlink -f "$1")
tree=$(readlink -f "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME=$work/cache
cd "$work" || exit 1

fail() { echo "FAILED: $*" >&2; [ -s log ] && tail -5 log >&2; exit 1; }
# expect CODE COMMAND...: its exit code; stdout in `out`, stderr in `log`.
expect() {
    local code=$1; shift
    "$@" >out 2>log
    local got=$?
    [ "$got" -eq "$code" ] || fail "exit code $got (wanted $code): $*"
}
files() { (cd "$1" && find clips latents -type f | sort | xargs sha256sum); }

photo=/usr/share/matplotlib/mpl-data/sample_data/grace_hopper.jpg
[ -f "$photo" ] || fail "$photo is missing (package python-matplotlib-data)"
cp "$photo" photo.jpg
espeak-ng -w voice.wav "Good morning. The rain has stopped." || fail "espeak-ng"
cp "$tree/jobs/three-kinds.yaml" "$tree/jobs/smoke.yaml" .

echo "== help and versions"
expect 0 "$gallop" --help
grep -q 'Exit codes' out || fail "no exit codes in the help"
expect 0 "$gallop" --version
for command in check run decode inspect probe make-model bench fp8; do
    expect 0 "$gallop" "$command" --help
    grep -q "^gallop $command" out || fail "no help for $command"
done
expect 2 "$gallop"
expect 2 "$gallop" rum x
grep -q 'did you mean run?' log || fail "no nearest command"

echo "== a model, the same bytes for the same seed"
expect 0 "$gallop" make-model "$tree/configs/models/tiny.yaml" --out model --seed 3
expect 0 "$gallop" make-model "$tree/configs/models/tiny.yaml" --out model2 --seed 3
diff -r model model2 >/dev/null || fail "two models of one seed differ"
expect 2 "$gallop" make-model "$tree/configs/models/tiny.yaml" --out model
expect 0 "$gallop" inspect model --json
python3 -c 'import json; m=json.load(open("out")); assert m["kind"]=="model" and m["parameters"]>1e5, m' || fail "inspect of a model"

echo "== what E4M3 costs"
fp8="$gallop fp8 model --threads 2 --variant distill --prompt rain --size 64x64 --seconds 0.2"
expect 0 $fp8 --within 0.03
grep -q '^  precision: fp8' out || fail "no choice within 0.03"
{ printf 'version: 1\nname: fp8\nitems: [{prompt: rain}]\n' && sed 's/^model:/model:\n  path: model/' out; } >proposed.yaml
expect 0 "$gallop" check proposed.yaml
expect 0 $fp8 --within 1 --json
python3 -c 'import json; a=json.load(open("out")); assert a["fp8"]=={"linears":["qkv","proj","up","down"],"layers":"all"} and a["work"]>0.999 and a["error"]<1, a' || fail "a limit of one"
expect 0 $fp8 --within 1e-9
grep -q '^# nothing stays within 1e-09' out && grep -q '^  precision: bf16' out || fail "a limit that nothing keeps"
expect 2 $fp8 --within 0
expect 2 $fp8 --size 65x64
expect 2 $fp8 --against fp8

echo "== a broken model is known before anything is rendered"
cp -r model broken
weights=$(ls broken/distill/*.safetensors | head -1)
truncate -s -100 "$weights"
rm broken/turbo_vae/*.ckpt
for command in "check three-kinds.yaml" "plan three-kinds.yaml --out none" "run three-kinds.yaml --out none"; do
    expect 2 "$gallop" $command --set model.path=broken
    grep -q "$weights" log && grep -q 'turbo_vae' log || fail "not all that is broken was told: $command"
done
[ ! -e none/run.json ] || fail "a plan for a broken model"
expect 2 "$gallop" check three-kinds.yaml --set model.path=broken --json
python3 -c 'import json; assert len(json.load(open("out"))["mistakes"]) == 2' || fail "a mistake for each network"

echo "== three kinds of item"
expect 0 "$gallop" check three-kinds.yaml
expect 0 "$gallop" run --threads 2 three-kinds.yaml --out one --json
/usr/bin/python3 - <<'P' || fail "what the run wrote"
import json, subprocess, h5py
result = json.load(open("out"))
items = {i["name"]: i for i in result["items"]}
assert set(items) == {"text", "picture", "sound"} and all(i["state"] == "done" for i in items.values()), result
for name, item in items.items():
    probe = json.loads(subprocess.check_output(["ffprobe", "-v", "error", "-of", "json", "-count_frames", "-show_streams", item["clip"]]))
    video = next(s for s in probe["streams"] if s["codec_type"] == "video")
    audio = next(s for s in probe["streams"] if s["codec_type"] == "audio")
    assert (video["codec_name"], video["width"], video["height"]) == ("h264", 448, 256), video
    assert video["r_frame_rate"] == "25/1" and int(video["nb_read_frames"]) == 25, video
    assert (audio["codec_name"], audio["sample_rate"], audio["channels"]) == ("aac", "44100", 2), audio
    for stream in (video, audio):
        assert abs(float(stream["duration"]) - 1.0) < 0.001, stream
    errors = subprocess.run(["ffmpeg", "-v", "error", "-i", item["clip"], "-f", "null", "-"], capture_output=True, text=True)
    assert errors.returncode == 0 and not errors.stderr, errors
    with h5py.File(item["clip"].replace("/clips/", "/latents/").replace(".mp4", ".h5")) as h5:
        assert h5.attrs["id"] == item["id"], dict(h5.attrs)
        assert h5["video_base"].shape == (48, 7, 16, 28) and h5["video_base"].attrs["dtype"] == "bfloat16"
        assert h5["audio"].shape == (25 if name == "sound" else 26, 64), h5["audio"].shape
rows = [json.loads(line) for line in open("one/index.jsonl")]
assert len(rows) == 3
P
files one >one.txt
[ "$(wc -l <one.txt)" -eq 6 ] || fail "six files wanted: $(cat one.txt)"

echo "== again: the same bytes elsewhere, nothing where it is done"
expect 0 "$gallop" run --threads 1 three-kinds.yaml --out two
files two | diff one.txt - >/dev/null || fail "the second run's files differ"
before=$(stat -c %Y.%i one/clips/*/*/*.mp4)
expect 0 "$gallop" run --threads 2 three-kinds.yaml --out one
[ "$before" = "$(stat -c %Y.%i one/clips/*/*/*.mp4)" ] || fail "finished clips were written again"

echo "== driving sound to its last sample"
python3 - <<'P'
import wave
with wave.open("rest.wav", "wb") as sound:  # five latents, and a thousand samples that fill none
    sound.setnchannels(1), sound.setsampwidth(2), sound.setframerate(51200)
    sound.writeframes(b"".join((i % 100 * 100).to_bytes(2, "little") for i in range(5 * 2048 + 1000)))
P
printf 'version: 1\nname: rest\nmodel: {path: model}\ndefaults: {resolution: 64x64, steps: {base: 1}}\nitems: [{name: rest, prompt: p, audio: rest.wav}]\n' >rest.yaml
expect 0 "$gallop" check rest.yaml
expect 0 "$gallop" explain rest.yaml rest
grep -q '^length .* 5 pictures, 5 latents of sound, from 11240 samples' out || fail "explain tells no length: $(cat out)"
expect 0 "$gallop" plan rest.yaml
grep -q ' distill-64x64-5$' out || fail "plan tells no length: $(cat out)"
expect 2 "$gallop" check rest.yaml --set seconds=0.01
grep -q 'rest.yaml:5:.* 512 samples at 51,200 Hz (2048 needed' log || fail "too short a sound: $(cat log)"
expect 0 "$gallop" run --threads 2 rest.yaml --out rest
grep -q '"audio_samples":11240,' rest/items.lock.jsonl || fail "the plan holds other samples: $(cat rest/items.lock.jsonl)"
/usr/bin/python3 -c 'import h5py, glob; assert h5py.File(glob.glob("rest/latents/*/*/*.h5")[0])["audio"].shape == (5, 64)' || fail "latents of the sound"
files rest >rest.txt
expect 0 "$gallop" run --threads 1 rest.yaml --out rest2
files rest2 | diff rest.txt - >/dev/null || fail "the second run's files differ"

echo "== a prompt that is read in part"
python3 -c 'print("version: 1\nname: long\nmodel: {path: model}\nitems:\n  - {prompt: p}\n  - {prompt: \"" + "rain on a roof " * 16000 + "\"}")' >long.yaml
expect 0 "$gallop" check long.yaml
grep -q 'long.yaml:6:14: item "item-0002": prompt: the prompt has [0-9]* tokens and the network takes 640' log || fail "no note on the prompt: $(head -c 500 log)"
[ "$(grep -c 'long.yaml' log)" = 1 ] || fail "one note wanted: $(head -c 900 log)"
expect 0 "$gallop" plan long.yaml
grep -q 'long.yaml:6:14: .*takes 640' log || fail "plan notes nothing: $(head -c 500 log)"

echo "== inspect and decode"
clip=$(find one/clips -name '*.mp4' | sort | head -1)
latents=$(find one/latents -name '*.h5' | sort | head -1)
for path in one "$clip" "$latents" one/journal.jsonl model/distill; do
    expect 0 "$gallop" inspect "$path"
    [ -s out ] || fail "inspect $path says nothing"
done
expect 0 "$gallop" run --threads 3 smoke.yaml --out exact --set outputs.latents.dtype=f32 --set outputs.video.preset=fast
for latents in $(find exact/latents -name '*.h5'); do
    id=$(basename "$latents" .h5)
    expect 0 "$gallop" decode --threads 2 "$latents" --out "again/$id.mp4"
    cmp "again/$id.mp4" "$(find exact/clips -name "$id.mp4")" || fail "decode of f32 latents gives another clip"
done
expect 0 "$gallop" decode --threads 2 "$latents" --out again/small.mp4 --crf 40
expect 2 "$gallop" decode --threads 2 "$latents" --out again/small.mp4 --crf 99
expect 2 "$gallop" inspect nowhere
head -c 100 "$latents" >cut.h5
expect 2 "$gallop" inspect cut.h5

echo "== bad requests"
printf 'version: 1\nname: bad\nmodel: {path: model}\nitems:\n  - {prompt: p, sed: 1}\n  - {prompt: q, resolution: 450x256}\n' >bad.yaml
expect 2 "$gallop" check bad.yaml
grep -q '^bad.yaml:5:17: unknown key "sed"; did you mean "seed"?$' log || fail "no line for sed: $(cat log)"
grep -q '^bad.yaml:6:29: resolution is 450x256 .*448x256$' log || fail "no line for the size: $(cat log)"
expect 2 "$gallop" check bad.yaml --json
python3 -c 'import json; r=json.load(open("out")); assert not r["ok"] and len(r["mistakes"])==2, r' || fail "check --json"
expect 2 "$gallop" run --threads 2 bad.yaml --out bad
[ ! -e bad ] || fail "a bad manifest made a run directory"
expect 2 "$gallop" run --threads 2 smoke.yaml --out one
printf 'version: 1\nname: mute\nmodel: {path: model}\nsweep: {steps.base: [1, 2]}\nitems:\n  - {prompt: p, audio: no.wav}\n  - {prompt: p, audio: broken.wav}\n' >mute.yaml
echo text >broken.wav
expect 2 "$gallop" check mute.yaml
[ "$(grep -c 'no\.wav' log)" = 1 ] || fail "a missing sound is one mistake: $(cat log)"
[ "$(grep -c 'broken\.wav' log)" = 1 ] || fail "a sound that is none is one mistake: $(cat log)"
expect 2 "$gallop" run --threads 2 smoke.yaml --out exact --set outputs.video.crf=30
grep -q 'leave them out' log || fail "an option over a frozen plan: $(cat log)"
expect 2 "$gallop" run --threads 2 smoke.yaml --backend gpu --out never
echo text >broken.jpg
printf 'version: 1\nname: part\nmodel: {path: model}\ndefaults: {resolution: 64x64, frames: 1, steps: {base: 1}}\nitems:\n  - {prompt: p, image: broken.jpg}\n  - {prompt: q}\n' >part.yaml
expect 2 "$gallop" check part.yaml
grep -q '^part.yaml:6:5: .*broken.jpg' log || fail "no line for the picture: $(cat log)"
expect 3 "$gallop" run --threads 2 part.yaml --out part
[ "$(find part/clips -name '*.mp4' | wc -l)" -eq 1 ] || fail "the good item was not rendered"
grep -q '"event":"quarantined"' part/journal.jsonl || fail "the bad item is not in the journal"

echo "== stopped, killed, resumed"
"$gallop" run --threads 2 three-kinds.yaml --out stopped >out 2>log & child=$!
until [ -e stopped/journal.jsonl ]; do sleep 0.05; done
kill -TERM $child
wait $child; code=$?
[ "$code" -eq 4 ] || fail "exit code $code after SIGTERM (wanted 4)"
for delay in 0.1 0.4 0.9 1.7; do
    "$gallop" run --threads 2 three-kinds.yaml --out stopped >out 2>log & child=$!
    sleep $delay
    if [ "$delay" = 0.4 ]; then
        "$gallop" run --threads 2 three-kinds.yaml --out stopped >out2 2>log2 && fail "two runs in one directory"
        grep -q "process $child" log2 || fail "the holder is not named: $(cat log2)"
    fi
    kill -KILL $child 2>/dev/null
    wait $child 2>/dev/null
    for path in $(cd stopped && find . -name '*.mp4' -o -name '*.h5'); do
        grep -q "$(sha256sum <"stopped/$path" | cut -d' ' -f1)  ${path#./}\$" one.txt || fail "$path is not whole"
    done
done
expect 0 "$gallop" run --threads 2 three-kinds.yaml --out stopped
files stopped | diff one.txt - >/dev/null || fail "the resumed run's files differ"
[ -z "$(find stopped -name '*.tmp')" ] || fail "temporary files are left"
echo "all as it should be"
