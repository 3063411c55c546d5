"""Has the engine render clips, and reads them back: manifests, PNG, WAV and MP4 files."""
import json
import math
import struct
import subprocess
import sys
import tempfile
import wave
import zlib

import numpy as np

import clips
import prompts


def write_png(path, picture):
    """A picture [Y, X, 3] u8."""
    height, width, _ = picture.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, -1)], 1).tobytes()

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
                     + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


def write_wav(path, sound, rate):
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())


def read_mp4(paths, together=16):
    """Of each file its pictures [N, Y, X, 3] u8 (square ones) and mono sound [S] f32. Starting a program costs more than
    reading a clip, so one reads several."""
    for i in range(0, len(paths), together):
        some = paths[i : i + together]
        with tempfile.TemporaryDirectory() as folder:
            command = ["ffmpeg", "-v", "error", "-filter_threads", "1"]
            for path in some:
                command += ["-threads", "1", "-i", path]
            for k in range(len(some)):
                command += ["-map", f"{k}:v", "-f", "rawvideo", "-pix_fmt", "rgb24", f"{folder}/{k}.rgb"]
                command += ["-map", f"{k}:a", "-f", "f32le", "-ac", "1", f"{folder}/{k}.pcm"]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
            for k in range(len(some)):
                raw = np.fromfile(f"{folder}/{k}.rgb", np.uint8)
                side = math.isqrt(len(raw) // (3 * clips.PICTURES))
                yield raw.reshape(-1, side, side, 3), np.fromfile(f"{folder}/{k}.pcm", "<f4")


def real(clip):
    """The clip as it would come out of a perfect model: 8-bit pictures, sound at 44,100 Hz."""
    sound = clips.sound(clip)
    count = len(sound) * 441 // 512
    return ((clips.pictures(clip) * 255).astype(np.uint8),
            np.interp(np.arange(count) * 512 / 441, np.arange(len(sound)), sound))


def manifest(task, drawn, options, folder):
    """Writes what the engine is to render, with its pictures and sounds."""
    rng = np.random.default_rng([options.seed, 5])
    items = []
    for i, clip in enumerate(drawn):
        item = {"name": f"c{i:04}", "prompt": prompts.prompt(clip, rng), "seed": options.seed * 100_000 + i}
        if task.get("image"):
            item["image"] = f"{item['name']}.png"
            write_png(folder / item["image"], real(clip)[0][0])
        if task.get("sound"):
            item["audio"] = f"{item['name']}.wav"
            write_wav(folder / item["audio"], clips.sound(clip), clips.RATE)
        items.append(item)
    defaults = {"resolution": task.get("resolution", "64x64"), "frames": clips.PICTURES,
                "negative_prompt": prompts.NEGATIVE}
    if task.get("resolution"):
        defaults |= {"sr": "540p_sr", "base_resolution": "64x64"}
    if task.get("sound"):
        del defaults["frames"]
        defaults["seconds"] = clips.PICTURES / clips.FPS
    if "steps" in task:
        defaults["steps"] = {"base": task["steps"]}
    if task["variant"] == "base":
        strength = task["guidance"]
        defaults["guidance"] = {"video": strength, "late": strength, "audio": strength}
    made = {"version": 1, "name": "score", "model": {"path": str(options.model.resolve()), "variant": task["variant"]},
            "defaults": defaults, "items": items,
            "outputs": {"root": str((folder / "run").resolve()), "video": {"crf": 10, "preset": "fast"}, "latents": {"keep": []}}}
    path = folder / "manifest.yaml"
    path.write_text(json.dumps(made, indent=1, ensure_ascii=False))  # JSON is YAML
    return path


def render(task, drawn, options, folder):
    """Pictures, sound and seconds of work of each clip, rendered into `folder`; goes on where it was."""
    folder.mkdir(parents=True, exist_ok=True)
    path = manifest(task, drawn, options, folder)
    done = subprocess.run([options.gallop, "run", path, "--threads", str(options.threads)],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"gallop run {path} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    rows = [json.loads(line) for line in (folder / "run" / "index.jsonl").read_text().splitlines()]
    at = {name: row for row in rows for name in row["names"]}
    rows = [at[f"c{i:04}"] for i in range(len(drawn))]
    for row, read in zip(rows, read_mp4([folder / "run" / row["clip"]["path"] for row in rows])):
        yield (*read, row["seconds"]["total"])
