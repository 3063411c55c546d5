#!/usr/bin/env python3
"""The other side of tests/gpu/run.sh: the same networks in plain PyTorch, random weights, timed.

Usage: torch_bench.py WHAT [--case 256p|540p|1080p|tiny] [--variant NAME] [--device cuda|cpu] [--repeats N]

WHAT: about, ceilings, forward, decode. Variants of forward, so that the comparison is fair:
  eager     as the model is written
  compiled  torch.compile of one layer of each kind, used by all layers of that kind
  padded    compiled, with the feed-forward width 13652 padded to 13696: the best a PyTorch user would write
  fp8       padded, with row-wise scaled E4M3 products (torch._scaled_mm); rows of text and sound stay bf16
One measurement a process, one JSON object on stdout.
"""
import argparse
import json
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

CASES = {  # latent frames, rows and columns of patches, audio and text tokens; as in src/pipeline/bench_stages.cpp
    "256p": dict(grid=(32, 8, 14), audio=126, text=400, steps=8, local=False),
    "540p": dict(grid=(32, 16, 28), audio=126, text=400, steps=5, local=False),
    "1080p": dict(grid=(32, 34, 60), audio=126, text=400, steps=5, local=True),
    "tiny": dict(grid=(3, 2, 3), audio=9, text=7, steps=2, local=True),
}
PUBLISHED = dict(layers=40, width=5120, head=128, groups=8, video=192, audio=64, text=3584, reach=11,
                 mm=(0, 1, 2, 3, 36, 37, 38, 39), gelu=(0, 1, 2, 3))
TINY = dict(layers=4, width=256, head=64, groups=4, video=192, audio=64, text=64, reach=1, mm=(0, 3), gelu=(0,))
TURBO = dict(channels=(64, 128, 256, 512), layers=(2, 2, 2, 3, 3), scaling=(False, True, True, True),
             spatial=(False, True, False, False))


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(work, repeats: int, device: str, warm: int = 2) -> list[float]:
    """Seconds of each run, after some that are not counted (compilation, choice of algorithms)."""
    seconds = []
    for i in range(repeats + warm):
        synchronize(device)
        begin = time.perf_counter()
        work()
        synchronize(device)
        if i >= warm:
            seconds.append(time.perf_counter() - begin)
    return seconds


def each(work, device: str) -> float:
    """Seconds of one run, of as many in a row as take a fifth of a second."""
    work()
    count = 1
    while True:
        synchronize(device)
        begin = time.perf_counter()
        for _ in range(count):
            work()
        synchronize(device)
        spent = time.perf_counter() - begin
        if spent > 0.2 or count >= 4096:
            return spent / count
        count *= 4


def attend(q, k, v):
    """q: [L, H, K], k, v: [M, G, K] → [L, H, K]."""
    q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)[0].transpose(0, 1)


def rms(x, weight):
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (1 + weight)


def rotate(x, sine, cosine):
    n = sine.shape[-1]
    a, b, rest = x[..., :n], x[..., n:2 * n], x[..., 2 * n:]
    return torch.cat([a * cosine - b * sine, b * cosine + a * sine, rest], -1)


def quantised(x):
    """Rows scaled to E4M3. x: [L, D] → E4M3, [L, 1] f32."""
    scale = x.float().abs().amax(1, keepdim=True).clamp(min=1e-12) / 448
    return (x.float() / scale).to(torch.float8_e4m3fn), scale


class Linear:
    """One weight per expert; an E4M3 copy of those that many rows meet."""

    def __init__(self, out, depth, experts, fp8, pad_out=0, pad_depth=0, **kind):
        self.w = []
        for _ in range(experts):
            w = torch.randn(out, depth, **kind) * depth ** -0.5
            self.w.append(F.pad(w, (0, pad_depth, 0, pad_out)))
        self.low = quantised(self.w[0]) if fp8 and self.w[0].shape[0] % 16 == 0 and self.w[0].shape[1] % 16 == 0 else None
        if self.low is not None and experts == 1:
            self.w = [None]

    def tensors(self):
        return [self.w, None if self.low is None else [self.low[0].t(), self.low[1].t()]]


def multiply(x, linear, rows):
    """Each block of rows with its expert. x: bf16."""
    w, low = linear

    def one(part, i):
        if i == 0 and low is not None:
            q, scale = quantised(part)
            return torch._scaled_mm(q, low[0], scale_a=scale, scale_b=low[1], out_dtype=torch.bfloat16)
        return F.linear(part, w[i])

    if len(rows) == 1:
        return one(x, 0)
    return torch.cat([one(part, i) for i, part in enumerate(x.split(rows))])


def by_expert(f, x, weight, rows):
    if len(rows) == 1:
        return f(x, weight)
    return torch.cat([f(part, w) for part, w in zip(x.split(rows), weight.chunk(len(rows)))])


def layer(x, p, rope, sizes, shape, gelu, mm, local, kind):
    """One layer; x: the residual, f32. All of its sizes are Python numbers: one compiled version a kind."""
    heads, groups, head, frames, per_frame, reach = shape
    rows = sizes if mm else [sum(sizes)]
    u = multiply(by_expert(rms, x, p["norm"], rows).to(kind), p["qkv"], rows)
    q, k, v, gate = u[:, :(heads + 2 * groups) * head + heads].split(
        [heads * head, groups * head, groups * head, heads], 1)
    sine, cosine = rope
    q = rotate(by_expert(rms, q.view(-1, heads, head), p["q_norm"], rows), sine, cosine).to(kind)
    k = rotate(by_expert(rms, k.view(-1, groups, head), p["k_norm"], rows), sine, cosine).to(kind)
    v = v.reshape(-1, groups, head)
    if local:
        video = frames * per_frame
        parts = []
        for f in range(frames):  # the window's keys and all of the rest's: one softmax
            low, high = max(0, f - reach) * per_frame, min(frames, f + reach + 1) * per_frame
            parts.append(attend(q[f * per_frame:(f + 1) * per_frame],
                                torch.cat([k[low:high], k[video:]]), torch.cat([v[low:high], v[video:]])))
        parts.append(attend(q[video:], k, v))
        o = torch.cat(parts)
    else:
        o = attend(q, k, v)
    o = o * torch.sigmoid(gate.float())[..., None].to(kind)
    x = x + multiply(o.reshape(-1, heads * head), p["proj"], rows)
    u = multiply(by_expert(rms, x, p["mlp_norm"], rows).to(kind), p["up"], rows).float()
    if gelu:
        z = u.clamp(max=7)
        y = z * torch.sigmoid(1.702 * z)
    else:
        z, line = u[:, ::2].clamp(max=7), u[:, 1::2].clamp(-7, 7)
        y = z * torch.sigmoid(1.702 * z) * (line + 1)
    return x + multiply(y.to(kind), p["down"], rows)


class Dit:
    def __init__(self, case, variant, device, kind):
        c = TINY if case == "tiny" else PUBLISHED
        self.c, self.kind, shape = c, kind, CASES[case]
        frames, rows, columns = shape["grid"]
        self.sizes = [frames * rows * columns, shape["audio"], shape["text"]]
        d, head, groups = c["width"], c["head"], c["groups"]
        heads = d // head
        self.shape = (heads, groups, head, frames, rows * columns, c["reach"])
        how = dict(device=device, dtype=kind)
        padded, fp8 = variant in ("padded", "fp8"), variant == "fp8"

        def small(*size):
            return torch.randn(*size, device=device) * 0.1

        self.embed = [(torch.randn(d, n, device=device) * n ** -0.5, small(d))
                      for n in (c["video"], c["audio"], c["text"])]
        angles = torch.randn(sum(self.sizes), 1, 6 * (head // 8) // 2, device=device)
        self.rope = (angles.sin(), angles.cos())
        compiled = variant != "eager"
        self.layers = []
        for i in range(c["layers"]):
            e = 3 if i in c["mm"] else 1
            gelu = i in c["gelu"]
            local = shape["local"] and (i % 4 != 3 if case != "tiny" else i in (1, 2))
            inner = 4 * d if gelu else d * 8 // 3 // 4 * 4
            more = -inner % 128 if padded else 0
            up = inner if gelu else 2 * inner
            qkv = (heads + 2 * groups) * head + heads
            p = dict(norm=small(e * d), q_norm=small(e * head), k_norm=small(e * head), mlp_norm=small(e * d),
                     qkv=Linear(qkv, d, e, fp8, pad_out=-qkv % 128 if padded else 0, **how).tensors(),
                     proj=Linear(d, d, e, fp8, **how).tensors(),
                     up=Linear(up, d, e, fp8, pad_out=more if gelu else 2 * more, **how).tensors(),
                     down=Linear(d, inner, e, fp8, pad_depth=more, **how).tensors())
            self.layers.append((p, gelu, e == 3, local))
        # One function object a kind, so that each is compiled once, for its own constants.
        self.run = {}
        for _, gelu, mm, local in self.layers:
            if (gelu, mm, local) not in self.run:
                def f(x, p, rope, gelu=gelu, mm=mm, local=local):
                    return layer(x, p, rope, self.sizes, self.shape, gelu, mm, local, self.kind)
                self.run[gelu, mm, local] = torch.compile(f, dynamic=False) if compiled else f
        self.heads_out = [(small(d), torch.randn(n, d, device=device) * d ** -0.5) for n in (c["video"], c["audio"])]
        self.inputs = [torch.randn(n, w.shape[1], device=device) for n, (w, _) in zip(self.sizes, self.embed)]

    def forward(self):
        x = torch.cat([F.linear(t, w, b) for t, (w, b) in zip(self.inputs, self.embed)])
        for p, gelu, mm, local in self.layers:
            x = self.run[gelu, mm, local](x, p, self.rope)
        parts = x.split(self.sizes)
        return [F.linear(rms(t, n), w) for t, (n, w) in zip(parts, self.heads_out)]


class Turbo:
    """Turbo-VAED's decoder; pictures are [1, C, T, Y, X], channels last."""

    def __init__(self, case, device, kind):
        self.c = dict(TURBO, channels=(8, 12, 16, 24)) if case == "tiny" else TURBO
        self.how = dict(device=device, dtype=kind)
        channels = self.c["channels"]
        top = channels[-1]
        self.conv_in, self.mid = self.conv(48, top), [self.resnet(top, top) for _ in range(self.c["layers"][-1])]
        self.blocks, before = [], top
        for i in range(len(channels) - 1, -1, -1):
            out = channels[i]
            self.blocks.append(dict(
                inner=self.resnet(before, out) if before != out else None, scaling=self.c["scaling"][i],
                time=self.conv(out, 2 * out, (3, 1, 1)) if self.c["scaling"][i] and not self.c["spatial"][i] else None,
                up=self.conv(out, out, (1, 3, 3)) if self.c["scaling"][i] else None,
                nets=[self.resnet(out, out) for _ in range(self.c["layers"][i])]))
            before = out
        self.conv_out = self.conv(before, 12)

    def conv(self, i, o, k=(3, 3, 3)):
        w = torch.randn(o, i, *k, **self.how) * (i * k[0] * k[1] * k[2]) ** -0.5
        return w.to(memory_format=torch.channels_last_3d), torch.zeros(o, **self.how)

    def resnet(self, i, o):
        return self.conv(i, o), self.conv(o, o), self.conv(i, o, (1, 1, 1)) if i != o else None

    @staticmethod
    def apply(x, wb):
        w, b = wb
        if w.shape[2] == 3:  # time is padded by its ends
            x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], 2)
        return F.conv3d(x, w, b, padding=(0, w.shape[3] // 2, w.shape[4] // 2))

    @staticmethod
    def norm(x, eps=1e-8):
        return (x.float() * torch.rsqrt(x.float().square().mean(1, keepdim=True) + eps)).to(x.dtype)

    def res(self, x, net, first):
        h = self.apply(first(self.norm(x)), net[0])
        h = self.apply(F.silu(self.norm(h)), net[1])
        return h + (x if net[2] is None else self.apply(self.norm(x, 1e-6), net[2]))

    def forward(self, z, first=True):
        x = self.apply(z, self.conv_in)
        for net in self.mid:
            x = self.res(x, net, F.silu)
        for block in self.blocks:
            if block["inner"] is not None:
                x = self.res(x, block["inner"], F.silu)
            if block["scaling"]:
                if block["time"] is not None:
                    x = self.apply(x, block["time"])
                    n, c, t, h, w = x.shape
                    x = x.view(n, 2, c // 2, t, h, w).permute(0, 2, 3, 1, 4, 5).reshape(n, c // 2, 2 * t, h, w)
                    x = x[:, :, 1:] if first else x
                x = self.apply(F.interpolate(x, scale_factor=(1, 2, 2), mode="nearest"), block["up"])
            for net in block["nets"]:
                x = self.res(x, net, F.relu if block["scaling"] else F.silu)
        x = self.apply(F.silu(self.norm(x)), self.conv_out)
        n, _, t, h, w = x.shape
        x = x.view(n, 3, 2, 2, t, h, w).permute(0, 4, 5, 3, 6, 2, 1).reshape(t, 2 * h, 2 * w, 3)
        return (x.float() * 0.5 + 0.5).clamp(0, 1).mul(255).to(torch.uint8)


def chunks(frames):
    """What each call of the turbo decoder is given. Source: model/turbo_vae.cpp."""
    padded = 7 + max(0, -(-(frames - 7) // 7)) * 7
    if padded == 7:
        return [(0, 7)]
    return [(0, 8)] + [(i - 1, min(i + 8, padded)) for i in range(7, padded, 7)]


def decode(case, variant, device, kind, repeats):
    net = Turbo(case, device, kind)
    run = torch.compile(net.forward, dynamic=False) if variant == "compiled" else net.forward
    frames, rows, columns = CASES[case]["grid"]
    z = torch.randn(1, 48, frames, 2 * rows, 2 * columns, device=device).to(kind)
    z = z.to(memory_format=torch.channels_last_3d)

    def whole():
        for begin, end in chunks(frames):
            part = z[:, :, begin:min(end, frames)]
            if end > frames:
                part = torch.cat([part] + [z[:, :, -1:]] * (end - frames), 2)
            run(part, begin == 0).cpu()

    return timed(whole, repeats, device)


def ceilings(case, device, kind):
    """What the machine's libraries can do: the measure for both sides."""
    tiny, rows = case == "tiny", []

    def add(op, seconds, flop=None, **more):
        row = dict(op=op, seconds=seconds, **more)
        if flop:
            row["tflop_per_second"] = flop / seconds * 1e-12
        rows.append(row)

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
        add("attention", each(lambda: attend(q, k, k), device), 4.0 * m * m * 40 * 128, tokens=m)
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
    parser.add_argument("what", choices=("about", "ceilings", "forward", "decode"))
    parser.add_argument("--case", default="256p", choices=CASES)
    parser.add_argument("--variant", default="eager", choices=("eager", "compiled", "padded", "fp8"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--repeats", type=int, default=3)
    o = parser.parse_args()
    if o.device == "cuda" and not torch.cuda.is_available():
        print("PyTorch sees no GPU", file=sys.stderr)
        return 2
    torch.manual_seed(1)
    torch.backends.cudnn.benchmark = True
    # bf16 convolutions on a CPU are slow and prove nothing here.
    kind = torch.float32 if o.device == "cpu" and o.what in ("decode", "ceilings") else torch.bfloat16
    result = dict(what=o.what, case=o.case, variant=o.variant, device=o.device)
    backends = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with torch.inference_mode(), sdpa_kernel(backends, set_priority=True):
        if o.what == "about":
            result |= about(o.device)
        elif o.what == "ceilings":
            result["rows"] = ceilings(o.case, o.device, kind)
        elif o.what == "decode":
            result["seconds"] = decode(o.case, o.variant, o.device, kind, o.repeats)
        else:
            dit = Dit(o.case, o.variant, o.device, kind)
            last = []
            result["seconds"] = timed(lambda: last.__setitem__(slice(None), dit.forward()), o.repeats, o.device,
                                      warm=1 if o.case == "1080p" else 2)
            result["tokens"] = sum(dit.sizes)
            result["finite"] = all(bool(t.isfinite().all()) for t in last)
    if o.device == "cuda":
        result["peak_bytes"] = torch.cuda.max_memory_allocated()
    print(json.dumps(result))
    return 0


sys.exit(main())
