#!/usr/bin/env bash
# Runs on a throw-away Slurm cluster of three nodes: submitted, finished, cancelled, requeued, with a node that crashes, and
# out of time. Each ends with the bytes of an undisturbed run.
# Usage: cluster_test.sh GALLOP SOURCE_TREE SHIM CASE...; without root or Slurm it says so and exits 77 (skipped).
# SHIM is the compiled tests/faults/fault_shim.c.
set -uo pipefail
gallop=$(readlink -f "$1")
tree=$(readlink -f "$2")
shim=$(readlink -f "$3")
shift 3
PATH=$PATH:/usr/sbin:/sbin
for program in slurmctld slurmd munged sbatch unshare; do
    command -v $program >/dev/null || { echo "SKIPPED: no $program on this machine"; exit 77; }
done
unshare --uts true 2>/dev/null || { echo "SKIPPED: nodes need UTS namespaces of their own, which needs root"; exit 77; }

work=$(mktemp -d /tmp/gallop-slurm.XXXXXX)
chmod 755 "$work"   # munged insists
cluster=$tree/tests/slurm/slurm-cluster.sh
# shellcheck disable=SC2317  # the trap calls it
end() { [ -n "${SLURM_CONF:-}" ] && "$cluster" stop "$work/cluster"; rm -rf "$work"; }
trap end EXIT
cd "$work" || exit 1
export XDG_CACHE_HOME=$work/cache OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo
export GALLOP_BACK_OFF=0 GALLOP_STALE=20

fail() {
    echo "FAILED: $*" >&2
    squeue >&2
    tail -n 15 "$work"/run/logs/*.out "$work"/run/logs/agent* log >&2 2>/dev/null
    exit 1
}
state() { scontrol show job "$job" | sed -n 's/.*JobState=\([A-Z]*\).*/\1/p'; }
restarts() { scontrol show job "$job" | sed -n 's/.*Restarts=\([0-9]*\).*/\1/p'; }
finished() { cat run/journal*.jsonl 2>/dev/null | grep -c '"event":"done"'; }
await() {  # SECONDS WHAT COMMAND...: waits until the command succeeds
    local last=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do [ "$SECONDS" -lt "$last" ] || fail "$what did not come in time"; sleep 0.3; done
}
is() { [ "$(state)" = "$1" ]; }
has_finished() { [ "$(finished)" -ge "$1" ]; }
has_restarted() { [ "$(restarts)" -ge 1 ]; }
outputs() { (cd "$1" && find clips latents -type f | sort | xargs sha256sum); }
submit() {  # OPTIONS...: plans and submits into run/
    rm -rf run
    job=$("$gallop" submit slurm.yaml --out run "$@" 2>log) || { cat log >&2; fail "gallop submit"; }
    [ -n "$job" ] || fail "no job id"
}
same() {  # the job ends well and the run is whole
    await 180 "the end of the job" is COMPLETED
    [ -e run/COMPLETE ] || fail "the job ended without COMPLETE"
    outputs run | cmp -s undisturbed.txt - || fail "other files than an undisturbed run's"
    [ -z "$(find run -name '*.tmp')" ] || fail "temporary files are left"
}

"$gallop" make-model "$tree/configs/models/tiny.yaml" --out model --seed 3 >/dev/null 2>log || fail "make-model"
{
    echo 'version: 1'
    echo 'name: slurm'
    echo 'model: {path: model, variant: distill}'
    echo 'defaults: {resolution: 64x64, frames: 5, steps: {base: 4}}'
    echo 'outputs: {root: run, video: {preset: ultrafast}}'
    echo 'schedule: {silent: 5s}'
    echo 'limits: {walltime_reserve: 20s}'
    echo 'slurm: {nodes: 3, time: "00:10:00", partition: batch}'
    echo 'items:'
    for i in $(seq 1 "${ITEMS:-12}"); do echo "  - {name: item-$i, prompt: \"Rain on window $i\"}"; done
} >slurm.yaml
"$gallop" run slurm.yaml --out undisturbed >/dev/null 2>log || fail "the undisturbed run"
outputs undisturbed >undisturbed.txt
export "$("$cluster" start 3 "$work/cluster" 2>log)"
[ -n "${SLURM_CONF:-}" ] || { cat log >&2; echo "FAILED: no cluster" >&2; exit 1; }
echo "cluster of three nodes after $SECONDS s"

for case in "$@"; do
    start=$SECONDS
    case $case in
    finish)   # srun --mpi=pmix, one rank a node
        submit
        "$gallop" submit run --print | grep -q '^BACKEND="${BACKEND:-cpu}"' || fail "submit --print"
        grep -q "\"job_id\": \"$job\"" run/slurm.json || fail "slurm.json"
        same
        [ "$(grep '"event":"joined"' run/journal.jsonl | grep -o '"host":"node[123]"' | sort -u | wc -l)" -eq 3 ] ||
            fail "not every node took part"
        grep -q 'srun --mpi=pmix' run/logs/slurm-*.out || grep -q 'launch --with auto' run/logs/slurm-*.out ||
            fail "the launcher is not told"
        ;;
    mpirun)
        LAUNCHER=mpirun submit
        same
        ;;
    array)    # no MPI at all
        submit --array
        await 120 COMPLETE test -e run/COMPLETE
        outputs run | cmp -s undisturbed.txt - || fail "other files than an undisturbed run's"
        ;;
    cancel)   # what is done stays done; the same command goes on
        submit
        await 120 "the first clips" has_finished 2
        scancel "$job"
        await 60 "the cancellation" is CANCELLED
        await 30 "the end of the run" grep -q '"event":"ended"' run/journal.jsonl
        before=$(finished)
        [ ! -e run/COMPLETE ] || fail "COMPLETE after a cancellation"
        job=$("$gallop" submit run 2>log) || fail "submit of a run directory"
        same
        [ "$(finished)" -eq "${ITEMS:-12}" ] || fail "$(finished) clips finished ($before before the cancellation)"
        ;;
    requeue)
        submit
        await 120 "the first clips" has_finished 2
        scontrol requeue "$job"
        await 60 "the restart" has_restarted
        same
        ;;
    crash)    # a node is lost: the run goes on with the others, in the same allocation
        submit
        await 120 "the first clips" has_finished 2
        "$cluster" kill-node node3 "$work/cluster"
        scontrol update nodename=node3 state=down reason=crash
        same
        [ "$(restarts)" = 0 ] || fail "the job was started anew"
        "$cluster" start-node node3 "$work/cluster"
        await 30 "node3" sh -c '[ "$(sinfo -h -n node3 -p batch -o %t)" = idle ]'
        ;;
    batch-host)   # the node of the batch script is lost: the watcher puts the job back into the queue
        submit
        await 120 "the first clips" has_finished 2
        "$cluster" kill-node node1 "$work/cluster"
        await 90 "the restart" has_restarted
        scontrol update nodename=node1 state=down reason=crash
        same
        "$cluster" start-node node1 "$work/cluster"
        await 30 "node1" sh -c '[ "$(sinfo -h -n node1 -p batch -o %t)" = idle ]'
        ;;
    signal)   # as Slurm does before the time is up: the run stores what it has, the job goes back into the queue
        submit
        await 120 "the first clips" has_finished 2
        scancel --batch --signal=USR1 "$job"
        await 60 "the restart" has_restarted
        grep -q 'back into the queue' run/logs/slurm-*.out || fail "it was not stopped in time"
        same
        ;;
    time)     # a minute is too short: the run asks Slurm how long it has, stops by itself, and the job goes on in the queue
        LD_PRELOAD=$shim FAULT_BELOW=$work/run FAULT_STATE=$work/state FAULT_SLEEP=12 submit -- --time=1 --signal=B:USR1@5
        await 90 "the restart" has_restarted
        grep -q 'back into the queue' run/logs/slurm-*.out || fail "it was not stopped in time"
        same
        ;;
    *) fail "no such case: $case" ;;
    esac
    echo "$case: as it should be, $((SECONDS - start)) s"
done
