#!/usr/bin/env bash
# Keeps a run going until it is complete: starts the launcher, ends it when the run has ended or gone silent, starts it
# again without the nodes that are lost, and gives up when attempts bring nothing new.
#
#   supervise.sh [--requeue] RUNDIR COMMAND [ARGUMENT...]
#
# In COMMAND, {nodes} stands for the names of the nodes that answer, {count} for their number (inside Slurm).
# --requeue: a run that stopped in time, by itself or asked by SIGUSR1, goes back into Slurm's queue if it brought something
# new, unless it has reached one of its limits.
#
# Launchers' exit codes lie: some never return, some return 0 after losing everything. Only files in RUNDIR are believed:
# COMPLETE (its first word is the outcome), ATTEMPT_END (made last by an attempt; empty on a full disk), HEARTBEAT (touched each second by
# rank 0), and new lines of the journal. Ages are measured by the file server's clock: against a file that this script
# has just touched.
#
# Exit codes: 0 all done, 3 finished with quarantined items, 4 stopped early and resumable, 1 given up, 2 wrong usage.
set -u

STALE=${GALLOP_STALE:-120}           # seconds without a heartbeat until the launcher is ended
STARTING=${GALLOP_STARTING:-900}     # the same before the first heartbeat of an attempt
GIVE_UP=${GALLOP_GIVE_UP:-3}         # attempts in a row that bring nothing new
BACK_OFF=${GALLOP_BACK_OFF:-10}      # seconds before the next attempt; doubled after each that brought nothing, at most 300
STOP_SECONDS=${GALLOP_STOP_SECONDS:-150}   # how long a stop may take after SIGUSR1; after SIGTERM 20

say() { echo "supervise: $(date -u +%Y-%m-%dT%H:%M:%SZ) $*" >&2; }
modified() { stat -c %Y "$1" 2>/dev/null || echo 0; }
nap() { sleep "$1" & wait $! 2>/dev/null; }       # a signal ends it at once

# No $(…) inside $((…)) or "…" where a signal may come: bash 5.2 loses a trap that it would have to run there.

# The other half: a step on a second node that puts the job back into the queue when this script's node is lost. Slurm
# itself lets such a job idle until its time is up, because the job survives the loss of a node (--no-kill).
if [ "${1:-}" = --watch ]; then
    run=$2
    trap 'exit 0' TERM INT
    while [ -e "$run/SUPERVISOR" ]; do
        touch "$run/WATCHER" 2>/dev/null
        here=$(modified "$run/WATCHER")
        there=$(modified "$run/SUPERVISOR")
        if [ $((here - there)) -gt "$STALE" ]; then
            say "the batch host is silent, back into the queue job=$SLURM_JOB_ID"
            scontrol requeue "$SLURM_JOB_ID"
            exit 0
        fi
        nap 5
    done
    exit 0
fi

requeue=""
if [ "${1:-}" = --requeue ]; then requeue=yes; shift; fi
if [ $# -lt 2 ]; then sed -n '2,16s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
run=$1
shift
if [ ! -d "$run" ]; then echo "supervise: $run: no such run directory" >&2; exit 2; fi

child="" watcher="" stop="" stop_at=0

# Items that are decided, by all journals.
decided() { cat "$run"/journal*.jsonl 2>/dev/null | grep -cE '"event":"(done|quarantined)"'; }

# The nodes of the allocation that answer, comma-separated. Slurm notices a loss only after minutes; asking takes seconds.
# A step that cannot start everywhere is aborted, but the living have answered by then.
living_nodes() {
    local all count
    all=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *NodeList=//p')
    case $all in "" | "(null)") all=$SLURM_JOB_NODELIST ;; esac
    count=$(scontrol show hostnames "$all" | wc -l)
    timeout 60 srun --overlap --mpi=none --no-kill --kill-on-bad-exit=0 --nodelist="$all" --nodes="$count" \
        --ntasks="$count" --ntasks-per-node=1 printenv SLURMD_NODENAME 2>/dev/null | sort -V | paste -sd,
}

watch_from() {  # NODES: the watcher runs on the last of several
    [ -n "${SLURM_JOB_ID:-}" ] || return 0
    if [ -n "$watcher" ] && kill -0 "$watcher" 2>/dev/null; then return 0; fi
    case $1 in *,*) ;; *) return 0 ;; esac
    srun --overlap --mpi=none --job-name=gallop-watch --nodelist="${1##*,}" --nodes=1 --ntasks=1 "$self" --watch "$run" &
    watcher=$!
}

end_launcher() {
    [ -n "$child" ] || return 0
    local step name
    kill -TERM "$child" 2>/dev/null
    for _ in {1..50}; do kill -0 "$child" 2>/dev/null || break; nap 0.1; done
    kill -KILL "$child" 2>/dev/null
    wait "$child" 2>/dev/null
    child=""
    [ -n "${SLURM_JOB_ID:-}" ] || return 0
    while read -r step name; do            # what an ended launcher leaves on other nodes
        case $step in *.batch | *.extern | "") continue ;; esac
        [ "$name" = gallop-watch ] || scancel --signal=KILL "$step" 2>/dev/null
    done < <(squeue --steps --noheader --jobs="$SLURM_JOB_ID" --format='%i %j' 2>/dev/null)
}

leave() {  # CODE
    [ -z "$watcher" ] || { kill -TERM "$watcher" 2>/dev/null; wait "$watcher" 2>/dev/null; }
    rm -f "$run/SUPERVISOR" "$run/WATCHER"
    exit "$1"
}

leave_complete() {
    local outcome=""
    read -r outcome _ <"$run/COMPLETE"
    case $outcome in quarantined) leave 3 ;; *) leave 0 ;; esac
}

# shellcheck disable=SC2317  # traps call it
asked() {  # SIGNAL SECONDS: the run is told to store what it has; the first signal counts
    [ -z "$stop" ] || return 0
    stop=$1
    stop_at=$((SECONDS + $2))
    [ -z "$child" ] || kill -USR1 "$child" 2>/dev/null
}
self=$(readlink -f "$0")
trap 'asked USR1 "$STOP_SECONDS"' USR1
trap 'asked TERM 20' TERM INT

if [ -e "$run/COMPLETE" ]; then say "complete already"; leave_complete; fi
first=$(decided)
before=$first fruitless=0 pause=$BACK_OFF attempt=0 outcome=""
while [ -z "$stop" ]; do
    attempt=$((attempt + 1))
    rm -f "$run/ATTEMPT_END"
    if ! touch "$run/SUPERVISOR"; then say "$run cannot be written"; leave 1; fi
    last_beat=$(stat -c %y "$run/HEARTBEAT" 2>/dev/null)      # of an earlier attempt, if any
    nodes=""
    if [ -n "${SLURM_JOB_ID:-}" ]; then nodes=$(living_nodes); fi
    count=$(tr ',' '\n' <<<"$nodes" | grep -c .)
    command=()
    for word in "$@"; do word=${word//\{nodes\}/$nodes}; command+=("${word//\{count\}/$count}"); done
    watch_from "$nodes"
    say "attempt $attempt${nodes:+ on $nodes}: ${command[*]}"
    "${command[@]}" &
    child=$!
    started=$(modified "$run/SUPERVISOR")
    [ -z "$stop" ] || kill -USR1 "$child" 2>/dev/null     # asked while it was being started
    why="the launcher ended"
    while kill -0 "$child" 2>/dev/null; do
        touch "$run/SUPERVISOR" 2>/dev/null
        watch_from "$nodes"
        if [ -e "$run/ATTEMPT_END" ]; then why="the attempt ended"; nap 1; break; fi
        stamp=$(stat -c %y "$run/HEARTBEAT" 2>/dev/null)      # first: what beats since makes `beat` younger, never older
        here=$(modified "$run/SUPERVISOR")
        beat=$(modified "$run/HEARTBEAT")
        limit=$STALE
        if [ "$stamp" = "$last_beat" ]; then beat=$started limit=$STARTING; fi
        if [ $((here - beat)) -gt "$limit" ]; then
            why="rank 0 was silent for more than $limit s"
            break
        fi
        if [ -n "$stop" ] && [ "$SECONDS" -ge "$stop_at" ]; then why="it did not stop in time"; break; fi
        nap 0.5
    done
    end_launcher
    outcome=$(head -c 200 "$run/ATTEMPT_END" 2>/dev/null | tr '\n' ' ')
    if [ -z "$outcome" ] && [ -e "$run/ATTEMPT_END" ]; then outcome=stopped; fi      # a full disk took no more than its name
    now=$(decided)
    say "attempt $attempt: $why${outcome:+ ($outcome)}; $((now - before)) more items decided, $now in all"
    [ ! -e "$run/COMPLETE" ] || leave_complete
    # The run itself ended early: the job's time is nearly up, the disk is full, or one of its limits is reached, which
    # another job would only meet again.
    case $outcome in "stopped limit"*) stop=limit ;; stopped*) stop=${stop:-run} ;; esac
    [ -z "$stop" ] || break
    if [ "$now" -gt "$before" ]; then fruitless=0 pause=$BACK_OFF; else fruitless=$((fruitless + 1)); fi
    before=$now
    if [ "$fruitless" -ge "$GIVE_UP" ]; then
        say "given up: $fruitless attempts in a row brought nothing new; see $run/logs"
        leave 1
    fi
    nap "$pause"
    [ "$fruitless" -eq 0 ] || pause=$((pause * 2 > 300 ? 300 : pause * 2))
done

case $stop in
    run) say "the run stopped by itself" ;;
    limit) say "the run has reached one of its limits; raise it (gallop plan MANIFEST --out $run --extend) or gallop retry" ;;
    *) say "stopped by SIG$stop" ;;
esac
if [ -n "$requeue" ] && [ "$stop" != TERM ] && [ "$stop" != limit ] && [ -n "${SLURM_JOB_ID:-}" ]; then
    if [ "$(decided)" -gt "$first" ]; then
        say "back into the queue job=$SLURM_JOB_ID"
        scontrol requeue "$SLURM_JOB_ID"
    else
        say "not requeued: this allocation brought nothing new (is --time long enough?)"
    fi
fi
leave 4
