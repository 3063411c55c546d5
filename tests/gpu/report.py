#!/usr/bin/env python3
"""Runs every measurement of tests/gpu as a process of its own, each under a limit, all under one; then
writes the side-by-side table. Called by run.sh; see README.md.

A part that fails, or for which no time is left, is a line in the table, never the end of it. Each part has a
budget, after which it is killed; the parts of one call (RUN_PARTS=1, 2 or 3, or names of groups) are chosen so
that their budgets together stay under ten minutes. --merge takes the JSON of an earlier call into the table.
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


class Run:
    def __init__(self, options):
        self.o = options
        self.begin = time.monotonic()
        self.parts = []
        self.environment = dict(os.environ)

    def left(self):
        return self.o.total - (time.monotonic() - self.begin)

    def part(self, name, limit, command, **about):
        """Runs a command in a process group of its own. Keeps its JSON, or why there is none."""
        made = dict(name=name, command=" ".join(map(str, command)), **about)
        self.parts.append(made)
        if self.o.device == "cpu":  # a crowded machine; there the limits are not the point
            limit *= 6
        allowed = min(limit, self.left() - 3)
        if allowed < min(limit, 8):
            made["failed"] = f"not run: {max(self.left(), 0):.0f} s were left of {self.o.total}"
            return self.say(made)
        begin = time.monotonic()
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env=self.environment, cwd=ROOT, start_new_session=True)
        try:
            out, err = process.communicate(timeout=allowed)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            made["failed"] = f"was not done after {allowed:.0f} s"
        made["wall"] = round(time.monotonic() - begin, 2)
        made["status"] = process.returncode
        if self.o.logs:
            name_of_log = re.sub(r"[^A-Za-z0-9.]+", "-", name) + ".log"
            (self.o.logs / name_of_log).write_text(f"$ {made['command']}\n{out}\n{err}")
        try:
            made["result"] = json.loads(out.strip().splitlines()[-1])
        except (ValueError, IndexError):
            made["output"] = out[-2000:]
        if "failed" not in made and process.returncode != 0:
            lines = [line for line in err.strip().splitlines() if line.strip()]
            made["failed"] = f"status {process.returncode}: {(lines or ['no text'])[-1][:300]}"
        return self.say(made)

    def say(self, part):
        spent = f"{part.get('wall', 0):.1f} s"
        print(f"[{time.monotonic() - self.begin:5.0f} s] {part['name']}: {part.get('failed', 'done')} ({spent})",
              file=sys.stderr, flush=True)
        return part

    def seconds(self, **wanted):
        """All seconds of the parts of that kind, in order."""
        found = []
        for part in self.parts:
            if all(part.get(k) == v for k, v in wanted.items()):
                found += part.get("result", {}).get("seconds", [])
        return found

    def rows(self, side):
        for part in self.parts:
            if part.get("kind") == "rows" and part.get("side") == side:
                yield from part.get("result", {}).get("rows", [])


def machine(run):
    """Versions, clocks and the like, whatever of it can be had."""
    facts = {}
    ask = "name,driver_version,memory.total,clocks.max.sm,clocks.sm,power.limit,temperature.gpu"
    if shutil.which("nvidia-smi"):
        done = subprocess.run(["nvidia-smi", f"--query-gpu={ask}", "--format=csv,noheader"], capture_output=True,
                              text=True, timeout=20)
        facts["nvidia-smi"] = done.stdout.strip()
    facts["host"] = f"{os.cpu_count()} processors"
    facts["commit"] = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True,
                                     text=True).stdout.strip() or "not a checkout"
    torch = run.part("versions of PyTorch", ABOUT, run.torch("about"), kind="about")
    facts |= {k: v for k, v in torch.get("result", {}).items() if k in (
        "torch", "cuda", "cudnn", "device", "memory_bytes", "multiprocessors", "capability")}
    return facts


def plan(run, tiny):
    """Every part, in the order in which they run: which call it belongs to, its group, its name, its budget in
    seconds, its command, what it is about."""
    first, sizes = ("tiny", ["tiny"]) if tiny else ("256p", ["256p", "540p", "1080p"])
    repeats = {"256p": 5, "540p": 2, "1080p": 1, "tiny": 2}
    parts = []

    def add(call, group, name, budget, command, **about):
        parts.append((str(call), group, name, budget, command, about))

    def ours(call, case, precision, budget, group="forward", turn=""):
        if precision in run.o.precisions:
            add(call, group, f"ours {precision} {case}{turn}", budget,
                lambda: run.ours("forward", "--case", case, "--precision", precision, "--repeats", repeats[case]),
                kind="forward", side="ours", case=case, variant=precision)

    def torch(call, case, variant, budget, group="forward", turn=""):
        """variant "best": the fastest at the first size stands for all; compiling each of them again for each
        size would take minutes."""
        if variant != "best" and variant not in run.o.variants:
            return

        def command():
            chosen = (best_variant(run, first) or "eager") if variant == "best" else variant
            return run.torch("forward", "--case", case, "--variant", chosen, "--repeats", repeats[case])
        add(call, group, f"torch {variant} {case}{turn}", budget, command, kind="forward", side="torch", case=case,
            variant=None if variant == "best" else variant)

    def clips(call, case, precision, budget):
        if precision in run.o.precisions:
            add(call, "clips", f"ours clips {precision} {case}", budget,
                lambda: run.ours("clip", "--case", case, "--precision", precision, "--repeats",
                                 3 if case == first else 1),
                kind="clip", side="ours", case=case, variant=precision)

    # The first call: is it right, how fast is a forward beside PyTorch's, how fast is the decoder.
    add(1, "agreement", "agreement: golden files", 25,
        lambda: run.ours("golden", "--folder", ROOT / "tests/golden"), kind="golden")
    if run.o.tests:
        add(1, "agreement", "agreement: ops, networks, pipelines", 95, lambda: [run.o.tests, "--gtest_brief=1"],
            kind="tests")
    add(1, "agreement", "agreement: PyTorch's networks", 20,
        lambda: run.torch("golden", "--folder", ROOT / "tests/golden"), kind="torch golden")
    for precision in run.o.precisions:
        ours(1, first, precision, 15)
    torch(1, first, "eager", 25)
    torch(1, first, "padded", 60)
    torch(1, first, "fp8", 60)
    for case, seconds in zip(sizes[1:], (18, 35)):
        for precision in run.o.precisions:
            ours(1, case, precision, seconds)
    if "540p" in sizes:
        torch(1, "540p", "best", 60)
    for case, seconds in zip(sizes, (12, 15, 25)):
        add(1, "decode", f"ours decode {case}", seconds, lambda case=case: run.ours("decode", "--case", case, "--repeats", 2),
            kind="decode", side="ours", case=case)

    # The second: whole clips, what the machine's libraries can do, PyTorch's side of the rest.
    for case, bf16, fp8 in zip(sizes, (25, 35, 65), (22, 32, 55)):
        clips(2, case, "bf16", bf16)
        clips(2, case, "fp8", fp8)
    add(2, "ceilings", "our ops alone", 40, lambda: run.ours("ops", "--case", first), kind="rows", side="ours")
    add(2, "ceilings", "ceilings of PyTorch", 40, lambda: run.torch("ceilings", "--case", first), kind="rows", side="torch")
    if "1080p" in sizes:
        torch(2, "1080p", "best", 90, group="torch")
    for case, seconds in zip(sizes, (15, 20, 30)):
        add(2, "decode", f"torch decode {case}", seconds,
            lambda case=case: run.torch("decode", "--case", case, "--repeats", 1), kind="decode", side="torch", case=case)
    torch(2, first, "compiled", 60, group="torch")
    add(2, "clips", "ours text encoder", 12, lambda: run.ours("text", "--case", first, "--repeats", 5), kind="text",
        side="ours", case=first)

    # The third, where there is time: PyTorch's fp8 at the larger sizes, each compiled anew; then the same again
    # in the other order, so that drift shows.
    for case, seconds in zip(sizes[1:], (60, 90)):
        torch(3, case, "fp8", seconds, group="torch")
    torch(3, first, "eager", 25, group="again", turn=" again")
    for precision in run.o.precisions:
        ours(3, first, precision, 15, group="again", turn=" again")
    for case, seconds in zip(sizes[1:], (30, 50)):
        torch(3, case, "eager", seconds, group="again")
        ours(3, case, "bf16", seconds, group="again", turn=" again")
    wanted = run.o.parts.split(",")
    unknown = [w for w in wanted if w not in {p[0] for p in parts} | {p[1] for p in parts}]
    if unknown:
        sys.exit(f"report.py: RUN_PARTS names {', '.join(unknown)} (calls: 1, 2, 3; groups: "
                 + ", ".join(dict.fromkeys(p[1] for p in parts)) + ")")
    return [p for p in parts if p[0] in wanted or p[1] in wanted]


ABOUT = 20  # seconds that the versions may take


def best_variant(run, case):
    """The fastest of PyTorch's bf16 variants."""
    found = {v: statistics.median(s) for v in ("eager", "compiled", "padded")
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
        worst = max((r.get("largest_error", 0) for r in rows), default=0)
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
            said = (part.get("output") or "").strip().splitlines()
            out += [f"Ops, networks and pipelines against the CPU: {part.get('failed') or (said[-1] if said else 'passed')}.", ""]

    out += ["## One forward (ms)", ""]
    rows = [["size", "engine", "median", "spread", "TFLOP/s", f"share of {PEAK}", "floor", "share of floor",
             "best PyTorch over it"]]
    for case in ("tiny",) if run.o.tiny else ("256p", "540p", "1080p"):
        variants = [("torch", v) for v in ("eager", "compiled", "padded", "fp8")] + [("ours", p) for p in run.o.precisions]
        bf16 = [statistics.median(s) for v in ("eager", "compiled", "padded")
                if (s := run.seconds(kind="forward", side="torch", case=case, variant=v))]
        low = run.seconds(kind="forward", side="torch", case=case, variant="fp8")
        for side, variant in variants:
            seconds = run.seconds(kind="forward", side=side, case=case, variant=variant)
            if not seconds and not any(p.get("case") == case and p.get("side") == side and p.get("variant") == variant
                                       for p in run.parts):
                continue
            middle, spread = ms(seconds)
            rate = TFLOP[case] / statistics.median(seconds) if seconds and case in TFLOP else None
            best = statistics.median(low) if variant == "fp8" and low else min(bf16, default=None)
            ratio = f"{best / statistics.median(seconds):.2f}" if seconds and best else "–"
            floor = FLOOR_STEP["fp8" if variant == "fp8" else "bf16"].get(case)
            rows.append([case, f"{'PyTorch' if side == 'torch' else 'Gallop'} {variant}", middle, spread,
                         f"{rate:.0f}" if rate else "–", f"{100 * rate / PEAK:.0f} %" if rate and variant != "fp8" else "–",
                         f"{1e3 * floor:.0f}" if floor else "–",
                         f"{100 * floor / statistics.median(seconds):.0f} %" if seconds and floor else "–", ratio])
    out += table(rows) + ["", f"To be reached in bf16: {TARGET_SHARE} % of {PEAK} TFLOP/s, and {TARGET_LEAD} × the best "
                          "PyTorch. PyTorch's variants beyond the first size: its eager one, or the fastest at the first "
                          "size, and fp8. Gallop's rows of one precision are measured with widths padded as a renderer pads them.", ""]

    out += ["## Decoding the picture (ms)", ""]
    rows = [["size", "engine", "median", "spread", "target", "floor", "share of floor", "published"]]
    for case in ("tiny",) if run.o.tiny else ("256p", "540p", "1080p"):
        for side in ("torch", "ours"):
            seconds = run.seconds(kind="decode", side=side, case=case)
            middle, spread = ms(seconds)
            rows.append([case, "PyTorch" if side == "torch" else "Gallop", middle, spread,
                         *(f"{1e3 * known[case]:.0f}" if case in known else "–" for known in (TARGET_DECODE, FLOOR_DECODE)),
                         f"{100 * FLOOR_DECODE[case] / statistics.median(seconds):.0f} %"
                         if seconds and case in FLOOR_DECODE else "–",
                         f"{1e3 * PUBLISHED_DECODE[case]:.0f}" if case in PUBLISHED_DECODE else "–"])
    out += table(rows) + [""]

    clips = [p for p in run.parts if p.get("kind") == "clip"]
    mp4 = any(p.get("result", {}).get("mp4") for p in clips)
    out += ["## From tokens to " + ("MP4 (s)" if mp4 else "pictures and sound on the host (s)"), "",
            "Text encoding, base, super-resolution, sound, pictures"
            + (", H.264, AAC and MP4" if mp4 else "; this build has no FFmpeg: without H.264, AAC and MP4")
            + ". One clip after the other; nothing overlaps but what the engine overlaps by itself.", ""]
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
                     f"{result['peak_bytes'] / 2 ** 30:.1f} GiB" if "peak_bytes" in result else "–",
                     str(PUBLISHED_CLIP.get(part["case"], "–"))])
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

    out += ["## Every part", ""]
    rows = [["part", "seconds", "outcome"]]
    for part in run.parts:
        peak = part.get("result", {}).get("peak_bytes")
        rows.append([part["name"], str(part.get("wall", "–")),
                     part.get("failed") or (f"done, {peak / 2 ** 30:.1f} GiB at the peak" if peak else "done")])
    return out + table(rows) + [""]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", required=True, type=pathlib.Path, help="the program gpu_bench")
    parser.add_argument("--tests", type=pathlib.Path, help="the program gpu_test")
    parser.add_argument("--python", default=sys.executable, help="a Python with torch")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--total", type=int, default=570, help="seconds for all of it")
    parser.add_argument("--precisions", default="bf16,fp8", help="of ours, with commas")
    parser.add_argument("--parts", default=os.environ.get("RUN_PARTS", "1"),
                        help="calls (1, 2, 3) and groups, with commas; $RUN_PARTS, else 1")
    parser.add_argument("--merge", type=pathlib.Path, action="append", default=[], help="an earlier call's JSON")
    parser.add_argument("--variants", default="eager,compiled,padded,fp8", help="of PyTorch's, with commas")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results")
    parser.add_argument("--logs", type=pathlib.Path)
    parser.add_argument("--dry-run", action="store_true", help="only say what would be run")
    o = parser.parse_args()
    o.precisions = [p for p in o.precisions.split(",") if p]
    o.variants = [v for v in o.variants.split(",") if v]
    now = datetime.datetime.now(datetime.timezone.utc)
    o.date = now.strftime("%Y-%m-%d %H:%M UTC")
    if o.logs:
        o.logs.mkdir(parents=True, exist_ok=True)
    run = Run(o)
    run.ours = lambda *words: [o.bench, words[0], "--backend", o.device, *words[1:]]
    run.torch = lambda *words: [o.python, HERE / "torch_bench.py", words[0], "--device", o.device, *words[1:]]
    chosen = plan(run, o.tiny)
    budgets = ABOUT + sum(part[3] for part in chosen)
    if o.dry_run:
        print(f"{'from min':>8} {'budget s':>9}  part")
        print(f"{0:8.1f} {ABOUT:9d}  versions")
        at = ABOUT
        for call, group, name, budget, command, about in chosen:
            print(f"{at / 60:8.1f} {budget:9d}  {name} [{call} {group}]: {' '.join(map(str, command()))}")
            at += budget
        print(f"at most {budgets} s ({budgets / 60:.1f} min) of {o.total} s")
        return 0 if budgets <= o.total else 1
    if budgets > o.total and o.device != "cpu":
        print(f"report.py: the budgets are {budgets} s together, {o.total} s are given: the last parts may be left out",
              file=sys.stderr)
    for earlier in o.merge:
        run.parts += [p | dict(name=p["name"] + ", earlier") for p in json.loads(earlier.read_text())["parts"]
                      if p.get("kind") != "about"]
    facts = machine(run)
    for _, _, name, budget, command, about in chosen:
        command = command()
        if "variant" in about and about["variant"] is None:  # chosen just now
            about = about | dict(variant=command[command.index("--variant") + 1])
        run.part(name, budget, command, **about)
    # Folders of the machine are nobody's business.
    command = " ".join(["tests/gpu/run.sh"] + [pathlib.Path(w).name if "/" in w else w
                                               for w in os.environ.get("GPU_RUN_ARGUMENTS", "").split()])
    lines = report(run, facts, command)
    o.out.mkdir(parents=True, exist_ok=True)
    device = re.sub(r"[^A-Za-z0-9]+", "-", facts.get("device", "no-gpu" if o.device == "cuda" else "cpu")).strip("-").lower()
    stem = f"{now.strftime('%Y-%m-%d-%H%M')}-{device}"
    (o.out / f"{stem}.md").write_text("\n".join(lines))
    for part in run.parts:
        part["command"] = re.sub(r"\S*/", "", part["command"])
    (o.out / f"{stem}.json").write_text(json.dumps(dict(facts=facts, date=o.date, parts=run.parts), indent=1) + "\n")
    print("\n".join(lines))
    failed = [p["name"] for p in run.parts if "failed" in p]
    print(f"\n{len(run.parts) - len(failed)} of {len(run.parts)} parts done in {time.monotonic() - run.begin:.0f} s"
          + (f"; failed or not run: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


sys.exit(main())
