"""The networks of torch_bench.py in plain PyTorch, as a user would write them for speed: the transformer's layers,
with weights that are drawn or stored, and the turbo decoder."""
import json
import pathlib
import struct
import sys

import torch
import torch.nn.functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples/foal"))
from networks import LATENT_MEAN, LATENT_STD, by_channel  # noqa: E402


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


class Drawn:
    """Random weights."""

    def __init__(self, device):
        self.device = device

    def vector(self, name, size):
        return torch.randn(size, device=self.device) * 0.1

    def kernel(self, name, *shape):
        fan_in = 1
        for n in shape[1:]:
            fan_in *= n
        return torch.randn(*shape, device=self.device) * fan_in ** -0.5

    def linear(self, name, experts, out, depth, kind):
        """One matrix an expert, each drawn when it is asked for: in f32 all of them would not fit."""
        return (self.kernel(name, out, depth).to(kind) for _ in range(experts))


class Stored:
    """Weights of a golden file, under their published names."""

    def __init__(self, tensors, device):
        self.tensors, self.device = tensors, device

    def kernel(self, name, *shape):
        found = self.tensors[name].to(self.device).float()
        if tuple(found.shape) != shape:
            raise ValueError(f"{name} is {tuple(found.shape)}, not {shape}")
        return found

    vector = kernel

    def linear(self, name, experts, out, depth, kind):
        return self.kernel(name, experts * out, depth).to(kind).chunk(experts)


def stored(*files):
    """The tensors of safetensors files, and what the last one says of itself."""
    tensors, about = {}, {}
    for file in files:
        data = bytearray(pathlib.Path(file).read_bytes())
        size = struct.unpack_from("<Q", data)[0]
        header = json.loads(data[8:8 + size])
        about = header.pop("__metadata__", {})
        kinds = dict(F32=torch.float32, BF16=torch.bfloat16, I32=torch.int32)
        for name, it in header.items():
            begin, end = it["data_offsets"]
            tensors[name] = torch.frombuffer(data, dtype=kinds[it["dtype"]], offset=8 + size + begin,
                                             count=(end - begin) // kinds[it["dtype"]].itemsize).reshape(it["shape"])
    return tensors, about


def linear(matrices, fp8, pad_out=0, pad_depth=0):
    """One weight per expert, and an E4M3 copy of the one that many rows meet."""
    w = [F.pad(m, (0, pad_depth, 0, pad_out)) for m in matrices]
    if not fp8 or w[0].shape[0] % 16 or w[0].shape[1] % 16:
        return [w, None]
    q, scale = quantised(w[0])
    return [w if len(w) > 1 else [None], [q.t(), scale.t()]]


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


def angles(grid, audio, text, bands, style):
    """Rotary angles of all tokens, [tokens, 1, 3·bands]: picture, sound, text."""
    frames, rows, columns = grid
    t, y, x = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    video = torch.stack([t.flatten(), y.flatten() - (rows - 1) / 2, x.flatten() - (columns - 1) / 2], 1)
    places = torch.zeros(len(video) + audio + text, 3)
    places[:len(video)] = video
    places[len(video):len(video) + audio, 0] = torch.arange(audio) * (
        ((audio - 1) // 4) / (audio - 1) if audio > 1 else 1.0)
    if style == "v1":
        places[len(video) + audio:, 0] = torch.arange(text) / max(text - 1, 1)
    elif text == 1:
        places[-1, 0] = -1.0
    return (places[:, :, None] * bands.cpu()).reshape(len(places), 1, -1)


class Dit:
    """c: sizes, as PUBLISHED. shape: grid, audio, text. local: which of its local layers are."""

    def __init__(self, c, shape, local, variant, weights, kind, style="v2"):
        self.c, self.kind = c, kind
        frames, rows, columns = shape["grid"]
        self.sizes = [frames * rows * columns, shape["audio"], shape["text"]]
        d, head, groups, device = c["width"], c["head"], c["groups"], weights.device
        heads = d // head
        self.shape = (heads, groups, head, frames, rows * columns, c["reach"])
        padded, fp8 = variant in ("padded", "fp8"), variant == "fp8"

        self.embed = [(weights.kernel(f"adapter.{of}_embedder.weight", d, c[of]),
                       weights.vector(f"adapter.{of}_embedder.bias", d)) for of in ("video", "audio", "text")]
        bands = 10000.0 ** (-torch.arange(head // 8) / (head // 8))
        if isinstance(weights, Stored):
            bands = weights.vector("adapter.rope.bands", head // 8)
        turned = angles(shape["grid"], shape["audio"], shape["text"], bands, style).to(device)
        self.rope = (turned.sin(), turned.cos())
        compiled = variant != "eager"
        self.layers = []
        for i in range(c["layers"]):
            e = 3 if i in c["mm"] else 1
            gelu = i in c["gelu"]
            inner = 4 * d if gelu else d * 8 // 3 // 4 * 4
            more = -inner % 128 if padded else 0
            up = inner if gelu else 2 * inner
            qkv = (heads + 2 * groups) * head + heads

            def vector(name, size):
                return weights.vector(f"block.layers.{i}.{name}.weight", e * size)

            def product(name, out, depth, **pad):
                return linear(weights.linear(f"block.layers.{i}.{name}.weight", e, out, depth, kind),
                              fp8 and 0 < i < c["layers"] - 1, **pad)

            p = dict(norm=vector("attention.pre_norm", d), q_norm=vector("attention.q_norm", head),
                     k_norm=vector("attention.k_norm", head), mlp_norm=vector("mlp.pre_norm", d),
                     qkv=product("attention.linear_qkv", qkv, d, pad_out=-qkv % 128 if padded else 0),
                     proj=product("attention.linear_proj", d, d),
                     up=product("mlp.up_gate_proj", up, d, pad_out=more if gelu else 2 * more),
                     down=product("mlp.down_proj", d, inner, pad_depth=more))
            self.layers.append((p, gelu, e == 3, i in local))
        # One function object a kind, so that each is compiled once, for its own constants.
        self.run = {}
        for _, gelu, mm, local in self.layers:
            if (gelu, mm, local) not in self.run:
                def f(x, p, rope, gelu=gelu, mm=mm, local=local):
                    return layer(x, p, rope, self.sizes, self.shape, gelu, mm, local, self.kind)
                self.run[gelu, mm, local] = torch.compile(f, dynamic=False) if compiled else f
        self.heads_out = [(weights.vector(f"final_norm_{of}.weight", d),
                           weights.kernel(f"final_linear_{of}.weight", c[of], d)) for of in ("video", "audio")]
        self.inputs = [torch.randn(n, w.shape[1], device=device) for n, (w, _) in zip(self.sizes, self.embed)]

    def forward(self):
        x = torch.cat([F.linear(t, w, b) for t, (w, b) in zip(self.inputs, self.embed)])
        for p, gelu, mm, local in self.layers:
            x = self.run[gelu, mm, local](x, p, self.rope)
        parts = x.split(self.sizes)
        return [F.linear(rms(t, n), w) for t, (n, w) in zip(parts, self.heads_out)]


class Turbo:
    """Turbo-VAED's decoder; pictures are [1, C, T, Y, X], channels last."""

    def __init__(self, c, weights, kind):
        self.c, self.weights, self.kind = c, weights, kind
        self.mean, self.std = (by_channel(v).to(weights.device) for v in (LATENT_MEAN, LATENT_STD))
        channels = c["channels"]
        top = channels[-1]
        self.conv_in = self.conv("conv_in.conv", 48, top)
        self.mid = [self.resnet(f"mid_block.resnets.{i}", top, top) for i in range(c["layers"][-1])]
        self.blocks, before = [], top
        for i, (out, scaling, spatial, layers) in enumerate(reversed(list(
                zip(channels, c["scaling"], c["spatial"], c["layers"])))):
            name = f"up_blocks.{i}"
            self.blocks.append(dict(
                inner=self.resnet(f"{name}.conv_in", before, out) if before != out else None, scaling=scaling,
                time=self.conv(f"{name}.upsamplers.0.time_conv.conv", out, 2 * out, (3, 1, 1))
                if scaling and not spatial else None,
                up=self.conv(f"{name}.upsamplers.0.resample.1", out, out, (3, 3)) if scaling else None,
                nets=[self.resnet(f"{name}.resnets.{k}", out, out) for k in range(layers)]))
            before = out
        self.conv_out = self.conv("conv_out.conv", before, 12)

    def conv(self, name, i, o, k=(3, 3, 3)):
        w = self.weights.kernel(f"decoder.{name}.weight", o, i, *k).to(self.kind)
        b = self.weights.vector(f"decoder.{name}.bias", o).to(self.kind)
        return (w if len(k) == 3 else w[:, :, None]).to(memory_format=torch.channels_last_3d), b

    def resnet(self, name, i, o):
        return (self.conv(f"{name}.conv1.conv", i, o), self.conv(f"{name}.conv2.conv", o, o),
                self.conv(f"{name}.conv_shortcut.conv", i, o, (1, 1, 1)) if i != o else None)

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
        return (self.pictures(z, first).float() * 0.5 + 0.5).clamp(0, 1).mul(255).to(torch.uint8)

    def pictures(self, z, first):
        """[frames, rows, columns, 3], about −1 … 1."""
        x = self.apply((z * self.std + self.mean).to(self.kind), self.conv_in)
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
        return x.view(n, 3, 2, 2, t, h, w).permute(0, 4, 5, 3, 6, 2, 1).reshape(t, 2 * h, 2 * w, 3)


def chunks(frames, first, step):
    """What each call of the turbo decoder is given. Source: model/turbo_vae.cpp."""
    padded = first + max(0, -(-(frames - first) // step)) * step
    if padded == first:
        return [(0, first)]
    return [(0, first + 1)] + [(i - 1, min(i + step + 1, padded)) for i in range(first, padded, step)]


def parts(z, c):
    """The chunks of a latent [1, 48, T, Y, X], the last one filled up with its last frame, and which is the first."""
    for begin, end in chunks(z.shape[2], c["first"], c["step"]):
        part = z[:, :, begin:end]
        if end > z.shape[2]:
            part = torch.cat([part] + [part[:, :, -1:]] * (end - max(begin, z.shape[2])), 2)
        yield part, begin == 0
