#!/usr/bin/env bash
# The same COUNT mixed tiny items three ways on this machine, one after the other: a shell loop of single
# `gallop run`s, a split into as many fixed shares as ranks, and one run of RANKS ranks.
# Usage: examples/farm/throughput.sh GALLOP [COUNT] [RANKS]
set -euo pipefail
gallop=$(readlink -f "$1")
count=${2:-200}
ranks=${3:-4}
tree=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME=$work/cache OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_hwloc_base_binding_policy=none
cd "$work"
cp /usr/share/matplotlib/mpl-data/sample_data/grace_hopper.jpg photo.jpg
espeak-ng -w voice.wav "Good morning."
"$gallop" make-model "$tree/configs/models/tiny.yaml" --out model --seed 3 2>/dev/null
"$tree/tests/cli/farm_items.py" "$count" >farm.json
python3 - "$ranks" <<'P'
import json, sys
manifest = json.load(open("farm.json"))
items, ranks = manifest["items"], int(sys.argv[1])
def write(name, part):
    json.dump({**manifest, "items": part}, open(name, "w"))
for i, item in enumerate(items):
    write(f"single-{i:04}.yaml", [item])
share = (len(items) + ranks - 1) // ranks
for rank in range(ranks):
    write(f"share-{rank}.yaml", items[rank * share:(rank + 1) * share])
P

run() { "$gallop" run --threads 1 "$@" >>out 2>>log; }
loop() {
    # As many at a time as the others have ranks.
    printf '%s\n' single-*.yaml | xargs -P "$ranks" -I{} "$gallop" run --threads 1 {} --out loop/{} >>out 2>>log
}
split() {
    for ((rank = 0; rank < ranks; ++rank)); do run "share-$rank.yaml" --out "split/$rank" & done
    wait
}
farm() { mpirun --oversubscribe -n "$ranks" "$gallop" run --threads 1 farm.json --out farm >>out 2>>log; }

printf '%-40s %8s %12s\n' "$count clips, $ranks at a time, $(nproc) cores" seconds clips/hour
for how in loop split farm; do
    start=$EPOCHREALTIME
    $how
    seconds=$(awk "BEGIN {print $EPOCHREALTIME - $start}")
    made=$(find $how -name '*.mp4' | wc -l)
    [ "$made" -eq "$count" ] || { echo "$how made $made clips"; tail log; exit 1; }
    case $how in
        loop) name="a gallop run for each item" ;;
        split) name="$ranks fixed shares" ;;
        farm) name="mpirun -n $ranks gallop run" ;;
    esac
    printf '%-40s %8.1f %12.0f\n' "$name" "$seconds" "$(awk "BEGIN {print 3600 * $count / $seconds}")"
done
