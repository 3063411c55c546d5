#!/usr/bin/env bash
# The same COUNT mixed tiny items three ways on this machine: a shell loop of single `gallop run`s (once), and in
# turns, ROUNDS times, a static split (each of RANKS ranks of mpirun runs a share of its own) and one run of RANKS
# ranks. Prints medians.
# Usage: examples/farm/throughput.sh GALLOP [COUNT] [RANKS] [ROUNDS]
set -euo pipefail
gallop=$(readlink -f "$1")
count=${2:-200}
ranks=${3:-4}
rounds=${4:-3}
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

loop() {
    # As many at a time as the others have ranks.
    printf '%s\n' single-*.yaml | xargs -P "$ranks" -I{} "$gallop" run --threads 1 {} --out loop/{} >>out 2>>log
}
split() {
    # Each share is a run of its own: what tells of the other ranks is taken from its environment.
    mpirun --oversubscribe -n "$ranks" bash -c 'rank=$OMPI_COMM_WORLD_RANK; unset "${!OMPI_@}" "${!PMIX_@}"
        exec "$0" run --threads 1 "share-$rank.yaml" --out "split/$rank"' "$gallop" >>out 2>>log
}
farm() { mpirun --oversubscribe -n "$ranks" "$gallop" run --threads 1 farm.json --out farm >>out 2>>log; }

for how in loop $(for ((i = 0; i < rounds; ++i)); do echo split farm farm split; done); do
    rm -rf "$how"
    start=$EPOCHREALTIME
    $how
    awk "BEGIN {print $EPOCHREALTIME - $start}" >>"seconds-$how"
    made=$(find "$how" -name '*.mp4' | wc -l)
    [ "$made" -eq "$count" ] || { echo "$how made $made clips"; tail log; exit 1; }
done
printf '%-40s %8s %18s %12s\n' "$count clips, $ranks at a time, $(nproc) cores" seconds "least to most" clips/hour
for how in loop split farm; do
    case $how in
        loop) name="a gallop run for each item" ;;
        split) name="mpirun -n $ranks, fixed shares" ;;
        farm) name="mpirun -n $ranks gallop run" ;;
    esac
    sort -n "seconds-$how" | awk -v name="$name" -v count="$count" '{all[NR] = $1} END {
        median = (all[int((NR + 1) / 2)] + all[int(NR / 2) + 1]) / 2
        printf "%-40s %8.1f %18s %12.0f\n", name, median, sprintf("%.1f to %.1f", all[1], all[NR]), 3600 * count / median}'
done
