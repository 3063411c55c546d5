#!/usr/bin/env python3
"""Kills processes of runs at random moments, lets the runs go on until they are done, and compares every byte with an
undisturbed run: the same ids, the same MP4s and latents, nothing extra, nothing half-written.

    campaign.py GALLOP SOURCE_TREE [--kills N] [--each N] [--items N] [--seed S] [--log FILE] [--modes A,B,...]

Modes, one run each in turn:
  solo     one process with two renderers        attach   three processes that share the run by leases
  mpirun   three ranks                           disk     solo or mpirun on a disk that is full now and then
  slurm    a job on three pretended nodes of a throw-away cluster: nodes crash, the job is requeued and signalled

Victims: renderers, agents, coordinators, launchers, attached processes; now and then everything at once, as when a machine
loses power. Each kill is a line of the log. disk and slurm need root; where they cannot be had they are left out, and the
log says so.
"""
import argparse, collections, json, os, random, shutil, signal, subprocess, sys, tempfile, time

from evidence import PLACE, done, events, leftovers, outputs, processes
from slurm_job import Slurm

MANIFEST = """version: 1
name: crash
model: {path: model, variant: distill}
defaults: {resolution: 64x64, steps: {base: 2}, frames: 5}
outputs: {root: run, video: {preset: ultrafast}}
schedule: {silent: 4s}
retry: {attempts: 100, other_host: false}   # what dies here does not die of its item
limits: {walltime_reserve: 20s}
slurm: {nodes: 3, time: "00:30:00", partition: batch}
items:
"""


class Campaign:
    def __init__(self, options):
        self.gallop = os.path.realpath(options.gallop)
        self.tree = os.path.realpath(options.tree)
        self.options = options
        self.random = random.Random(options.seed)
        self.work = tempfile.mkdtemp(prefix="gallop-crash-")
        self.log_file = open(options.log, "a") if options.log else None
        self.kills = collections.Counter()
        self.others = collections.Counter()
        self.start = time.time()
        self.slurm = None
        self.full_until = 0
        self.environment = dict(os.environ, XDG_CACHE_HOME=os.path.join(self.work, "cache"),
                                OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                                OMPI_MCA_btl_tcp_if_include="lo", OMPI_MCA_oob_tcp_if_include="lo")

    def say(self, text):
        line = f"{time.time() - self.start:7.1f} {text}"
        print(line, flush=True)
        if self.log_file:
            self.log_file.write(line + "\n")
            self.log_file.flush()

    def fail(self, text):
        self.say("FAILED: " + text)
        tail = os.path.join(self.work, "log")
        if os.path.exists(tail):
            with open(tail, errors="replace") as file:
                sys.stderr.write(file.read()[-4000:])
        sys.exit(f"what is left of it: {self.work}")

    def call(self, *words):
        ended = subprocess.run([self.gallop, *words], cwd=self.work, env=self.environment,
                               capture_output=True, text=True)
        if ended.returncode != 0:
            sys.stderr.write(ended.stderr[-3000:])
            self.fail(f"{' '.join(words)}: exit code {ended.returncode}")

    def prepare(self):
        self.call("make-model", os.path.join(self.tree, "configs/models/tiny.yaml"), "--out", "model", "--seed", "3")
        with open(os.path.join(self.work, "crash.yaml"), "w") as file:
            file.write(MANIFEST)
            for i in range(self.options.items):
                frames, wide = (1, 5, 9)[i % 3], (64, 96)[i % 2]
                file.write(f'  - {{name: item-{i}, prompt: "Rain on window {i}", frames: {frames}, '
                           f'resolution: {wide}x64}}\n')
        begin = time.time()
        self.call("run", "crash.yaml", "--out", "undisturbed", "--threads", "1")
        self.expected = outputs(os.path.join(self.work, "undisturbed"))
        self.seconds = time.time() - begin
        self.say(f"undisturbed items={self.options.items} files={len(self.expected)} seconds={self.seconds:.1f}")

    # What is done to a run.

    def check(self, run):
        """No file has its name before it is whole, and none is another than the undisturbed run's."""
        for path, digest in outputs(run).items():
            if not path.endswith(".tmp") and self.expected.get(path) != digest:
                self.fail(f"{path} is not what the undisturbed run made")

    def told(self, what, mode, run):
        self.say(f"{what} {mode} done={len(done(run))}/{self.options.items}")
        self.check(run)

    def kill(self, pid, kind, mode, run):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return 0
        self.kills[kind] += 1
        self.told(f"kill={sum(self.kills.values())} {kind}", mode, run)
        return 1

    def kill_some(self, living, mode, run):
        """One process, of any kind as likely as of another; now and then all. How many were killed."""
        if self.random.random() < 0.1:
            return sum(self.kill(pid, kind, mode + " all", run) for pid, kind in living.items())
        kind = self.random.choice(sorted(set(living.values())))
        victim = self.random.choice(sorted(pid for pid, one in living.items() if one == kind))
        return self.kill(victim, kind, mode, run)

    def other(self, what, mode, run):
        self.others[what] += 1
        self.told(what.replace(" ", "-"), mode, run)

    def fill_disk(self, run):
        """Until not a byte is left, for a while."""
        with open(os.path.join(self.work, "disk", "fill"), "wb") as file:
            try:
                while True:
                    os.write(file.fileno(), bytes(1 << 16))
            except OSError:
                pass
        self.full_until = time.time() + self.random.uniform(1, 4)
        self.other("disk full", "disk", run)

    def empty_disk(self):
        self.full_until = 0
        os.remove(os.path.join(self.work, "disk", "fill"))

    def end_all(self, mark):
        for _ in range(200):
            living = processes(mark)
            if not living:
                return
            for pid in living:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.05)
        self.fail("processes do not end")

    # One start of a run, as a person would do it, watched and shot at. Each returns how many kills are left.

    def launch(self, mode, run, mark):
        if mode == "disk":
            mode = self.random.choice(("solo", "mpirun"))
        commands = {"solo": [["run", "crash.yaml", "--out", run, "--slots", "2", "--threads", "1"]],
                    "mpirun": [["launch", "-n", "3", "run", "crash.yaml", "--out", run, "--threads", "1"]],
                    "attach": [["run", "--attach", run, "--threads", "1"]] * 3}[mode]
        with open(os.path.join(self.work, "log"), "a") as log:
            return [subprocess.Popen([self.gallop, *words], cwd=self.work, stdout=log, stderr=log,
                                     env=dict(self.environment, **{PLACE: mark}), start_new_session=True)
                    for words in commands]

    def attempt(self, mode, run, mark, left):
        started = self.launch(mode, run, mark)
        begin = time.time()
        next_kill = begin + self.random.uniform(0.2, 0.6 * self.seconds)
        headless = None
        while any(one.poll() is None for one in started):
            now = time.time()
            if now - begin > 600:
                self.fail(f"{mode}: not done in 600 s")
            if os.path.exists(os.path.join(run, "COMPLETE")) and os.path.exists(os.path.join(run, "ATTEMPT_END")):
                # mpirun may never return after a death; a supervisor gives it a while and ends it.
                if now - os.path.getmtime(os.path.join(run, "ATTEMPT_END")) > 5:
                    break
            living = processes(mark)
            if any(kind in ("coordinator", "attached") for kind in living.values()):
                headless = None
            elif headless is None:
                headless = now
            elif now - headless > 3:
                break  # nobody leads any more: a supervisor would end the launcher and start again
            heart = os.path.join(run, "HEARTBEAT")
            if now - max(begin, os.path.getmtime(heart) if os.path.exists(heart) else 0) > 30:
                break  # likewise when it was silent for too long: ranks may wait for one that died while MPI began
            if self.full_until and now > self.full_until:
                self.empty_disk()
            if left > 0 and living and now > next_kill:
                next_kill = now + self.random.uniform(0.05, 0.2 * self.seconds)
                if mode == "disk" and not self.full_until and self.random.random() < 0.5:
                    self.fill_disk(run)
                else:
                    left -= self.kill_some(living, mode, run)
            time.sleep(0.05)
        if self.full_until:
            self.empty_disk()
        self.end_all(mark)
        for one in started:
            one.wait()
        return left

    def job(self, run, mark, left):
        job = self.slurm.submit(self.gallop, run, mark, PLACE, self.work)
        begin = time.time()
        next_kill = begin + self.random.uniform(2, 4)
        while not self.slurm.is_over(job):
            now = time.time()
            if now - begin > 900:
                self.fail(f"slurm: job {job} is not done in 900 s")
            living = processes(mark)
            if left > 0 and now > next_kill and living:
                next_kill = now + self.random.uniform(0.2, 0.4 * self.seconds)
                chance = self.random.random()
                if chance < 0.08 and self.slurm.crash(job):
                    self.other("node crash", "slurm", run)
                elif chance < 0.14 and self.slurm.requeue(job):
                    self.other("requeue", "slurm", run)
                elif chance < 0.20 and self.slurm.warn(job):
                    self.other("end announced", "slurm", run)
                else:
                    left -= self.kill_some(living, "slurm", run)
            time.sleep(0.2)
        self.slurm.repair()
        self.end_all(mark)
        return left

    def round(self, number, mode, left):
        run = os.path.join(self.work, *(("disk", "run") if mode == "disk" else (f"run-{number}",)))
        if mode == "attach":  # a lease lives for 6 s
            self.call("plan", "crash.yaml", "--out", run, "--set", "schedule.silent=1.5s")
        elif mode == "slurm":
            self.call("plan", "crash.yaml", "--out", run)
        attempts = 0
        while not os.path.exists(os.path.join(run, "COMPLETE")):
            attempts += 1
            if attempts > 50:
                self.fail("not done after 50 attempts")
            mark = f"{os.getpid()}-{number}"
            left = self.job(run, mark, left) if mode == "slurm" else self.attempt(mode, run, mark, left)
        # What was killed after the last clip is swept by whoever comes next.
        self.call("run", "crash.yaml", "--out", run, "--threads", "1")
        found = outputs(run)
        if found != self.expected:
            self.fail(f"round {number}: missing {sorted(set(self.expected) - set(found))[:3]}, extra "
                      f"{sorted(set(found) - set(self.expected))[:3]}, or other bytes")
        if leftovers(run):
            self.fail(f"round {number}: left over: {leftovers(run)[:3]}")
        with open(os.path.join(run, "index.jsonl")) as file:
            rows = [json.loads(line)["id"] for line in file]
        if len(rows) != len(set(rows)) or len(rows) != self.options.items:
            self.fail(f"round {number}: {len(rows)} rows in index.jsonl, {len(set(rows))} of them distinct")
        finished = collections.Counter(event["id"] for event in events(run)
                                       if event.get("event") == "done" and not event.get("adopted"))
        twice = sum(count - 1 for count in finished.values())
        if twice and mode != "attach":
            self.fail(f"round {number}: {twice} finished clips were rendered again")
        self.say(f"round={number} {mode} attempts={attempts} files={len(found)} same=yes leftovers=0 twice={twice}")
        shutil.rmtree(run)

    # The whole.

    def modes(self):
        """Those that this machine can do; a disk and a cluster are made."""
        modes = self.options.modes.split(",")
        if "disk" in modes:
            disk = os.path.join(self.work, "disk")
            os.mkdir(disk)
            if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk],
                              capture_output=True).returncode != 0:
                self.say("SKIPPED: disk (mounting needs root)")
                modes.remove("disk")
        if "slurm" in modes:
            if Slurm.is_possible():
                self.slurm = Slurm(self.tree, self.work, self.environment)
            else:
                self.say("SKIPPED: slurm (needs root and Slurm)")
                modes.remove("slurm")
        return modes

    def run(self):
        options = self.options
        self.say(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} campaign.py --kills {options.kills} --each "
                 f"{options.each} --items {options.items} --seed {options.seed} --modes {options.modes}")
        try:
            modes = self.modes()
            self.prepare()
            number = 0
            while sum(self.kills.values()) < self.options.kills or number < len(modes):
                self.round(number, modes[number % len(modes)], self.options.each)
                number += 1
        finally:
            if self.slurm:
                self.slurm.stop()
            subprocess.run(["umount", "-l", os.path.join(self.work, "disk")], capture_output=True)
        by_kind = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kills.items()))
        by_other = "".join(f", {kind} {count}" for kind, count in sorted(self.others.items()))
        self.say(f"passed: {sum(self.kills.values())} kills ({by_kind}){by_other}, in {number} runs; all bytes as "
                 "undisturbed, nothing extra, nothing left over")
        shutil.rmtree(self.work)


parser = argparse.ArgumentParser()
parser.add_argument("gallop")
parser.add_argument("tree")
parser.add_argument("--kills", type=int, default=12)
parser.add_argument("--each", type=int, default=6, help="kills a run")
parser.add_argument("--items", type=int, default=12)
parser.add_argument("--seed", type=int, default=int(time.time()))
parser.add_argument("--modes", default="solo,mpirun,attach")
parser.add_argument("--log")
Campaign(parser.parse_args()).run()
