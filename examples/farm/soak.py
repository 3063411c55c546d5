#!/usr/bin/env python3
"""Renders COUNT tiny clips in one run and watches every process: resident memory and open files after
100, 200, 500, ... clips. Fails when either grows after the first 100.
Usage: examples/farm/soak.py GALLOP [COUNT] [SLOTS]"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

gallop = os.path.abspath(sys.argv[1])
count = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
slots = int(sys.argv[3]) if len(sys.argv) > 3 else 2
tree = pathlib.Path(__file__).resolve().parents[2]
marks = [n for n in (100, 200, 500, 1000, 1500, 2000, 5000, 10000) if n <= count] or [count]

with tempfile.TemporaryDirectory() as work:
    os.chdir(work)
    environment = {**os.environ, "XDG_CACHE_HOME": work}
    subprocess.run([gallop, "make-model", tree / "configs/models/tiny.yaml", "--out", "model"], check=True,
                   capture_output=True)
    items = [{"name": f"clip-{i}", "prompt": f"Scene {i % 40}", "seed": i, "frames": 1 + 4 * (i % 2),
              "resolution": "32x32" if i % 3 else "64x32"} for i in range(count)]
    manifest = {"version": 1, "name": "soak", "model": {"path": "model"}, "items": items,
                "defaults": {"steps": {"base": 1}}, "outputs": {"video": {"preset": "ultrafast"}}}
    pathlib.Path("soak.yaml").write_text(json.dumps(manifest))
    started = time.time()
    run = subprocess.Popen([gallop, "run", "soak.yaml", "--out", "run", "--slots", str(slots), "--threads",
                            str(slots)], stdout=subprocess.DEVNULL, stderr=open("log", "w"), env=environment)

    ticks = os.sysconf("SC_CLK_TCK")

    def processes():
        children = pathlib.Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        return [run.pid] + [int(child) for child in children]

    def cpu_seconds(stat):
        fields = pathlib.Path(stat).read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / ticks

    def look(pid):
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        rss = int(status.split("VmRSS:")[1].split()[0]) / 1024
        return rss, len(os.listdir(f"/proc/{pid}/fd"))

    seen = {}
    journal = pathlib.Path("run/journal.jsonl")
    done = offset = 0
    busy = [0.0, 0.0]
    print(f"{'clips':>6} {'seconds':>8}   resident megabytes / open files: coordinator, then each renderer")
    while run.poll() is None:
        try:
            busy = [cpu_seconds(f"/proc/{run.pid}/stat"), cpu_seconds(f"/proc/{run.pid}/task/{run.pid}/stat")]
        except (FileNotFoundError, ProcessLookupError):
            pass
        if journal.exists():
            with journal.open("rb") as lines:
                lines.seek(offset)
                new = lines.read()
            offset += len(new)
            done += new.count(b'"event":"done"')
        while len(seen) < len(marks) and done >= marks[len(seen)] and run.poll() is None:
            try:
                now = [look(pid) for pid in processes()]
            except (FileNotFoundError, IndexError):
                break
            mark = marks[len(seen)]
            seen[mark] = now
            print(f"{mark:6} {time.time() - started:8.1f}   " +
                  "  ".join(f"{rss:7.1f} / {files}" for rss, files in now), flush=True)
        time.sleep(0.05)
    if run.returncode != 0:
        sys.exit(f"gallop run ended with {run.returncode}: {open('log').read()[-2000:]}")
    for what, seconds in (("coordinator and agent, their thread", busy[1]),
                          ("the other threads of that process (journal, report with its pictures)", busy[0] - busy[1])):
        print(f"{what}: {seconds / done * 1e6:.0f} microseconds of CPU a clip, "
              f"{100 * seconds / (time.time() - started):.2f} % of a core")
    first, last = seen[marks[0]], seen[max(seen)]
    for (rss, files), (rss_end, files_end) in zip(first, last):
        # A journal's worth of a coordinator's memory is bytes an item; a renderer has no reason at all.
        if rss_end > rss * 1.05 + 4:
            sys.exit(f"memory grows: {rss:.1f} to {rss_end:.1f} MB")
        if files_end > files + 2:
            sys.exit(f"open files grow: {files} to {files_end}")
    print("flat")
