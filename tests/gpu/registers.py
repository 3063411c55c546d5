#!/usr/bin/env python3
"""What ptxas makes of every kernel: registers, shared memory, spills. Needs nvcc, no GPU.

Usage: registers.py BUILD [--architectures 80,90a,100] [--json FILE]

Compiles the CUDA sources of a configured build folder again, as its compile_commands.json says, and asks
ptxas to speak. Prints a table; exits with 1 when a kernel spills registers to memory, which in a hot loop
costs more than any other mistake. --architectures takes others than those of the build, and says what each
costs in compile time.
"""
import argparse
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

ENTRY = re.compile(r"Compiling entry function '([^']+)' for '([^']+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(?:.*?, (\d+) bytes smem)?")


def parse(text: str) -> list[dict]:
    """ptxas -v's lines, one entry a kernel and architecture."""
    found: list[dict] = []
    for line in text.splitlines():
        if m := ENTRY.search(line):
            found.append({"kernel": m[1], "architecture": m[2]})
        elif found and (m := STACK.search(line)) and "stack" not in found[-1]:
            found[-1] |= {"stack": int(m[1]), "stores": int(m[2]), "loads": int(m[3])}
        elif found and (m := USED.search(line)) and "registers" not in found[-1]:
            found[-1] |= {"registers": int(m[1]), "shared": int(m[2] or 0)}
    return found


def demangled(names: list[str]) -> list[str]:
    try:
        text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
        plain = text.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return names
    # The namespaces and argument lists of all of them are the same; what a lambda came from stays.
    return [re.sub(r"gallop::kernels::|\(anonymous namespace\)::|^void ", "", name) for name in plain]


def command_of(entry: dict, out: str, architectures: list[str]) -> list[str]:
    words = shlex.split(entry["command"])
    if ccache := shutil.which("ccache"):  # keeps what ptxas said, too
        words = [ccache, *words]
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word == "-o":
            skip = True
        elif architectures and word.startswith(("--generate-code", "-gencode")):
            continue
        else:
            kept.append(word)
    kept += [f"--generate-code=arch=compute_{a},code=[sm_{a}]" for a in architectures]
    return kept + ["-Xptxas=-v", "-o", out]


def compiled(build: pathlib.Path, architectures: list[str]) -> tuple[list[dict], float]:
    entries = [e for e in json.loads((build / "compile_commands.json").read_text()) if e["file"].endswith(".cu")]
    if not entries:
        sys.exit(f"{build}/compile_commands.json has no CUDA source (configure with GALLOP_CUDA=ON)")
    kernels: list[dict] = []
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        for entry in entries:
            done = subprocess.run(command_of(entry, f"{work}/out.o", architectures), cwd=entry["directory"],
                                  capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{entry['file']}: {done.stderr}")
            for kernel in parse(done.stdout + done.stderr):
                kernels.append(kernel | {"source": pathlib.Path(entry["file"]).name})
    return kernels, time.monotonic() - begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--architectures", default="")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    asked = [a for a in options.architectures.split(",") if a]
    kernels: list[dict] = []
    seconds: dict[str, float] = {}
    for one in asked or [""]:
        found, seconds[one or "as built"] = compiled(options.build, [one] if one else [])
        kernels += found
    if not kernels:
        sys.exit("ptxas said nothing of any kernel")
    names = demangled([k["kernel"] for k in kernels])
    print("| source | kernel | for | registers | shared bytes | spill stores | spill loads |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    spilling = 0
    for kernel, name in sorted(zip(kernels, names), key=lambda k: (k[0]["architecture"], k[0]["source"], k[1])):
        kernel["name"] = name
        stores, loads = kernel.get("stores", 0), kernel.get("loads", 0)
        spilling += stores + loads > 0
        short = name if len(name) <= 90 else name[:87] + "..."
        print(f"| {kernel['source']} | `{short}` | {kernel['architecture']} | {kernel.get('registers', '?')} |"
              f" {kernel.get('shared', 0)} | {stores or ''} | {loads or ''} |")
    for one, spent in seconds.items():
        print(f"\ncompiled {one} in {spent:.1f} s (of one core; cached results count as such)")
    print(f"{len(kernels)} kernels, {spilling} of them spill")
    if options.json:
        options.json.write_text(json.dumps({"kernels": kernels, "seconds": seconds}, indent=1) + "\n")
    return 1 if spilling else 0


if __name__ == "__main__":
    sys.exit(main())
