#!/usr/bin/env python3
"""The network of `gallop bench cpu` in plain PyTorch: random weights, fp32, timed.

Usage: dit_torch.py THREADS REPEATS < network.json. Prints one JSON line: version, seconds of each forward.
`gallop bench cpu` calls it, so that both run on the same machine in the same minute with the same threads.
"""
import json
import sys
import time

import torch
import torch.nn.functional as F


def experts(x, weight, rows):
    """Each block of rows with its part of the weight; one block: a plain linear."""
    if len(rows) == 1:
        return F.linear(x, weight)
    return torch.cat([F.linear(part, w) for part, w in zip(x.split(rows), weight.chunk(len(rows)))])


def rms(x, weight, rows):
    y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
    if len(rows) == 1:
        return y * (1 + weight)
    return torch.cat([part * (1 + w) for part, w in zip(y.split(rows), weight.chunk(len(rows)))])


def rotate(x, sine, cosine):
    n = sine.shape[-1]
    a, b, rest = x[..., :n], x[..., n : 2 * n], x[..., 2 * n :]
    return torch.cat([a * cosine - b * sine, b * cosine + a * sine, rest], -1)


class Dit:
    def __init__(self, c, shape):
        self.c, d, k = c, c["hidden_size"], c["head_dim"]
        self.heads, self.groups = d // k, c["num_query_groups"]
        video = shape["frames"] * shape["rows"] * shape["columns"]
        self.sizes = [video, shape["audio"], shape["text"]]

        def draw(*size):
            return torch.randn(*size) / (size[-1] ** 0.5 if len(size) > 1 else 10.0)

        self.embed = [(draw(d, n), draw(d)) for n in
                      (c["video_in_channels"], c["audio_in_channels"], c["text_in_channels"])]
        angles = torch.randn(sum(self.sizes), 1, 6 * (k // 8) // 2)
        self.sine, self.cosine = angles.sin(), angles.cos()
        self.layers = []
        for i in range(c["num_layers"]):
            e = 3 if i in c["mm_layers"] else 1
            gelu = i in c["gelu7_layers"]
            inner = 4 * d if gelu else d * 8 // 3 // 4 * 4
            qkv = (self.heads + 2 * self.groups) * k + self.heads
            self.layers.append(dict(
                rows=self.sizes if e == 3 else [sum(self.sizes)], gelu=gelu, norm=draw(e * d), qkv=draw(e * qkv, d),
                q_norm=draw(e * k), k_norm=draw(e * k), proj=draw(e * d, d), mlp_norm=draw(e * d),
                up=draw(e * (inner if gelu else 2 * inner), d), down=draw(e * d, inner)))
        self.heads_out = [(draw(d), draw(c["video_in_channels"], d)), (draw(d), draw(c["audio_in_channels"], d))]
        self.inputs = [torch.randn(n, w.shape[1]) for n, (w, _) in zip(self.sizes, self.embed)]

    def forward(self):
        k, h, g = self.c["head_dim"], self.heads, self.groups
        x = torch.cat([F.linear(t, w, b) for t, (w, b) in zip(self.inputs, self.embed)])
        for p in self.layers:
            rows = p["rows"]
            u = experts(rms(x, p["norm"], rows), p["qkv"], rows)
            q, key, v, gate = u.split([h * k, g * k, g * k, h], 1)
            q = rotate(rms(q.view(-1, h, k), p["q_norm"], rows), self.sine, self.cosine)
            key = rotate(rms(key.view(-1, g, k), p["k_norm"], rows), self.sine, self.cosine)
            v = v.view(-1, g, k)
            key, v = (t.repeat_interleave(h // g, 1) for t in (key, v))
            o = F.scaled_dot_product_attention(*(t.transpose(0, 1)[None] for t in (q, key, v)))
            o = o[0].transpose(0, 1) * torch.sigmoid(gate)[..., None]
            x = x + experts(o.reshape(-1, h * k), p["proj"], rows)
            u = experts(rms(x, p["mlp_norm"], rows), p["up"], rows)
            if p["gelu"]:
                z = u.clamp(max=7)
                y = z * torch.sigmoid(1.702 * z)
            else:
                z, line = u[:, ::2].clamp(max=7), u[:, 1::2].clamp(-7, 7)
                y = z * torch.sigmoid(1.702 * z) * (line + 1)
            x = x + experts(y, p["down"], rows)
        video, audio = self.sizes[0], self.sizes[0] + self.sizes[1]
        parts = (x[:video], x[video:audio])
        return [F.linear(rms(t, n, [len(t)]), w) for t, (n, w) in zip(parts, self.heads_out)]


def main() -> None:
    threads, repeats = int(sys.argv[1]), int(sys.argv[2])
    network = json.load(sys.stdin)
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    seconds = []
    with torch.inference_mode():
        dit = Dit(network["transformer"], network["sequence"])
        for i in range(repeats + 1):
            begin = time.perf_counter()
            dit.forward()
            if i:
                seconds.append(time.perf_counter() - begin)
    print(json.dumps({"version": torch.__version__, "seconds": seconds}))


main()
