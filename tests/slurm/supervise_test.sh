#!/usr/bin/env bash
# supervise.sh with launchers that lie: no Slurm, no gallop. Usage: supervise_test.sh SOURCE_TREE
# shellcheck disable=SC2016  # launchers expand their own text
set -u
supervise=$(readlink -f "$1")/slurm/supervise.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
unset SLURM_JOB_ID
export GALLOP_BACK_OFF=0 GALLOP_STALE=4 GALLOP_STARTING=4 GALLOP_STOP_SECONDS=5

fail() { echo "FAILED: $*" >&2; cat log >&2; exit 1; }
fresh() { rm -rf run; mkdir run; }
# expect CODE LAUNCHER-TEXT: supervises a launcher given as bash text, with the run directory in $1.
expect() {
    "$supervise" run bash -c "$2" launcher run 2>log
    local got=$?
    [ "$got" -eq "$1" ] || fail "exit code $got (wanted $1) for: $2"
}
attempts() { grep -c ' attempt [0-9]*: bash' log; }
line='{\"event\":\"done\",\"id\":\"x\"}'

echo "== a launcher that never returns is ended once the attempt has ended"
fresh
start=$SECONDS
expect 0 'touch $1/COMPLETE; echo complete >$1/ATTEMPT_END; sleep 1000'
[ $((SECONDS - start)) -lt 10 ] || fail "it took $((SECONDS - start)) s"
[ ! -e run/SUPERVISOR ] || fail "SUPERVISOR is left"
expect 0 'exit 1'   # nothing is started for a complete run
[ "$(attempts)" -eq 0 ] || fail "a complete run was started again"

echo "== an exit code of 0 without COMPLETE is believed by nobody"
fresh
expect 1 'exit 0'
[ "$(attempts)" -eq 3 ] || fail "$(attempts) attempts (wanted 3)"
grep -q 'given up: 3 attempts' log || fail "it does not say why it gave up"

echo "== attempts go on for as long as they bring something"
fresh
expect 0 "echo \"$line\" >>\$1/journal.jsonl; [ \$(wc -l <\$1/journal.jsonl) -lt 5 ] || touch \$1/COMPLETE; kill -9 \$\$"
[ "$(attempts)" -eq 5 ] || fail "$(attempts) attempts (wanted 5)"

echo "== lines that decide nothing are nothing new"
fresh
expect 1 'echo "{\"event\":\"attempt\"}" >>$1/journal.jsonl'
[ "$(attempts)" -eq 3 ] || fail "$(attempts) attempts (wanted 3)"

echo "== a rank 0 that falls silent is ended, before its first heartbeat and after"
fresh
GALLOP_GIVE_UP=1 expect 1 'sleep 1000'
grep -q 'rank 0 was silent' log || fail "the silence is not named"
GALLOP_GIVE_UP=1 expect 1 'sleep 1; touch $1/HEARTBEAT; sleep 1000'
grep -q 'rank 0 was silent' log || fail "the silence is not named"

echo "== one that beats is left alone"
fresh
expect 0 'for i in 1 2 3 4 5 6; do sleep 1; touch $1/HEARTBEAT; done; touch $1/COMPLETE'
[ "$(attempts)" -eq 1 ] || fail "$(attempts) attempts (wanted 1)"

echo "== quarantined items are told by the exit code"
fresh
expect 3 'echo quarantined >$1/ATTEMPT_END; echo quarantined 2026-01-02T03:04:05Z >$1/COMPLETE'
expect 3 'exit 1'   # as they are for a run that has ended already
[ "$(attempts)" -eq 0 ] || fail "a finished run was started again"

echo "== a run that stops by itself is not started again here"
fresh
expect 4 'echo stopped >$1/ATTEMPT_END; exit 4'
[ "$(attempts)" -eq 1 ] || fail "$(attempts) attempts (wanted 1)"
expect 4 ': >$1/ATTEMPT_END; exit 4'   # on a full disk
[ "$(attempts)" -eq 1 ] || fail "$(attempts) attempts (wanted 1)"

echo "== such a run goes back into the queue, but not once it has reached a limit"
fresh
mkdir bin
for tool in scontrol srun squeue scancel; do
    printf '#!/bin/sh\necho %s "$@" >>"%s/slurm.log"\n' $tool "$work" >bin/$tool
    chmod +x bin/$tool
done
queued() {  # OUTCOME: what was requeued after an attempt that ends so
    rm -f slurm.log
    echo "echo \"$line\" >>\$1/journal.jsonl; echo $1 >\$1/ATTEMPT_END; exit 4" >launcher
    PATH=$work/bin:$PATH SLURM_JOB_ID=7 SLURM_JOB_NODELIST=n1 \
        "$supervise" --requeue run bash -c "$(cat launcher)" launcher run 2>log
    [ $? -eq 4 ] || fail "no exit code 4 after $1"
    grep -c '^scontrol requeue 7' slurm.log
}
[ "$(queued stopped)" -eq 1 ] || fail "it was not requeued"
[ "$(queued 'stopped limit')" -eq 0 ] || fail "it was requeued at a limit"
grep -q 'one of its limits' log || fail "the limit is not named"

echo "== SIGUSR1 reaches the run, which ends in its own time; the exit code is 4"
fresh
stop_me='trap "sleep 1; echo stopped >$1/ATTEMPT_END; exit 4" USR1; touch $1/READY; while true; do touch $1/HEARTBEAT; sleep 0.1; done'
for signal in USR1 TERM; do
    rm -f run/READY
    "$supervise" run bash -c "$stop_me" launcher run 2>log &
    child=$!
    until [ -e run/READY ]; do sleep 0.05; done
    kill -$signal $child
    wait $child
    code=$?
    [ "$code" -eq 4 ] || fail "exit code $code after SIG$signal (wanted 4)"
    grep -q '(stopped )' log || fail "the run did not end by itself after SIG$signal"
done

echo "== a run that does not stop is ended"
fresh
GALLOP_STOP_SECONDS=1 "$supervise" run bash -c 'trap "" USR1; touch $1/READY; while true; do touch $1/HEARTBEAT; sleep 0.1; done' launcher run 2>log &
child=$!
until [ -e run/READY ]; do sleep 0.05; done
kill -USR1 $child
wait $child
[ $? -eq 4 ] || fail "no exit code 4"
grep -q 'did not stop in time' log || fail "it is not said"

echo "== wrong usage"
"$supervise" run 2>log
[ $? -eq 2 ] || fail "no exit code 2"
"$supervise" nowhere true 2>log
[ $? -eq 2 ] || fail "no exit code 2"
echo "all as it should be"
