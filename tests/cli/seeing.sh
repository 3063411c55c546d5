#!/usr/bin/env bash
# A run as a person looks at it afterwards: status, report, index, exports, verify, retry, and drafts that are
# promoted to what a manifest with the higher resolution gives, byte for byte.
# Usage: seeing.sh GALLOP SOURCE_TREE
set -uo pipefail
gallop=$(readlink -f "$1")
source=$(readlink -f "$2")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export XDG_CACHE_HOME=$folder/cache
cd "$folder" || exit 1

fail() {
    echo "FAILED: $*" >&2
    [ -s log ] && tail -20 log >&2
    exit 1
}
expect() {  # expect CODE COMMAND...: its output goes to out, its log to log
    local wanted=$1
    shift
    "$@" >out 2>log
    local code=$?
    [ "$code" -eq "$wanted" ] || fail "exit code $code (wanted $wanted): $*"
}
check() {  # check PROGRAM: Python over the last output in `out`
    python3 -c "import json,sys
out = open('out').read()
$1" || fail "$1: $(cat out)"
}

echo "== a run of two drafts"
expect 0 "$gallop" make-model "$source/configs/models/tiny.yaml" --out model --seed 1
cat >drafts.yaml <<'END'
version: 1
name: drafts
model: {path: model}
defaults: {resolution: 64x32, frames: 5, steps: {base: 2}}
items:
  - {name: cafe, prompt: "A barista says good morning, cups clink"}
  - {name: rain, prompt: "She hums while rain hits the window"}
outputs: {video: {preset: ultrafast}, latents: {dtype: f32}}
END
expect 0 "$gallop" run drafts.yaml --out drafts --threads 2

echo "== rates that are measured, and who set what"
expect 0 "$gallop" plan drafts.yaml --json
check "p = json.loads(out); assert p['items'] == 2 and p['device'] == 'h100' and not p['measured'], p"
expect 0 "$gallop" plan drafts.yaml --probe 2 --threads 2 --json
check "p = json.loads(out); assert p['device'] == 'cpu' and p['measured'] and 0 < p['seconds_to_end'] < 600, p"
[ -s cache/gallop/calibration-cpu.json ] || fail "the probed rates were not kept"
expect 2 "$gallop" plan drafts.yaml --probe 0
id=$(python3 -c 'import json; print(json.loads(open("drafts/items.lock.jsonl").readline())["id"])')
expect 0 "$gallop" explain drafts.yaml "$id" --run drafts
cp out by_id && expect 0 "$gallop" explain drafts.yaml cafe
cmp out by_id || fail "explain says another thing by id than by name"
grep -Eq '^seconds|^frames .*5' out || fail "explain does not tell the frames: $(cat out)"
expect 2 "$gallop" explain drafts.yaml "${id//[0-9]/0}" --run drafts

echo "== status"
expect 0 "$gallop" status drafts --json
check "s = json.loads(out); assert s['state'] == 'finished' and s['done'] == s['items'] == 2 and not s['live'], s"
expect 0 "$gallop" status drafts
grep -q '^drafts: finished' out || fail "status does not say that the run is finished: $(cat out)"
expect 0 "$gallop" status drafts --watch
(cd drafts/clips && expect 0 "$gallop" status --json && mv out log "$folder") || fail "status inside a run directory"
check "assert json.loads(out)['name'] == 'drafts'"
expect 2 "$gallop" status model
expect 2 "$gallop" retry drafts
expect 2 "$gallop" retry drafts --failed cafe
expect 0 "$gallop" retry drafts --failed

echo "== index, exports, report"
expect 0 "$gallop" index drafts
python3 - drafts/index.jsonl <<'END' || fail "index.jsonl"
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
assert [row["names"] for row in rows] == [["cafe"], ["rain"]], rows
END
expect 0 "$gallop" export csv drafts --out table.csv
python3 - table.csv <<'END' || fail "table.csv"
import csv, sys
rows = list(csv.DictReader(open(sys.argv[1], newline="")))
assert [row["prompt"] for row in rows] == ["A barista says good morning, cups clink",
                                           "She hums while rain hits the window"], rows
END
expect 0 "$gallop" export webdataset drafts --out shards --latents
python3 - drafts shards <<'END' || fail "shards"
import json, os, sys, tarfile
run, shards = sys.argv[1:]
index = json.load(open(f"{shards}/index.json"))
members = {}
for shard in index["shardlist"]:
    with tarfile.open(f"{shards}/{shard['url']}") as tar:
        for member in tar:
            members[member.name] = tar.extractfile(member).read()
assert len(members) == 6, sorted(members)
for name, content in members.items():
    key, kind = name.split(".")
    if kind == "json":
        assert json.loads(content)["id"] == key
    else:
        folder = {"mp4": "clips", "h5": "latents"}[kind]
        assert content == open(f"{run}/{folder}/{key[:2]}/{key[2:4]}/{name}", "rb").read(), name
END
expect 2 "$gallop" export webdataset drafts
expect 2 "$gallop" export zip drafts --out x
expect 2 "$gallop" export webdataset drafts --out x --shard-size many
expect 0 "$gallop" report drafts
[ -s drafts/report/index.html ] || fail "no report"
[ "$(find drafts/report/strips -name '*.jpg' | wc -l)" -eq 2 ] || fail "not two contact strips"

echo "== promote"
id=$(python3 -c 'import json; print(json.loads(open("drafts/index.jsonl").readline())["id"])')
expect 2 "$gallop" promote drafts nobody --resolution 128x64
expect 2 "$gallop" promote drafts cafe --resolution 100x64
expect 2 "$gallop" promote drafts cafe
expect 0 "$gallop" promote drafts cafe --resolution 128x64 --threads 2
[ "$(wc -l <out)" -eq 1 ] || fail "promote printed $(cat out)"
expect 0 "$gallop" promote drafts "${id:0:8}" rain --resolution 128x64 --threads 2
[ "$(wc -l <out)" -eq 2 ] || fail "promote printed $(cat out)"
expect 0 "$gallop" verify drafts-128x64
sed 's/resolution: 64x32/resolution: 128x64, base_resolution: 64x32, sr: 540p_sr/' drafts.yaml >whole.yaml
expect 0 "$gallop" run whole.yaml --out whole --threads 1
for kind in clips latents; do
    (cd whole && find "$kind" -type f | sort) >wanted
    (cd drafts-128x64 && find "$kind" -type f | sort) | diff wanted - || fail "promoted $kind have other names"
    while read -r path; do
        cmp "whole/$path" "drafts-128x64/$path" || fail "$path is not what rendering it whole gives"
    done <wanted
done

echo "== verify"
expect 0 "$gallop" verify drafts --sample 1 --json --threads 1
check "v = json.loads(out); assert v['clips'] == 2 and v['rendered_again'] == 1 and v['problems'] == [], v"
clip=$(find drafts/clips -name '*.mp4' | sort | head -1)
printf 'x' | dd of="$clip" bs=1 seek=900 conv=notrunc 2>/dev/null
expect 3 "$gallop" verify drafts
grep -q 'its SHA-256 is' out || fail "verify does not name the changed file: $(cat out)"
echo "all as it should be"
