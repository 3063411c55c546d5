#!/usr/bin/env python3
"""Runs every measurement of tests/gpu as a process of its own, each under a limit, all under one; then
writes the side-by-side table. Called by run.sh; see README.md.

The parts run in the order of their worth. One that fails, or for which too little time is left, is a line in the
table, never the end of it; each has a budget, after which it is killed, and what it has told by then counts. The JSON
is written anew after each part. --merge takes the JSON of an earlier call into the table and goes on where it ended;
RUN_PARTS names the groups that are wanted.
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# Counted from the networks' shapes, as reference: TFLOP of one forward (five seconds, 400 tokens of text).
TFLOP = {"256p": 104, "540p": 506, "1080p": 3838}
STEPS = {"256p": 8, "540p": 5, "1080p": 5, "tiny": 2}
# What others have published for one H100, prompt to MP4; not measured here.
PUBLISHED_CLIP = {"256p": 2.0, "540p": 8.0, "1080p": 38.4}
PUBLISHED_DECODE = {"256p": 0.4, "540p": 1.3, "1080p": 5.8}
# Seconds that the tensor cores need at the best rates known (798 TFLOP/s products, 740 attention; in fp8 1979
# for products).
FLOOR_STEP = {"bf16": {"256p": 1.05 / 8, "540p": 3.26 / 5, "1080p": 25.23 / 5},
              "fp8": {"256p": 0.51 / 8, "540p": 2.04 / 5, "1080p": 19.86 / 5}}
FLOOR_DECODE = {"256p": 0.08, "540p": 0.33, "1080p": 1.49}
# What this engine is to reach, seconds; and of a forward in bf16, the share of PEAK and the lead over PyTorch.
TARGET_CLIP = {"bf16": {"256p": 1.45, "540p": 5.7, "1080p": 32.5}, "fp8": {"256p": 1.05, "540p": 4.3, "1080p": 27.5}}
TARGET_DECODE = {"256p": 0.15, "540p": 0.6, "1080p": 2.7}
TARGET_SHARE, TARGET_LEAD = 67, 1.2
PEAK = 990  # TFLOP/s of dense bf16, H100 SXM, by its data sheet
MEMORY = 80e9  # bytes that all models of a clip must fit
BF16 = ("eager", "compiled", "padded")  # PyTorch's variants
# What may slow a GPU's clock, by the bits of clocks_event_reasons.active.
REASONS = {0x4: "power cap", 0x8: "hardware slowdown", 0x20: "heat", 0x40: "heat", 0x80: "power brake"}
# What was foretold before anything was measured: text, how to find the outcome, range.
PREDICTIONS = [
    ("products at K = 13652 run at 45–65 % of K = 13696 (PyTorch)", "product down / product down padded", 0.45, 0.65),
    ("our products at K = 13652, likewise", "linear down / linear down padded", 0.45, 0.65),
    ("cuDNN's attention at 14,862 tokens, TFLOP/s", "torch attention 14862", 640, 700),
    ("cuDNN's attention at 65,806 tokens, TFLOP/s", "torch attention 65806", 640, 700),
    ("cuDNN's attention at 4,110 tokens, TFLOP/s", "torch attention 4110", 600, 660),
    ("fp8 product at N = 27392, 14,862 tokens, TFLOP/s", "torch product fp8 up padded 14862", 1200, 1400),
    ("the same by us, rows quantised on the way", "ours linear fp8 up padded 14862", 1000, 1300),
    ("conv3d of 128 channels, share of 798 TFLOP/s", "torch conv3d 128 channels / 798", 0.45, 0.65),
    ("conv3d of 64 channels, share of 798 TFLOP/s", "torch conv3d 64 channels / 798", 0.30, 0.50),
    ("PyTorch eager, a step at 256p, ms", "step torch eager 256p", 190, 230),
    ("PyTorch at its best, a step at 256p, ms", "step torch best 256p", 150, 170),
    ("ours bf16, a step at 256p, ms", "step ours bf16 256p", 145, 150),
    ("ours fp8, a step at 256p, ms", "step ours fp8 256p", 90, 100),
]


def ask(*command):
    """What a command says; nothing where it fails, hangs or is not there."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


class Clocks:
    """The GPU's clock, power and heat, twice a second, while parts run."""

    def __init__(self):
        self.samples = []  # time, MHz, W, °C, reasons
        self.process = None
        for reasons in ("clocks_event_reasons.active", "clocks_throttle_reasons.active"):
            command = ["nvidia-smi", f"--query-gpu=clocks.sm,power.draw,temperature.gpu,{reasons}",
                       "--format=csv,noheader,nounits", "--id=0"]
            if self.parsed(ask(*command)):
                self.process = subprocess.Popen([*command, "-lms", "500"], stdout=subprocess.PIPE, text=True,
                                                stderr=subprocess.DEVNULL)
                threading.Thread(target=self.read, daemon=True).start()
                return

    @staticmethod
    def parsed(line):
        try:
            clock, power, heat, reasons = line.split(",")
            return float(clock), float(power), float(heat), int(reasons, 16)
        except ValueError:
            return None

    def read(self):
        for line in self.process.stdout:
            if sample := self.parsed(line):
                self.samples.append((time.monotonic(), *sample))

    def during(self, begin, end):
        """Medians while the GPU was busy: with 70 % of the greatest power or more."""
        there = [s for s in list(self.samples) if begin <= s[0] <= end]
        busy = [s for s in there if s[2] >= 0.7 * max(t[2] for t in there)]
        if not busy:
            return None
        slowed = {word for bit, word in REASONS.items() if any(s[4] & bit for s in busy)}
        return dict(mhz=statistics.median(s[1] for s in busy), watt=statistics.median(s[2] for s in busy),
                    celsius=max(s[3] for s in busy), slowed=sorted(slowed))

    def stop(self):
        if self.process:
            self.process.kill()


class Run:
    def __init__(self, options):
        self.o = options
        self.begin = time.monotonic()
        self.parts = []
        self.facts = {}
        self.file = None  # where all of it is kept as JSON
        self.environment = dict(os.environ)
        self.clocks = Clocks() if options.device == "cuda" else None

    def left(self):
        return self.o.total - (time.monotonic() - self.begin)

    def part(self, name, limit, command, **about):
        """Runs a command in a process group of its own. Keeps its last JSON, and why there is no other."""
        made = dict(name=name, command=" ".join(map(str, command)), **about)
        self.parts.append(made)
        least = limit / 2
        if self.o.device == "cpu":  # a crowded machine; there the limits are not the point
            limit, least = limit * 6, 8
        allowed = min(limit, self.left() - 12)
        if allowed < least:
            made["failed"] = f"not run: {max(self.left(), 0):.0f} s were left of {self.o.total}"
            return self.say(made)
        begin = time.monotonic()
        try:
            process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                       env=self.environment, cwd=ROOT, start_new_session=True)
        except OSError as error:
            made["failed"] = f"not run: {error}"
            return self.say(made)
        out = err = ""
        try:
            out, err = process.communicate(timeout=allowed)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            made["failed"] = f"was not done after {allowed:.0f} s"
            try:
                out, err = process.communicate(timeout=8)
            except subprocess.TimeoutExpired as held:  # by the driver: it goes when that lets go
                out, err = ((text or b"").decode(errors="replace") if not isinstance(text, str) else text
                            for text in (held.stdout, held.stderr))
        end = time.monotonic()
        made["wall"] = round(end - begin, 2)
        made["status"] = process.returncode
        if self.clocks and (busy := self.clocks.during(begin, end)):
            made["clocks"] = busy
        if self.o.logs:
            name_of_log = re.sub(r"[^A-Za-z0-9.]+", "-", name) + ".log"
            (self.o.logs / name_of_log).write_text(f"$ {made['command']}\n{out}\n{err}")
        for line in reversed(out.splitlines()):
            try:
                made["result"] = json.loads(line)
                break
            except ValueError:
                continue
        if about.get("kind") == "tests":
            made |= tests_of(out)
        elif "result" not in made:
            made["output"] = out[-2000:]
        lines = [line for line in err.splitlines() if line.strip()]
        if warnings := [line[:300] for line in lines if re.search(r"\bwarning\b|cudnn", line, re.I)][:8]:
            made["warnings"] = warnings
        if "failed" not in made and process.returncode != 0:
            made["failed"] = f"status {process.returncode}: {(lines or ['no text'])[-1][:300]}"
        return self.say(made)

    def say(self, part):
        spent = f"{part.get('wall', 0):.1f} s"
        print(f"[{time.monotonic() - self.begin:5.0f} s] {part['name']}: {part.get('failed', 'done')} ({spent})"
              f"{headline(part)}", file=sys.stderr, flush=True)
        self.save()
        return part

    def save(self):
        if self.file:
            self.file.write_text(json.dumps(dict(facts=self.facts, date=self.o.date, parts=self.parts), indent=1) + "\n")

    def seconds(self, variant=None, **wanted):
        """All seconds of the parts of that kind, in order. Parts that measured several variants have them by name."""
        found = []
        for part in self.parts:
            if not all(part.get(k) == v for k, v in wanted.items()):
                continue
            seconds = (part.get("result") or {}).get("seconds") or []
            if isinstance(seconds, dict):
                found += seconds.get(variant, [])
            elif variant is None or part.get("variant") == variant:
                found += seconds
        return found

    def asked(self, variant, **wanted):
        """Whether a part was to measure it."""
        return any(all(p.get(k) == v for k, v in wanted.items()) and variant in p.get("variants", [p.get("variant")])
                   for p in self.parts)

    def rows(self, side):
        for part in self.parts:
            if part.get("kind") == "rows" and part.get("side") == side:
                yield from (part.get("result") or {}).get("rows", [])


def headline(part):
    """What a part found, in a few words."""
    result, words = part.get("result") or {}, []
    if isinstance(seconds := result.get("seconds"), dict):
        words += [f"{name} {ms(s)[0]} ms" for name, s in seconds.items()]
    elif isinstance(seconds, list) and seconds:
        words.append(f"{ms(seconds)[0]} ms")
    if rows := result.get("rows"):
        words.append(f"{len(rows)} rows")
    if "passed" in part:
        words.append(f"{part['passed']} tests passed")
    words += part.get("failed_tests", [])[:5]
    return f": {', '.join(words)}" if words else ""


def tests_of(out):
    """What GoogleTest has told, even where it was killed."""
    made = dict(passed=len(re.findall(r"^\[ {7}OK \]", out, re.M)),
                failed_tests=list(dict.fromkeys(re.findall(r"^\[  FAILED  \] ([^ ,(]*[^ ,(\d][^ ,(]*)", out, re.M))),
                skipped=len(re.findall(r"^\[  SKIPPED \] .* ms\)", out, re.M)))
    begun = re.findall(r"^\[ RUN {6}\] (\S+)", out, re.M)
    if begun and not re.search(rf"^\[.{{10}}\] {re.escape(begun[-1])} \(", out, re.M):
        made["died_in"] = begun[-1]
    if made["failed_tests"] or "died_in" in made:
        made["output"] = out[-6000:]
    return made


def machine(run):
    """Versions, clocks and the like, whatever of it can be had."""
    facts = {}
    what = "name,driver_version,memory.total,clocks.max.sm,clocks.sm,power.limit,temperature.gpu"
    if run.o.device == "cuda":
        facts["nvidia-smi"] = ask("nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader") or "not there"
    facts["host"] = f"{os.cpu_count()} processors"
    facts["commit"] = os.environ.get("GPU_RUN_COMMIT") or "not known"
    ours = run.part("versions of Gallop's libraries", ABOUT, run.ours("about"), kind="about")
    facts["Gallop computes with"] = (ours.get("result") or {}).get("made_of", ours.get("failed", "?"))
    torch = run.part("versions of PyTorch", ABOUT, run.torch("about"), kind="about")
    facts |= {k: v for k, v in (torch.get("result") or {}).items() if k in (
        "torch", "cuda", "cudnn", "device", "memory_bytes", "multiprocessors", "capability")}
    if "device" not in facts and "result" in ours:
        facts["device"] = facts["Gallop computes with"].split(",")[0]
    return facts


def plan(run, tiny):
    """Every part, the one of most worth first: its group, its name, its budget in seconds, its command, what it is
    about."""
    first, sizes = ("tiny", ["tiny"]) if tiny else ("256p", ["256p", "540p", "1080p"])
    large = sizes[1:]
    repeats = {"256p": 5, "540p": 3, "1080p": 2, "tiny": 2}
    parts = []

    def add(group, name, budget, command, **about):
        parts.append((group, name, budget, command, about))

    def ours(case, precision, budget, group="forward", turn=""):
        if precision in run.o.precisions:
            add(group, f"ours {precision} {case}{turn}", budget,
                run.ours("forward", "--case", case, "--precision", precision, "--repeats", repeats[case]),
                kind="forward", side="ours", case=case, variant=precision)

    def torch(case, variants, budget, group="forward", turn=""):
        variants = [v for v in variants if v in run.o.variants]
        if variants:
            add(group, f"torch {','.join(variants)} {case}{turn}", budget,
                run.torch("forward", "--case", case, "--variant", ",".join(variants), "--repeats", repeats[case]),
                kind="forward", side="torch", case=case, variants=variants)

    def clips(case, precision, budget):
        if precision in run.o.precisions:
            add("clips", f"ours clips {precision} {case}", budget,
                run.ours("clip", "--case", case, "--precision", precision, "--repeats", 3 if case == first else 1),
                kind="clip", side="ours", case=case, variant=precision)

    def tests(what, budget, chosen):
        if run.o.tests:  # a fault that is provoked would be noted by the machine's keepers
            add("agreement", f"agreement: {what}", budget,
                [run.o.tests, f"--gtest_filter={chosen}:*/cpu:Gpu.AKernelsFaultIsALostDevice"], kind="tests")

    # Is it right, how fast is it at the first size beside PyTorch, how long does a clip take.
    add("agreement", "agreement: golden files", 40, run.ours("golden", "--folder", ROOT / "tests/golden"), kind="golden")
    ours(first, "bf16", 25)
    torch(first, ["eager", "padded"], 100)
    clips(first, "bf16", 40)
    tests("ops", 60, "*-On/*")
    # The larger sizes.
    for case, forward, beside in zip(large, (30, 50), (120, 180)):
        ours(case, "bf16", forward)
        torch(case, ["eager", "padded"], beside)
    for case, budget in zip(large, (50, 120)):
        clips(case, "bf16", budget)
    for case, seconds in zip(sizes, (20, 25, 40)):
        add("decode", f"ours decode {case}", seconds, run.ours("decode", "--case", case, "--repeats", 2),
            kind="decode", side="ours", case=case)
    for case, seconds in zip(sizes, (25, 30, 50)):
        ours(case, "fp8", seconds)
    tests("networks", 60, "On/Networks.*-")
    tests("pipelines", 90, "On/Pipelines.*-")
    add("ceilings", "our ops alone", 60, run.ours("ops", "--case", first), kind="rows", side="ours")
    add("ceilings", "ceilings of PyTorch", 75, run.torch("ceilings", "--case", first), kind="rows", side="torch")
    for case, seconds in zip(sizes, (90, 90, 120)):
        add("decode", f"torch decode {case}", seconds,
            run.torch("decode", "--case", case, "--variant", "eager,compiled" if case != "1080p" else "eager",
                      "--repeats", 1), kind="decode", side="torch", case=case, variants=["eager", "compiled"])
    for case, seconds in zip(sizes, (40, 50, 100)):
        clips(case, "fp8", seconds)
    add("clips", "ours text encoder", 30, run.ours("text", "--case", first, "--repeats", 5), kind="text", side="ours",
        case=first)
    # PyTorch's fp8, each size compiled anew; without padding; with golden weights.
    for case, seconds in zip(sizes, (90, 120, 180)):
        torch(case, ["fp8"], seconds, group="torch")
    torch(first, ["compiled"], 90, group="torch")
    add("agreement", "agreement: PyTorch's networks", 40, run.torch("golden", "--folder", ROOT / "tests/golden"),
        kind="torch golden")
    # The same again in the other order, so that drift shows.
    torch(first, ["eager"], 40, group="again", turn=" again")
    for precision in run.o.precisions:
        ours(first, precision, 25, group="again", turn=" again")
    for case, seconds in zip(large, (40, 70)):
        torch(case, ["eager"], seconds, group="again", turn=" again")
        ours(case, "bf16", seconds, group="again", turn=" again")
    groups = list(dict.fromkeys(p[0] for p in parts))
    if unknown := [w for w in run.o.parts if w not in groups]:
        sys.exit(f"report.py: RUN_PARTS names {', '.join(unknown)} (groups: {', '.join(groups)})")
    return [p for p in parts if not run.o.parts or p[0] in run.o.parts]


ABOUT = 60  # seconds that versions may take: a first import of PyTorch reads gigabytes


def best_variant(run, case):
    """The fastest of PyTorch's bf16 variants."""
    found = {v: statistics.median(s) for v in BF16
             if (s := run.seconds(kind="forward", side="torch", case=case, variant=v))}
    return min(found, key=found.get) if found else None


def ms(seconds):
    if not seconds:
        return "–", "–"
    spread = f"{1e3 * min(seconds):.1f} … {1e3 * max(seconds):.1f}"
    return f"{1e3 * statistics.median(seconds):.1f}", f"{spread} ({len(seconds)})"


def table(rows):
    widths = len(rows[0])
    lines = ["| " + " | ".join(rows[0]) + " |", "| --- |" + " ---: |" * (widths - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows[1:]]


def outcome_of(run, key):
    """The number that a prediction was about, or nothing."""
    def rate(side, op, tokens=None):
        for row in run.rows(side):
            if row.get("op") == op and (tokens is None or row.get("tokens") == tokens) and "tflop_per_second" in row:
                return row["tflop_per_second"]
        return None

    def tokens_of(side, op):
        return [r.get("tokens") for r in run.rows(side) if r.get("op") == op]

    words = key.split()
    if key.startswith("step "):
        side, variant, case = words[1], words[2], words[3]
        if variant == "best":
            variant = best_variant(run, case)
        s = run.seconds(kind="forward", side=side, case=case, variant=variant)
        return 1e3 * statistics.median(s) if s else None
    if key.endswith("/ 798"):
        r = rate("torch", " ".join(words[1:-2]))
        return r / 798 if r else None
    if " / " in key:
        a, b = key.split(" / ")
        side = "ours" if a.startswith("linear") else "torch"
        both = [(rate(side, a, t), rate(side, b, t)) for t in tokens_of(side, a)]
        both = [x / y for x, y in both if x and y]
        return statistics.median(both) if both else None
    return rate(words[0], " ".join(words[1:-1]), int(words[-1]))


def report(run, facts, command):
    out = [f"# {facts.get('device', run.o.device)}: {run.o.date}", "",
           "Random weights at the published shapes; five seconds, 400 tokens of text. Medians; spreads with the number "
           "of runs in brackets. Made by:", "", "```", command, "```", ""]
    out += table([["what", "version"]] + [[k, str(v)] for k, v in facts.items()]) + [""]
    if run.o.device == "cpu":
        out += ["**On a CPU, with tiny networks: this shows that the script runs, nothing else.**", ""]

    out += ["## Agreement", ""]
    golden = next((p for p in run.parts if p.get("kind") == "golden"), {})
    rows = golden.get("result", {}).get("rows", [])
    if rows:
        agree = sum(bool(r.get("agrees")) for r in rows)
        # JSON has no infinity, and what is not finite comes as null.
        worst = max(float("inf") if r.get("largest_error", 0) is None else r.get("largest_error", 0) for r in rows)
        out += [f"{agree} of {len(rows)} golden comparisons agree; the largest error over the largest value is {worst:.2g}.", ""]
        out += [f"- {r['component']} {r['case']}: {r.get('error', r.get('largest_error'))}" for r in rows if not r.get("agrees")]
    else:
        out += [f"No golden comparison: {golden.get('failed', 'not asked for')}.", ""]
    other = next((p for p in run.parts if p.get("kind") == "torch golden"), {})
    rows = other.get("result", {}).get("rows", [])
    if rows:
        out += ["The networks that PyTorch is timed with, against the same files (relative L2): "
                + ", ".join(f"{r['case']} {r['precision']} {r['relative_l2']:.1e}" for r in rows) + ".", ""]
    else:
        out += [f"PyTorch's networks against the same files: {other.get('failed', 'not asked for')}.", ""]
    for part in run.parts:
        if part.get("kind") == "tests":
            words = [f"{part.get('passed', 0)} passed"]
            if part.get("skipped"):
                words.append(f"{part['skipped']} skipped")
            words += [f"FAILED: {', '.join(part['failed_tests'])}"] if part.get("failed_tests") else []
            words += [f"ended in {part['died_in']}"] if part.get("died_in") else []
            words += [part["failed"]] if part.get("failed") else []
            out += [f"- Tests against the CPU, {part['name'].removeprefix('agreement: ')}: {'; '.join(words)}."]
    out += [""]

    out += ["## One forward (ms)", ""]
    rows = [["size", "engine", "median", "spread", "TFLOP/s", f"share of {PEAK}", "floor", "share of floor",
             "best PyTorch over it"]]
    for case in ("tiny",) if run.o.tiny else ("256p", "540p", "1080p"):
        variants = [("torch", v) for v in (*BF16, "fp8")] + [("ours", p) for p in run.o.precisions]
        bf16 = [statistics.median(s) for v in BF16
                if (s := run.seconds(kind="forward", side="torch", case=case, variant=v))]
        low = run.seconds(kind="forward", side="torch", case=case, variant="fp8")
        for side, variant in variants:
            seconds = run.seconds(kind="forward", side=side, case=case, variant=variant)
            if not seconds and not run.asked(variant, kind="forward", side=side, case=case):
                continue
            middle, spread = ms(seconds)
            rate = TFLOP[case] / statistics.median(seconds) if seconds and case in TFLOP else None
            alike = variant != "fp8" or bool(low)
            best = statistics.median(low) if variant == "fp8" and low else min(bf16, default=None)
            ratio = f"{best / statistics.median(seconds):.2f}{'' if alike else ' (its bf16)'}" if seconds and best else "–"
            floor = FLOOR_STEP["fp8" if variant == "fp8" else "bf16"].get(case)
            rows.append([case, f"{'PyTorch' if side == 'torch' else 'Gallop'} {variant}", middle, spread,
                         f"{rate:.0f}" if rate else "–", f"{100 * rate / PEAK:.0f} %" if rate and variant != "fp8" else "–",
                         f"{1e3 * floor:.0f}" if floor else "–",
                         f"{100 * floor / statistics.median(seconds):.0f} %" if seconds and floor else "–", ratio])
    out += table(rows) + ["", f"To be reached in bf16: {TARGET_SHARE} % of {PEAK} TFLOP/s, and {TARGET_LEAD} × the best "
                          "PyTorch. Gallop has the widths padded as a renderer pads them. In fp8 both sides keep the first "
                          "and the last layer in bf16; Gallop also quantises the rows of text and sound that have weights of "
                          "their own, PyTorch leaves these in bf16.", ""]

    out += ["## Decoding the picture (ms)", ""]
    rows = [["size", "engine", "median", "spread", "target", "floor", "share of floor", "published"]]
    for case in ("tiny",) if run.o.tiny else ("256p", "540p", "1080p"):
        for side, variant, name in (("torch", "eager", "PyTorch eager"), ("torch", "compiled", "PyTorch compiled"),
                                    ("ours", None, "Gallop")):
            seconds = run.seconds(variant, kind="decode", side=side, case=case)
            middle, spread = ms(seconds)
            rows.append([case, name, middle, spread,
                         *(f"{1e3 * known[case]:.0f}" if case in known else "–" for known in (TARGET_DECODE, FLOOR_DECODE)),
                         f"{100 * FLOOR_DECODE[case] / statistics.median(seconds):.0f} %"
                         if seconds and case in FLOOR_DECODE else "–",
                         f"{1e3 * PUBLISHED_DECODE[case]:.0f}" if case in PUBLISHED_DECODE else "–"])
    out += table(rows) + ["", "Into pinned memory: PyTorch's pictures as RGB, Gallop's as the planes that an encoder takes, half the "
                          "bytes. PyTorch decodes 1080p in two halves that know nothing of each other.", ""]

    clips = [p for p in run.parts if p.get("kind") == "clip"]
    mp4 = any(p.get("result", {}).get("mp4") for p in clips)
    out += ["## From tokens to " + ("MP4 (s)" if mp4 else "pictures and sound on the host (s)"), "",
            "Text encoding, base, super-resolution, sound, pictures"
            + (", H.264, AAC and MP4" if mp4 else "; this build has no FFmpeg: without H.264, AAC and MP4")
            + ". One clip after the other; nothing overlaps but what the engine overlaps by itself. All prompts are encoded "
            "first: where the encoder does not fit beside two networks (bf16), a new prompt costs its loading, too. "
            f"All models of a clip must fit {MEMORY / 1e9:.0f} GB.", ""]
    rows = [["size", "precision", "median", "stages", "clips an hour", "target", "memory at the peak",
             "published, prompt to MP4"]]
    for part in clips:
        result, variant = part.get("result", {}), part.get("variant")
        seconds = result.get("seconds", [])
        stages = dict((result.get("stages") or [{}])[-1])
        target = TARGET_CLIP.get(variant, {}).get(part["case"])
        rows.append([part["case"], variant, f"{statistics.median(seconds):.2f}" if seconds else part.get("failed", "–"),
                     ", ".join(f"{k} {v:.2f}" for k, v in stages.items()) or "–",
                     f"{3600 / statistics.median(seconds):.0f}" if seconds else "–", str(target or "–"),
                     f"{result['peak_bytes'] / 1e9:.1f} GB" if "peak_bytes" in result else "–",
                     str(PUBLISHED_CLIP.get(part["case"], "–"))])
    for case in ("tiny",) if run.o.tiny else ("256p", "540p", "1080p"):
        steps = [("tiny" if run.o.tiny else "256p", STEPS["tiny" if run.o.tiny else "256p"])]
        steps += [] if case in ("tiny", "256p") else [(case, STEPS[case])]
        bests = [(best_variant(run, c), c, n) for c, n in steps]
        decode = [statistics.median(s) for v in ("eager", "compiled") if (s := run.seconds(v, kind="decode", side="torch", case=case))]
        if decode and all(v for v, _, _ in bests):
            seconds = min(decode) + sum(n * statistics.median(run.seconds(v, kind="forward", side="torch", case=c)) for v, c, n in bests)
            rows.append([case, "PyTorch's steps and decoding alone, computed", f"{seconds:.2f}", "–", f"{3600 / seconds:.0f}",
                         "–", "–", "–"])
    out += table(rows) + [""]
    rows = [["size", "precision", "stage", "arrays foretold", "needed with workspaces", "asked the device for more",
             "at the peak, networks included"]]
    for part in clips:
        for stage, use in part.get("result", {}).get("memory", {}).items():
            sizes = [f"{use[k] / 2 ** 30:.2f}" if use[k] else "–" for k in ("foretold", "extent", "peak")]
            rows.append([part["case"], part["variant"], stage, *sizes[:2], f"{use['asked']} times", sizes[2]])
    if len(rows) > 1:
        out += ["Memory by stage (GiB), foretold by a dry run and measured:", ""] + table(rows) + [""]
    text = run.seconds(kind="text", side="ours")
    if text:
        tokens = next(p["result"]["tokens"] for p in run.parts if p.get("kind") == "text" and "result" in p)
        out += [f"Text encoder, {tokens} tokens: {ms(text)[0]} ms ({ms(text)[1]}).", ""]

    out += ["## Ceilings", ""]
    rows = [["op", "tokens", "PyTorch", "Gallop", "unit"]]
    both = {}
    for side in ("torch", "ours"):
        for r in run.rows(side):
            name = r["op"].replace("linear", "product")
            both.setdefault((name, r.get("tokens", "")), {})[side] = r
    for (name, tokens), sides in both.items():
        values, unit = [], ""
        for side in ("torch", "ours"):
            r = sides.get(side, {})
            key = next((k for k in ("gb_per_second", "tflop_per_second") if k in r), None)
            unit = {"gb_per_second": "GB/s", "tflop_per_second": "TFLOP/s"}.get(key, unit)
            values.append(f"{r[key]:.4g}" if key else r.get("error", "–")[:40])
        rows.append([name, str(tokens), *values, unit])
    out += table(rows) + [""]

    out += ["## Predictions and outcomes", ""]
    rows = [["prediction", "foretold", "outcome", "held"]]
    for words, key, low, high in PREDICTIONS:
        value = outcome_of(run, key) if not run.o.tiny else None
        rows.append([words, f"{low} … {high}", f"{value:.3g}" if value else "not measured",
                     "–" if not value else "yes" if low <= value <= high else "no"])
    out += table(rows) + [""]

    out += ["## Every part", "", "Clock, power and heat while the GPU was busy.", ""]
    rows = [["part", "seconds", "outcome", "MHz", "W", "°C", "slowed by"]]
    for part in run.parts:
        peak = (part.get("result") or {}).get("peak_bytes")
        busy = part.get("clocks") or {}
        rows.append([part["name"] + (", earlier" if part.get("earlier") else ""), str(part.get("wall", "–")),
                     part.get("failed") or (f"done, {peak / 2 ** 30:.1f} GiB at the peak" if peak else "done"),
                     *(f"{busy[k]:.0f}" if k in busy else "–" for k in ("mhz", "watt", "celsius")),
                     ", ".join(busy.get("slowed", [])) or "–"])
    out += table(rows) + [""]
    warnings = list(dict.fromkeys(re.sub(r"^\S+Z ", "", w) for p in run.parts for w in p.get("warnings", [])))
    if warnings:
        out += ["Said on the way:", ""] + [f"- {w}" for w in warnings[:30]] + [""]
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", required=True, type=pathlib.Path, help="the program gpu_bench")
    parser.add_argument("--tests", type=pathlib.Path, help="the program gpu_test")
    parser.add_argument("--python", default=sys.executable, help="a Python with torch")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--total", type=int, default=570, help="seconds for all of it")
    parser.add_argument("--precisions", default="bf16,fp8", help="of ours, with commas")
    parser.add_argument("--parts", default=os.environ.get("RUN_PARTS", ""),
                        help="groups, with commas, which are run anew even where --merge has them; $RUN_PARTS, else all")
    parser.add_argument("--merge", type=pathlib.Path, help="an earlier call's JSON: go on where it ended")
    parser.add_argument("--variants", default="eager,compiled,padded,fp8", help="of PyTorch's, with commas")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(os.environ.get("OUT") or HERE / "results"))
    parser.add_argument("--logs", type=pathlib.Path)
    parser.add_argument("--dry-run", action="store_true", help="only say what would be run")
    o = parser.parse_args()
    o.precisions = [p for p in o.precisions.split(",") if p]
    o.variants = [v for v in o.variants.split(",") if v]
    o.parts = [p for p in o.parts.split(",") if p]
    now = datetime.datetime.now(datetime.timezone.utc)
    o.date = now.strftime("%Y-%m-%d %H:%M UTC")
    if o.logs:
        o.logs.mkdir(parents=True, exist_ok=True)
    run = Run(o)
    run.ours = lambda *words: [o.bench, words[0], "--backend", o.device, *words[1:]]
    run.torch = lambda *words: [o.python, HERE / "torch_bench.py", words[0], "--device", o.device, *words[1:]]
    chosen = plan(run, o.tiny)
    earlier = json.loads(o.merge.read_text()) if o.merge else dict(facts={}, parts=[])
    if not o.parts:  # what was done, or failed by itself, is not done again
        over = {p["name"] for p in earlier["parts"] if not re.match("not run|was not done", p.get("failed", ""))}
        chosen = [p for p in chosen if p[1] not in over]
    again = {p[1] for p in chosen}
    if o.dry_run:
        print(f"{'from min':>8} {'budget s':>9}  part")
        at = 0
        for group, name, budget, command, about in [("", "versions", 2 * ABOUT, [], {})] + chosen:
            print(f"{at / 60:8.1f} {budget:9d}  {name} [{group}]: {' '.join(map(str, command))}")
            at += budget
        print(f"at most {at} s ({at / 60:.1f} min); one call takes {o.total} s, the next goes on (--merge)")
        return 0
    facts = run.facts = machine(run)
    for what in ("device", "Gallop computes with", "torch"):
        was, here = earlier["facts"].get(what), facts.get(what)
        if was and here and was != here:
            print(f"report.py: {o.merge} is of another machine: {what} {was} (here: {here})", file=sys.stderr)
            return 2
    # What an earlier call could not learn of the machine stays unknown no longer, and the other way round.
    facts |= {k: v for k, v in earlier["facts"].items() if k not in facts}
    if earlier["facts"].get("commit", facts["commit"]) != facts["commit"]:
        facts["earlier commit"] = earlier["facts"]["commit"]
    run.parts[:0] = [p | dict(earlier=True) for p in earlier["parts"] if p.get("kind") != "about" and p["name"] not in again]
    device = re.sub(r"[^A-Za-z0-9]+", "-", facts.get("device", "no-gpu" if o.device == "cuda" else "cpu")).strip("-").lower()
    stem = f"{now.strftime('%Y-%m-%d-%H%M')}-{device}"
    o.out.mkdir(parents=True, exist_ok=True)
    run.file = o.out / f"{stem}.json"
    for _, name, budget, command, about in chosen:
        run.part(name, budget, command, **about)
    if run.clocks:
        run.clocks.stop()
    # Folders of the machine are nobody's business.
    command = " ".join(["tests/gpu/run.sh"] + [pathlib.Path(w).name if "/" in w else w
                                               for w in os.environ.get("GPU_RUN_ARGUMENTS", "").split()])
    for part in run.parts:
        part["command"] = re.sub(r"\S*/", "", part["command"])
    run.save()
    lines = report(run, facts, command)
    (o.out / f"{stem}.md").write_text("\n".join(lines))
    print("\n".join(lines))
    failed = [p["name"] for p in run.parts if "failed" in p]
    print(f"\n{len(run.parts) - len(failed)} of {len(run.parts)} parts done in {time.monotonic() - run.begin:.0f} s"
          + (f"; failed or not run: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


sys.exit(main())
