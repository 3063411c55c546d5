#!/usr/bin/env python3
"""The other side of tests/gpu/run.sh: the same networks in plain PyTorch, random weights, timed.

Usage: torch_bench.py WHAT [--case 256p|540p|1080p|tiny] [--variant NAME,NAME…] [--device cuda|cpu] [--repeats N]
                      [--folder GOLDEN]

WHAT: about, ceilings, forward, decode; golden: the same networks with the weights of golden files, on their inputs,
against their outputs. Variants of forward, so that the comparison is fair:
  eager     as the model is written
  compiled  torch.compile of one layer of each kind, used by all layers of that kind
  padded    compiled, with the feed-forward width 13652 padded to 13696: the best a PyTorch user would write
  fp8       padded, with row-wise scaled E4M3 products (torch._scaled_mm) in all layers but the first and the last;
            rows of text and sound that have weights of their own stay bf16
Several variants are measured one after the other: "seconds" is then by variant. One measurement a process; each line
on stdout is a JSON object, the last one whole, those before it what was known by then.
"""
import argparse
import gc
import json
import pathlib
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from torch_networks import Dit, Drawn, Stored, Turbo, attend, parts, quantised, stored

CASES = {  # latent frames, rows and columns of patches, audio and text tokens; as in src/pipeline/bench_stages.cpp
    "256p": dict(grid=(32, 8, 14), audio=126, text=400, steps=8, local=False),
    "540p": dict(grid=(32, 16, 28), audio=126, text=400, steps=5, local=False),
    "1080p": dict(grid=(32, 34, 60), audio=126, text=400, steps=5, local=True),
    "tiny": dict(grid=(3, 2, 3), audio=9, text=7, steps=2, local=True),
}
# local: layers that see nearby frames only, where a case asks for them. Every fourth sees all, but none after 31.
PUBLISHED = dict(layers=40, width=5120, head=128, groups=8, video=192, audio=64, text=3584, reach=11,
                 mm=(0, 1, 2, 3, 36, 37, 38, 39), gelu=(0, 1, 2, 3), local=[i for i in range(40) if i % 4 != 3 or i > 31])
TINY = dict(layers=4, width=256, head=64, groups=4, video=192, audio=64, text=64, reach=1, mm=(0, 3), gelu=(0,),
            local=[1, 2])
ATTENTIONS = (("attention", SDPBackend.CUDNN_ATTENTION), ("attention, FlashAttention", SDPBackend.FLASH_ATTENTION))
TURBO = dict(channels=(64, 128, 256, 512), layers=(2, 2, 2, 3, 3), scaling=(False, True, True, True),
             spatial=(False, True, False, False), first=7, step=7)


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(work, repeats: int, device: str, warm: int = 2, progress=lambda seconds: None) -> list[float]:
    """Seconds of each run, after some that are not counted (compilation, choice of algorithms)."""
    seconds = []
    for i in range(repeats + warm):
        synchronize(device)
        begin = time.perf_counter()
        work()
        synchronize(device)
        if i >= warm:
            seconds.append(time.perf_counter() - begin)
            progress(seconds)
    return seconds


def each(work, device: str) -> float:
    """Seconds of one run, of as many in a row as take a fifth of a second."""
    def run(count):
        synchronize(device)
        begin = time.perf_counter()
        for _ in range(count):
            work()
        synchronize(device)
        return time.perf_counter() - begin

    work()
    spent = run(1)
    if spent > 0.2:
        return spent
    count = min(4096, int(0.25 / max(spent, 1e-6)) + 1)
    return run(count) / count


def decode(case, variant, device, kind, repeats, progress):
    """A picture's decoder, its pictures in pinned memory in the end. At 1080p in two halves, one above the other: whole
    ones have arrays of more than 2^31 elements. The halves know nothing of each other, which is in this side's favour."""
    c = dict(TURBO, channels=(8, 12, 16, 24)) if case == "tiny" else TURBO
    net = Turbo(c, Drawn(device), kind)
    run = torch.compile(net.forward, dynamic=False) if variant == "compiled" else net.forward
    frames, rows, columns = CASES[case]["grid"]
    z = torch.randn(1, 48, frames, 2 * rows, 2 * columns, device=device).to(kind)
    halves = [h.contiguous(memory_format=torch.channels_last_3d) for h in z.chunk(2 if case == "1080p" else 1, dim=3)]
    rooms = {}

    def whole():
        for i, half in enumerate(halves):
            for n, (part, first) in enumerate(parts(half, c)):
                made = run(part, first)
                if (i, n) not in rooms:
                    rooms[i, n] = torch.empty(made.shape, dtype=made.dtype, pin_memory=device == "cuda")
                rooms[i, n].copy_(made, non_blocking=True)

    return timed(whole, repeats, device, warm=1 if case == "1080p" else 2, progress=progress)


def golden(folder, device):
    """What is timed here, against the files that judge the engine: the same network, or the comparison is none."""
    rows = []

    def add(case, precision, made, expected):
        made, expected = (torch.cat([t.detach().cpu().float().flatten() for t in all]) for all in (made, expected))
        rows.append(dict(case=case, precision=precision, relative_l2=float((made - expected).norm() / expected.norm())))

    sizes = json.loads((folder / "dit-tiny/arch.json").read_text())
    weights, _ = stored(*sorted((folder / "dit-tiny/checkpoint").glob("*.safetensors")))
    for file in sorted((folder / "dit-tiny").glob("*.safetensors")):
        inputs, about = stored(file)
        c = dict(layers=sizes["num_layers"], width=sizes["hidden_size"], head=sizes["head_dim"],
                 groups=sizes["num_query_groups"], video=sizes["video_in_channels"], audio=sizes["audio_in_channels"],
                 text=sizes["text_in_channels"], reach=int(about["frame_receptive_field"]), mm=sizes["mm_layers"],
                 gelu=sizes["gelu7_layers"])
        video, audio, text = (inputs[k].to(device) for k in ("video_latent", "audio_latent", "text_embedding"))
        t, y, x = video.shape[1], video.shape[2] // 2, video.shape[3] // 2
        shape = dict(grid=(t, y, x), audio=len(audio), text=len(text))
        for kind in (torch.float32, torch.bfloat16):
            net = Dit(c, shape, json.loads(about["local_attn_layers"]), "eager", Stored(weights, device), kind,
                      about["coords_style"])
            patches = video.view(48, t, y, 2, x, 2).permute(1, 2, 4, 0, 3, 5).reshape(t * y * x, 192)
            net.inputs = [patches, audio, text]
            v, a = net.forward()
            v = v.view(t, y, x, 2, 2, 48).permute(5, 0, 1, 3, 2, 4).reshape(video.shape)
            name = "fp32" if kind == torch.float32 else "bf16"
            add(file.stem, name, (v, a), (inputs[f"out_video_{name}"], inputs[f"out_audio_{name}"]))
    sizes = json.loads((folder / "turbo-vae-tiny/turbo_vae.json").read_text())
    c = dict(channels=sizes["decoder_block_out_channels"], layers=sizes["decoder_layers_per_block"],
             scaling=sizes["decoder_spatio_temporal_scaling"], spatial=sizes["decoder_spatio_only"],
             first=sizes["first_chunk_size"], step=sizes["step_size"])
    weights, _ = stored(folder / "turbo-vae-tiny/turbo_vae.safetensors")
    net = Turbo(c, Stored(weights, device), torch.float32)
    for file in sorted((folder / "turbo-vae-tiny").glob("decode-*.safetensors")):
        inputs, _ = stored(file)
        made = []
        given = list(parts(inputs["latent"][None].to(device), c))
        for i, (part, first) in enumerate(given):  # four pictures on either side belong to the neighbours
            frames = net.pictures(part, first)
            made.append(frames[0 if first else 4:len(frames) - (4 if i + 1 < len(given) else 0)])
        add(file.stem, "fp32", [torch.cat(made)[:inputs["video"].shape[1]]], [inputs["video"].permute(1, 2, 3, 0)])
    return rows


def ceilings(case, device, kind, progress):
    """What the machine's libraries can do: the measure for both sides."""
    tiny, rows = case == "tiny", []

    def add(op, seconds, flop=None, **more):
        row = dict(op=op, seconds=seconds, **more)
        if flop:
            row["tflop_per_second"] = flop / seconds * 1e-12
        rows.append(row)
        progress(rows)

    x = torch.empty((1 << 20) if tiny else (1 << 30), dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    s = each(lambda: y.copy_(x), device)
    add("copy", s, gb_per_second=2e-9 * x.numel() / s)
    if device == "cuda":
        host = torch.empty(1 << 28, dtype=torch.uint8, pin_memory=True)
        part = x[:1 << 28]
        s = each(lambda: part.copy_(host, non_blocking=True), device)
        add("host to device", s, gb_per_second=1e-9 * host.numel() / s)
        s = each(lambda: host.copy_(part, non_blocking=True), device)
        add("device to host", s, gb_per_second=1e-9 * host.numel() / s)
    del x, y
    shapes = [("square", 64, 64, 64)] if tiny else [
        ("square", 8192, 8192, 8192)] + [(n, m, o, k) for m in (4110, 14862, 65806) for n, o, k in (
            ("qkv", 7208, 5120), ("proj", 5120, 5120), ("up", 27304, 5120), ("up padded", 27392, 5120),
            ("down", 5120, 13652), ("down padded", 5120, 13696))]
    for name, m, n, k in shapes:
        a = torch.randn(m, k, device=device).to(kind)
        b = (torch.randn(n, k, device=device) * 0.02).to(kind)
        add(f"product {name}", each(lambda: F.linear(a, b), device), 2.0 * m * n * k, tokens=m)
        if device == "cuda" and n % 16 == 0 and k % 16 == 0:
            try:
                (qa, sa), (qb, sb) = quantised(a), quantised(b)
                add(f"product fp8 {name}", each(lambda: torch._scaled_mm(
                    qa, qb.t(), scale_a=sa, scale_b=sb.t(), out_dtype=torch.bfloat16), device), 2.0 * m * n * k, tokens=m)
            except Exception as error:  # an old card or an old PyTorch
                rows.append(dict(op=f"product fp8 {name}", tokens=m, error=str(error)[:200]))
    for m in ((34,) if tiny else (4110, 14862, 65806)):
        q, k = (torch.randn(m, h, 128, device=device).to(kind) for h in (40, 8))
        for name, backend in ATTENTIONS if device == "cuda" else (("attention", SDPBackend.MATH),):
            try:
                with sdpa_kernel(backend):
                    add(name, each(lambda: attend(q, k, k), device), 4.0 * m * m * 40 * 128, tokens=m)
            except Exception as error:  # one that this PyTorch or this card does not have
                rows.append(dict(op=name, tokens=m, error=str(error)[:200]))
    for t, h, w, c in (((3, 8, 8, 16),) if tiny else (
            (11, 32, 56, 512), (20, 64, 112, 512), (38, 128, 224, 256), (38, 128, 224, 128), (38, 128, 224, 64))):
        x = torch.randn(1, c, t, h, w, device=device).to(kind).to(memory_format=torch.channels_last_3d)
        k = (torch.randn(c, c, 3, 3, 3, device=device) * 0.02).to(kind).to(memory_format=torch.channels_last_3d)
        add(f"conv3d {c} channels", each(lambda: F.conv3d(x, k, padding=(0, 1, 1)), device),
            2.0 * 27 * c * c * (t - 2) * h * w, pixels=(t - 2) * h * w)
    return rows


def about(device):
    made = dict(torch=torch.__version__, python=sys.version.split()[0], cuda=torch.version.cuda,
                cudnn=torch.backends.cudnn.version())
    if device == "cuda":
        p = torch.cuda.get_device_properties(0)
        made |= dict(device=p.name, memory_bytes=p.total_memory, multiprocessors=p.multi_processor_count,
                     capability=f"{p.major}.{p.minor}")
    return made


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("about", "ceilings", "forward", "decode", "golden"))
    parser.add_argument("--case", default="256p", choices=CASES)
    parser.add_argument("--variant", default="eager", help="eager, compiled, padded, fp8, with commas")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("tests/golden"))
    o = parser.parse_args()
    variants = o.variant.split(",")
    if unknown := set(variants) - {"eager", "compiled", "padded", "fp8"}:
        parser.error(f"--variant names {', '.join(sorted(unknown))} (eager, compiled, padded, fp8)")
    if o.device == "cuda" and not torch.cuda.is_available():
        print("PyTorch sees no GPU", file=sys.stderr)
        return 2
    torch.manual_seed(1)
    # The decoder has 57 shapes of convolutions: trying every engine for each takes longer than all else.
    torch.backends.cudnn.benchmark = o.what == "ceilings"
    if o.what == "golden":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    # bf16 convolutions on a CPU are slow and prove nothing here.
    kind = torch.float32 if o.device == "cpu" and o.what in ("decode", "ceilings") else torch.bfloat16
    result = dict(what=o.what, case=o.case, device=o.device)

    def say(**known):
        if o.device == "cuda":
            result["peak_bytes"] = torch.cuda.max_memory_allocated()
        result.update(known)
        print(json.dumps(result), flush=True)

    def by_variant(measure):
        seconds = {}

        def told(variant, so_far):
            seconds[variant] = list(so_far)
            say(seconds=seconds)

        for variant in variants:
            measure(variant, lambda so_far: told(variant, so_far))
            gc.collect()  # a network and its layers' functions know each other
            if o.device == "cuda":
                torch.cuda.empty_cache()

    def forward(variant, progress):
        c, shape = TINY if o.case == "tiny" else PUBLISHED, CASES[o.case]
        dit = Dit(c, shape, c["local"] if shape["local"] else (), variant, Drawn(o.device), kind)
        last = []
        timed(lambda: last.__setitem__(slice(None), dit.forward()), o.repeats, o.device,
              warm=1 if o.case == "1080p" else 2, progress=progress)
        result["tokens"] = sum(dit.sizes)
        result["finite"] = all(bool(t.isfinite().all()) for t in last) and result.get("finite", True)

    backends = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with torch.inference_mode(), sdpa_kernel(backends, set_priority=True):
        if o.what == "about":
            say(**about(o.device))
        elif o.what == "golden":
            say(rows=golden(o.folder, o.device))
        elif o.what == "ceilings":
            say(rows=ceilings(o.case, o.device, kind, lambda rows: say(rows=rows)))
        elif o.what == "decode":
            by_variant(lambda variant, progress: decode(o.case, variant, o.device, kind, o.repeats, progress))
        else:
            by_variant(forward)
            say()
    return 0


sys.exit(main())
