#!/usr/bin/env bash
# COUNT mixed tiny items on 4 ranks, then on 1, 2 and 8, and in another order: every MP4 and HDF5 the same
# bytes. Then ranks are killed while they render, and the run is finished by another.
# Usage: farm.sh GALLOP SOURCE_TREE [COUNT]; prints a table of the runs.
set -uo pipefail
gallop=$(readlink -f "$1")
tree=$(readlink -f "$2")
count=${3:-24}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME=$work/cache
# Several ranks on one machine, also as root; tests stay on the loopback interface.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo
cd "$work" || exit 1

fail() { echo "FAILED: $*" >&2; tail -20 log >&2; exit 1; }
files() { (cd "$1" && find clips latents -type f | sort | xargs sha256sum); }

cp /usr/share/matplotlib/mpl-data/sample_data/grace_hopper.jpg photo.jpg || fail "package python-matplotlib-data"
espeak-ng -w voice.wav "Good morning." || fail "espeak-ng"
"$gallop" make-model "$tree/configs/models/tiny.yaml" --out model --seed 3 >out 2>log || fail "make-model"
"$tree/tests/cli/farm_items.py" "$count" >farm.yaml || fail "farm_items.py"
"$tree/tests/cli/farm_items.py" "$count" shuffled >shuffled.yaml || fail "farm_items.py"

# render NAME CODE COMMAND...: its seconds in the table.
render() {
    local name=$1 code=$2 start=$EPOCHREALTIME
    shift 2
    "$@" >out 2>log
    local got=$?
    [ "$got" -eq "$code" ] || fail "$name: exit code $got (wanted $code)"
    printf '%-24s %4d clips %8.1f s\n' "$name" "$(find "${@: -1}/clips" -name '*.mp4' 2>/dev/null | wc -l)" \
        "$(awk "BEGIN {print $EPOCHREALTIME - $start}")"
}
same() { files "$1" | diff one.txt - >/dev/null || fail "$1: other files than one rank's"; }

render "1 rank, no mpirun" 0 "$gallop" run --threads 1 farm.yaml --out solo
files solo >one.txt
[ "$(grep -c mp4 one.txt)" -eq "$count" ] || fail "$(grep -c mp4 one.txt) clips ($count wanted)"
for ranks in 4 1 2 8; do
    render "mpirun -n $ranks" 0 mpirun --oversubscribe -n "$ranks" "$gallop" run --threads 1 farm.yaml --out "ranks$ranks"
    same "ranks$ranks"
    [ "$(wc -l <out)" -eq "$count" ] || fail "not one line a clip on stdout: $(head -3 out)"
    python3 - "ranks$ranks" "$ranks" <<'P' || fail "the journal of $ranks ranks"
import json, sys
events = [json.loads(line) for line in open(sys.argv[1] + "/journal.jsonl")]
done = [e["id"] for e in events if e["event"] == "done"]
assert len(done) == len(set(done)), "an item was done twice"
agents = {e["agent"] for e in events if e["event"] == "joined"}
assert agents == set(range(int(sys.argv[2]))), agents
assert not [e for e in events if e["event"] in ("failed", "lost", "released")], "something failed"
P
done
render "shuffled, 3 slots" 0 "$gallop" run --threads 3 --slots 3 shuffled.yaml --out shuffled
same shuffled

echo "== ranks killed"
mpirun --enable-recovery --oversubscribe -n 4 "$gallop" run --threads 1 farm.yaml --out killed >out 2>log &
launcher=$!
done_in() { grep -c '"event":"done"' "$1/journal.jsonl" 2>/dev/null || true; }
until [ "$(done_in killed)0" -ge 30 ]; do sleep 0.1; done
# One rank that is not the first, and a renderer.
ranks=($(pgrep -P "$launcher"))
kill -KILL "${ranks[-1]}"
kill -KILL $(pgrep -P "${ranks[1]}" | head -1)
until [ -e killed/ATTEMPT_END ]; do
    kill -0 "$launcher" 2>/dev/null || break
    sleep 0.1
done
sleep 1
kill -KILL "$launcher" 2>/dev/null
wait "$launcher" 2>/dev/null
[ -e killed/COMPLETE ] || fail "the run did not survive a rank's death"
same killed
grep -q '"event":"lost"' killed/journal.jsonl || fail "the dead rank is not in the journal"

echo "== everything killed at once, twice, then finished by one process"
for delay in 1.5 3; do
    mpirun --oversubscribe -n 2 "$gallop" run --threads 1 farm.yaml --out again >out 2>log &
    launcher=$!
    sleep "$delay"
    kill -KILL "$launcher" $(pgrep -P "$launcher") 2>/dev/null
    wait "$launcher" 2>/dev/null
done
render "the rest" 0 "$gallop" run --threads 1 farm.yaml --out again
same again
[ -z "$(find . -name '*.tmp')" ] || fail "temporary files are left"
echo "all as it should be"
