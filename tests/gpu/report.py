#!/usr/bin/env python3
"""Runs every measurement of tests/gpu as a process of its own, each under a limit, all under one; then
writes the side-by-side table. Called by run.sh; see README.md.

A part that fails, or for which no time is left, is a line in the table, never the end of it.
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
# Seconds that the tensor cores need at the best rates known (798 TFLOP/s products, 740 attention).
FLOOR_STEP = {"256p": 1.05 / 8, "540p": 3.26 / 5, "1080p": 25.23 / 5}
FLOOR_DECODE = {"256p": 0.08, "540p": 0.33, "1080p": 1.49}
PEAK = 990  # TFLOP/s of dense bf16, H100 SXM, by its data sheet
# What was foretold before anything was measured: text, how to find the outcome, range.
PREDICTIONS = [
    ("products at K = 13652 run at 45–65 % of K = 13696 (PyTorch)", "product down / product down padded", 0.45, 0.65),
    ("our products at K = 13652, likewise", "linear down / linear down padded", 0.45, 0.65),
    ("cuDNN's attention at 14,862 tokens, TFLOP/s", "torch attention 14862", 640, 700),
    ("cuDNN's attention at 65,806 tokens, TFLOP/s", "torch attention 65806", 640, 700),
    ("cuDNN's attention at 4,110 tokens, TFLOP/s", "torch attention 4110", 600, 660),
    ("fp8 product at N = 27392, 14,862 tokens, TFLOP/s", "torch product fp8 up padded 14862", 1200, 1400),
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
        allowed = min(limit, self.left() - 5)
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
    torch = run.part("versions of PyTorch", 60, run.torch("about"), kind="about")
    facts |= {k: v for k, v in torch.get("result", {}).items() if k in (
        "torch", "cuda", "cudnn", "device", "memory_bytes", "multiprocessors", "capability")}
    return facts


def plan(run, tiny):
    """Every part, in an order in which what matters most comes first and drift shows: A B B A."""
    cases = ["tiny"] if tiny else ["256p", "540p", "1080p"]
    repeats = {"256p": 8, "540p": 2, "1080p": 1, "tiny": 2}
    limits = {"256p": 45, "540p": 50, "1080p": 60, "tiny": 120}

    def ours(case, n):
        for precision in run.o.precisions:
            run.part(f"ours {precision} {case} ({n})", limits[case],
                     run.ours("forward", "--case", case, "--precision", precision, "--repeats", repeats[case]),
                     kind="forward", side="ours", case=case, variant=precision)

    def torch(case, n, variants):
        for variant in variants:
            limit = limits[case] + (0 if variant == "eager" else 60)
            run.part(f"torch {variant} {case} ({n})", limit,
                     run.torch("forward", "--case", case, "--variant", variant, "--repeats", repeats[case]),
                     kind="forward", side="torch", case=case, variant=variant)

    run.part("agreement: golden files", 60, run.ours("golden", "--folder", ROOT / "tests/golden"), kind="golden")
    if run.o.tests:
        run.part("agreement: every op against the CPU", 120, [run.o.tests, "--gtest_brief=1"], kind="tests")
    run.part("ceilings of PyTorch", 60, run.torch("ceilings", "--case", cases[0]), kind="rows", side="torch")
    run.part("our ops alone", 60, run.ours("ops", "--case", cases[0]), kind="rows", side="ours")
    first = cases[0]
    torch(first, 1, run.o.variants)
    ours(first, 1)
    ours(first, 2)
    for case in cases:
        run.part(f"ours decode {case}", limits[case], run.ours("decode", "--case", case, "--repeats", 2),
                 kind="decode", side="ours", case=case)
    for case in cases[1:]:
        # The best of PyTorch at the first size stands for all: compiling again for each would take minutes.
        best = best_variant(run, first)
        torch(case, 1, ["eager"] if best in (None, "eager") else [best])
        ours(case, 1)
    run.part(f"ours clips {first}", limits[first] + 30, run.ours("clip", "--case", first, "--repeats", 3),
             kind="clip", side="ours", case=first)
    torch(first, 2, [v for v in run.o.variants if v in ("eager", best_variant(run, first))])
    for case in cases:
        run.part(f"torch decode {case}", limits[case] + 20, run.torch("decode", "--case", case, "--repeats", 1),
                 kind="decode", side="torch", case=case)
    run.part("ours text encoder", 45, run.ours("text", "--case", first, "--repeats", 5), kind="text", side="ours",
             case=first)
    for case in cases[1:]:
        run.part(f"ours clips {case}", 90, run.ours("clip", "--case", case, "--repeats", 1), kind="clip",
                 side="ours", case=case)


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
    for part in run.parts:
        if part.get("kind") == "tests":
            said = (part.get("output") or "").strip().splitlines()
            out += [f"Every op against the CPU: {part.get('failed') or (said[-1] if said else 'passed')}.", ""]

    out += ["## One forward (ms)", ""]
    rows = [["size", "engine", "median", "spread", "TFLOP/s", "share of 990", "share of floor", "over the best PyTorch"]]
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
            rows.append([case, f"{'PyTorch' if side == 'torch' else 'Gallop'} {variant}", middle, spread,
                         f"{rate:.0f}" if rate else "–", f"{100 * rate / PEAK:.0f} %" if rate and variant != "fp8" else "–",
                         f"{100 * FLOOR_STEP[case] / statistics.median(seconds):.0f} %"
                         if seconds and case in FLOOR_STEP and variant != "fp8" else "–", ratio])
    out += table(rows) + ["", "PyTorch's variants beyond the first size: its eager one, or the fastest at the first size.", ""]

    out += ["## Decoding the picture (ms)", ""]
    rows = [["size", "engine", "median", "spread", "share of floor", "published"]]
    for case in ("tiny",) if run.o.tiny else ("256p", "540p", "1080p"):
        for side in ("torch", "ours"):
            seconds = run.seconds(kind="decode", side=side, case=case)
            middle, spread = ms(seconds)
            rows.append([case, "PyTorch" if side == "torch" else "Gallop", middle, spread,
                         f"{100 * FLOOR_DECODE[case] / statistics.median(seconds):.0f} %"
                         if seconds and case in FLOOR_DECODE else "–",
                         f"{1e3 * PUBLISHED_DECODE[case]:.0f}" if case in PUBLISHED_DECODE else "–"])
    out += table(rows) + [""]

    out += ["## From noise to pictures and sound on the host (s)", "",
            "Without the text encoder (which is timed below), H.264 and MP4, which other threads do meanwhile.", ""]
    rows = [["size", "median", "stages", "clips an hour", "published, prompt to MP4"]]
    for part in run.parts:
        if part.get("kind") == "clip":
            seconds = part.get("result", {}).get("seconds", [])
            stages = part.get("result", {}).get("stages", [{}])[-1]
            rows.append([part["case"], f"{statistics.median(seconds):.2f}" if seconds else part.get("failed", "–"),
                         ", ".join(f"{k} {v:.2f}" for k, v in stages.items()) or "–",
                         f"{3600 / statistics.median(seconds):.0f}" if seconds else "–",
                         str(PUBLISHED_CLIP.get(part["case"], "–"))])
    out += table(rows) + [""]
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
    parser.add_argument("--precisions", default="bf16", help="of ours, with commas")
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
    if o.dry_run:
        run.part = lambda name, limit, command, **about: (
            run.parts.append(dict(name=name, **about)) or print(f"{name} (at most {limit} s): {' '.join(map(str, command))}") or {})
        plan(run, o.tiny)
        return 0
    facts = machine(run)
    plan(run, o.tiny)
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
