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
expect 0 "$gallop" explain drafts.yaml "$id" --run drafts --json
check "e = json.loads(out); assert e['name'] == 'cafe' and {'field', 'value', 'layer', 'where'} == set(e['values'][0]), e"
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
grep -q 'nothing to retry' log || fail "retry does not say that there is nothing to do"

echo "== what is no run, and no known file"
expect 2 "$gallop" run
(cd drafts && expect 2 "$gallop" run --attach && mv out log "$folder") || fail "run without a run directory"
grep -q 'gallop run --attach \. goes on' log || fail "run does not see the run directory around it"
for command in run submit; do
    expect 2 "$gallop" "$command" model
    grep -q '^model: a folder without a plan .*gallop plan MANIFEST --out model' log || fail "$command of a folder"
done
expect 2 "$gallop" plan model
grep -q '^model: a folder (must be a file)' log || fail "a folder in place of a manifest"
mkdir -p empty
: >empty.mp4
expect 2 "$gallop" inspect empty
grep -q '^empty: a folder without a file in it (known: ' log || fail "inspect of an empty folder"
expect 2 "$gallop" inspect empty.mp4
grep -q '^empty.mp4: an empty file (known: ' log || fail "inspect of an empty file"
expect 2 "$gallop" inspect drafts.yaml
grep -q 'it begins with "version: 1' log || fail "inspect of a text"
expect 2 "$gallop" inspect drafts/items.lock.jsonl
grep -q 'none of its 2 lines is one of a run.s journal' log || fail "inspect of other rows"
mkdir locked && cp drafts.yaml locked && chmod 0 locked && cp "$gallop" program
if [ "$(id -u)" -eq 0 ]; then as_nobody="setpriv --reuid=65534 --clear-groups"; else as_nobody=; fi
chmod 755 "$folder"
for command in check run "inspect" "status"; do
    expect 2 $as_nobody ./program "$command" locked/drafts.yaml
    grep -q '^locked/drafts.yaml.*: Permission denied' log || fail "$command does not name what it may not read"
done

echo "== a job"
mkdir bin
printf '#!/bin/sh\necho 4711\n' >bin/sbatch
printf '#!/bin/sh\necho "PENDING|(Priority)|4:00:00"\n' >bin/squeue
chmod +x bin/*
PATH=$folder/bin:$PATH expect 0 "$gallop" submit drafts.yaml --out job
grep -qx 4711 out || fail "no job id"
for again in "drafts.yaml --out job" job; do
    PATH=$folder/bin:$PATH expect 2 "$gallop" submit $again
    grep -q 'job: Slurm job 4711 is there already (PENDING)' log || fail "a second job on one directory"
done
rm bin/squeue
PATH=$folder/bin:$PATH expect 2 "$gallop" submit drafts.yaml --out job
grep -q 'job: is planned already; gallop submit .*job goes on with it' log || fail "a plan that is there is not told"
printf '#!/bin/sh\necho "sbatch: error: invalid partition" >&2\nexit 1\n' >bin/sbatch
PATH=$folder/bin:$PATH expect 2 "$gallop" submit job
grep -q 'sbatch refused it: sbatch: error: invalid partition' log || fail "what sbatch says is not told"

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
expect 0 "$gallop" export csv drafts --out table.csv --json
check "assert json.loads(out) == {'file': 'table.csv', 'clips': 2}"
expect 2 "$gallop" export csv drafts --json
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
expect 2 "$gallop" promote drafts nobody cafe somebody --resolution 128x64
grep -q 'no item "nobody"' log && grep -q 'no item "somebody"' log || fail "not every unknown item is named"
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

# A clip made from rounded latents is finished by nobody but promote: from noise it would be another one.
expect 0 "$gallop" run drafts.yaml --out rounded --set outputs.latents.dtype=bf16 --threads 1
expect 0 "$gallop" promote rounded cafe --resolution 128x64 --threads 2
clip=$(find rounded-128x64/clips -name '*.mp4')
cp "$clip" wanted.mp4
rm -r rounded-128x64/clips rounded-128x64/latents
expect 3 "$gallop" run rounded-128x64 --threads 1
grep -q 'run the same gallop promote again' rounded-128x64/journal.jsonl || fail "it does not say what to do"
[ ! -e "$clip" ] || fail "a promoted clip was rendered from noise"
expect 0 "$gallop" promote rounded cafe --resolution 128x64 --threads 2
cmp "$clip" wanted.mp4 || fail "the clip is another one after it was finished again"

echo "== verify"
expect 0 "$gallop" verify drafts --sample 1 --json --threads 1
check "v = json.loads(out); assert v['clips'] == 2 and v['rendered_again'] == 1 and v['problems'] == [], v"
clip=$(find drafts/clips -name '*.mp4' | sort | head -1)
printf 'x' | dd of="$clip" bs=1 seek=900 conv=notrunc 2>/dev/null
expect 3 "$gallop" verify drafts
grep -q 'its SHA-256 is' out || fail "verify does not name the changed file: $(cat out)"
echo "all as it should be"
