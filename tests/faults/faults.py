#!/usr/bin/env python3
"""Breaks the disk under a run at every kind of write: lock, plan, journal, clips, latents, status, index, marks. Nothing
may be lost: the run stops with exit code 4 (or heals itself, where only one call failed), every clip that the journal
calls done is whole, and the same command on a healed disk ends with the bytes of an undisturbed run.

    faults.py GALLOP SOURCE_TREE SHIM [--all] [--log FILE]

SHIM is the compiled fault_shim.c. Without --all each kind of write breaks once; with it, first, middle and last ones, by
each errno, once and for good. Where one may mount (root), it ends with a file system that is too small.
"""
import argparse, collections, hashlib, json, os, re, shutil, signal, subprocess, sys, tempfile, time

MANIFEST = """version: 1
name: faults
model: {path: model, variant: distill}
defaults: {resolution: 64x64, steps: {base: 1}, frames: 1}
outputs: {video: {preset: ultrafast}}
retry: {attempts: 5}
items:
  - {name: one, prompt: "Rain"}
  - {name: two, prompt: "Snow", frames: 5}
"""
ERRNOS = ("ENOSPC", "EIO", "EDQUOT", "EROFS")


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def outputs(run):
    return {os.path.relpath(os.path.join(folder, name), run): sha256(os.path.join(folder, name))
            for part in ("clips", "latents") for folder, _, names in os.walk(os.path.join(run, part))
            for name in names}


def kind_of(call, path):
    """What is written: ids, process numbers and temporary names taken out."""
    path = re.sub(r"[0-9a-f]{32}", "ID", path)
    path = re.sub(r"\b[0-9a-f]{2}\b", "ab", path)
    path = re.sub(r"\.\d+\.\d+\.tmp$", ".tmp", path)
    return call, path


class Faults:
    def __init__(self, options):
        self.options = options
        self.gallop = os.path.realpath(options.gallop)
        self.shim = os.path.realpath(options.shim)
        self.work = os.path.realpath(tempfile.mkdtemp(prefix="gallop-faults-"))
        self.environment = dict(os.environ, XDG_CACHE_HOME=os.path.join(self.work, "cache"))
        self.log_file = open(options.log, "a") if options.log else None
        self.results = collections.Counter()

    def say(self, text):
        print(text, flush=True)
        if self.log_file:
            self.log_file.write(text + "\n")
            self.log_file.flush()

    def fail(self, text, said=""):
        self.say("FAILED: " + text)
        sys.stderr.write(said[-3000:] + "\n")
        sys.exit(f"what is left of it: {self.work}")

    def call(self, *words, **variables):
        return subprocess.run([self.gallop, *words], cwd=self.work, env=dict(self.environment, **variables),
                              capture_output=True, text=True, timeout=300)

    def run_in(self, run, **variables):
        return self.call("run", "faults.yaml", "--out", run, "--threads", "1", **variables)

    def prepare(self):
        made = self.call("make-model", os.path.join(os.path.realpath(self.options.tree), "configs/models/tiny.yaml"), "--out", "model",
                         "--seed", "3")
        if made.returncode != 0:
            self.fail("make-model", made.stderr)
        with open(os.path.join(self.work, "faults.yaml"), "w") as file:
            file.write(MANIFEST)
        done = self.run_in("undisturbed")
        if done.returncode != 0:
            self.fail("the undisturbed run", done.stderr)
        self.expected = outputs(os.path.join(self.work, "undisturbed"))

    def variables(self, run, **more):
        return {"LD_PRELOAD": self.shim, "FAULT_BELOW": run, "FAULT_STATE": os.path.join(self.work, "state"), **more}

    def points(self):
        """Every counted call of a run, by kind: [(number, call, path)]."""
        run = os.path.join(self.work, "counted")
        log = os.path.join(self.work, "calls")
        done = self.run_in(run, **self.variables(run, FAULT_LOG=log))
        if done.returncode != 0 or outputs(run) != self.expected:
            self.fail("a run under the shim that breaks nothing", done.stderr)
        kinds = collections.OrderedDict()
        with open(log) as file:
            for line in file:
                number, call, path = line.split()[:3]
                kinds.setdefault(kind_of(call, path), []).append(int(number))
        return kinds

    def check(self, run, what, done):
        """After a fault: what the journal calls done is whole, and what has a name is what it should be."""
        for path, digest in outputs(run).items():
            if not path.endswith(".tmp") and self.expected.get(path) != digest:
                self.fail(f"{what}: {path} is not whole", done.stderr)
        journal = os.path.join(run, "journal.jsonl")
        for line in open(journal, "rb") if os.path.exists(journal) else ():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event.get("event") == "done" and sha256(os.path.join(run, event["clip"]["path"])) != \
                    event["clip"]["sha256"]:
                self.fail(f"{what}: the journal calls a damaged clip done", done.stderr)

    def heal(self, run, what):
        done = self.run_in(run)
        left = [name for _, _, names in os.walk(run) for name in names if name.endswith(".tmp")]
        if done.returncode != 0 or outputs(run) != self.expected or left:
            self.fail(f"{what}: resumed with exit code {done.returncode}, left over {left}", done.stderr)

    def try_point(self, number, kind, errno, for_good):
        run = os.path.join(self.work, "run")
        shutil.rmtree(run, ignore_errors=True)
        for name in ("state",):
            if os.path.exists(os.path.join(self.work, name)):
                os.remove(os.path.join(self.work, name))
        what = f"{errno} {'for good' if for_good else 'once'} at {number}: {kind[0]} {kind[1]}"
        done = self.run_in(run, **self.variables(run, FAULT_AT=str(number), FAULT_ERRNO=errno,
                                                 FAULT_LAST="-1" if for_good else str(number)))
        allowed = (0, 4)
        if done.returncode not in allowed:
            self.fail(f"{what}: exit code {done.returncode} (wanted one of {allowed})", done.stderr)
        if done.returncode == 0 and outputs(run) != self.expected:
            self.fail(f"{what}: exit code 0, but clips are missing", done.stderr)
        if os.path.isdir(run):
            self.check(run, what, done)
        self.heal(run, what)
        self.results[done.returncode] += 1
        self.say(f"{what}: exit {done.returncode}, resumed to the same bytes")

    def run_until_stuck(self, run):
        """A run that waits for room on the disk is told to stop after a while."""
        with open(os.path.join(self.work, "log"), "w+") as log:
            child = subprocess.Popen([self.gallop, "run", "faults.yaml", "--out", run, "--threads", "1"], cwd=self.work,
                                     env=self.environment, stdout=log, stderr=log)
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGTERM)
                child.wait(60)
            log.seek(0)
            return subprocess.CompletedProcess(child.args, child.returncode, stderr=log.read())

    def small_disk(self):
        """A file system that is too small for the run, made larger until it fits."""
        place = os.path.join(self.work, "small")
        os.mkdir(place)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True).returncode:
            self.say("SKIPPED: a file system that is too small (mounting needs root)")
            return
        try:
            run = os.path.join(place, "run")
            stops = 0
            for kilobytes in (64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 8192):
                subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", place], check=True)
                done = self.run_until_stuck(run)
                if os.path.isdir(run):
                    self.check(run, f"{kilobytes} KB", done)
                if done.returncode == 0:
                    break
                if done.returncode != 4:
                    self.fail(f"{kilobytes} KB: exit code {done.returncode} (wanted 4)", done.stderr)
                stops += 1
            if done.returncode != 0 or not stops or outputs(run) != self.expected:
                self.fail(f"a disk that grows: exit code {done.returncode} after {stops} stops", done.stderr)
            self.say(f"a full disk that grows: stopped {stops} times with exit 4, done at {kilobytes} KB, same bytes")
        finally:
            subprocess.run(["umount", "-l", place])

    def run(self):
        begin = time.time()
        self.prepare()
        kinds = self.points()
        self.say(f"{sum(map(len, kinds.values()))} calls of {len(kinds)} kinds")
        turn = 0
        for kind, numbers in kinds.items():
            if self.options.all:
                for number in sorted({numbers[0], numbers[len(numbers) // 2], numbers[-1]}):
                    for errno in ERRNOS:
                        self.try_point(number, kind, errno, False)
                        self.try_point(number, kind, errno, True)
            elif turn % self.options.every == 0:
                self.try_point(numbers[0], kind, ERRNOS[turn % 4], turn // self.options.every % 2 != 0)
            turn += 1
        self.small_disk()
        self.say(f"passed: {sum(self.results.values())} faults ({self.results[4]} stops with exit 4, "
                 f"{self.results[0]} healed by themselves) in {time.time() - begin:.0f} s")
        shutil.rmtree(self.work)


parser = argparse.ArgumentParser()
parser.add_argument("gallop")
parser.add_argument("tree")
parser.add_argument("shim")
parser.add_argument("--all", action="store_true")
parser.add_argument("--every", type=int, default=1, help="without --all: only each so many kinds")
parser.add_argument("--log")
Faults(parser.parse_args()).run()
