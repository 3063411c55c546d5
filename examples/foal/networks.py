"""foal's networks in PyTorch, written anew after the description of the published ones.

Parameters have the published tensor names, so that a state_dict is a checkpoint. Pictures are [B, 3, T, Y, X] in
[-1, 1], video latents [B, 48, T, Y/16, X/16] normalised, sound [B, 2, S], sound latents [B, 64, A].
"""
import torch
import torch.nn.functional as F
from torch import nn

FILLED = 12  # channels of the picture latents that carry anything (principal.py); the others are zero
LATENT_MEAN = torch.tensor([
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667])
LATENT_STD = torch.tensor([
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744])


def by_channel(values):
    return values[None, :, None, None, None]


def fold(x):
    """[B, C, T, Y, X] → [B, 4C, T, Y/2, X/2]; channel c·4 + ix·2 + iy."""
    b, c, t, y, w = x.shape
    x = x.view(b, c, t, y // 2, 2, w // 2, 2).permute(0, 1, 6, 4, 2, 3, 5)
    return x.reshape(b, 4 * c, t, y // 2, w // 2)


def unfold(x):
    b, c, t, y, w = x.shape
    x = x.view(b, c // 4, 2, 2, t, y, w).permute(0, 1, 4, 5, 3, 6, 2)
    return x.reshape(b, c // 4, t, 2 * y, 2 * w)


# --- Wan2.2 VAE, encoder ------------------------------------------------------------------------------------------

class Causal(nn.Conv3d):
    """A convolution over time that looks back only; zeros before the clip."""

    def forward(self, x):
        return super().forward(F.pad(x, (0, 0, 0, 0, self.kernel_size[0] - 1, 0)))


class Gamma(nn.Module):
    def __init__(self, width, axes):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width, *[1] * axes))

    def forward(self, x):
        return F.normalize(x, dim=1, eps=1e-12) * x.shape[1] ** 0.5 * self.gamma


class WanBlock(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.residual = nn.Sequential(Gamma(i, 3), nn.SiLU(), Causal(i, o, 3, padding=(0, 1, 1)), Gamma(o, 3),
                                      nn.SiLU(), nn.Identity(), Causal(o, o, 3, padding=(0, 1, 1)))
        if i != o:
            self.shortcut = nn.Conv3d(i, o, 1)

    def forward(self, x):
        return self.residual(x) + (self.shortcut(x) if hasattr(self, "shortcut") else x)


class WanAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = Gamma(width, 2)
        self.to_qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, x):
        b, c, t, y, w = x.shape
        frames = x.transpose(1, 2).reshape(b * t, c, y, w)
        q, k, v = self.to_qkv(self.norm(frames)).view(b * t, 3, c, y * w).transpose(2, 3).unbind(1)
        o = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b * t, c, y, w)
        return x + self.proj(o).view(b, t, c, y, w).transpose(1, 2)


class WanDown(nn.Module):
    """Halves the picture, and the time too when `temporal`; the first frame stays one."""

    def __init__(self, width, temporal):
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(width, width, 3, stride=2))
        if temporal:
            self.time_conv = nn.Conv3d(width, width, (3, 1, 1), stride=(2, 1, 1))

    def forward(self, x):
        b, c, t, y, w = x.shape
        x = self.resample(x.transpose(1, 2).reshape(b * t, c, y, w))
        x = x.view(b, t, c, y // 2, w // 2).transpose(1, 2)
        if not hasattr(self, "time_conv") or t == 1:
            return x
        return torch.cat([x[:, :, :1], self.time_conv(x)], 2)


class WanStage(nn.Module):
    def __init__(self, i, o, blocks, resample, temporal):
        super().__init__()
        layers = [WanBlock(i if n == 0 else o, o) for n in range(blocks)]
        if resample:
            layers.append(WanDown(o, temporal))
        self.downsamples = nn.Sequential(*layers)
        self.out, self.ft, self.fs = o, 2 if temporal else 1, 2 if resample else 1

    def forward(self, x):
        short = x
        if x.shape[2] % self.ft:
            short = F.pad(short, (0, 0, 0, 0, 1, 0))
        b, c, t, y, w = short.shape
        short = short.view(b, c, t // self.ft, self.ft, y // self.fs, self.fs, w // self.fs, self.fs)
        short = short.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, self.out, -1, t // self.ft, y // self.fs, w // self.fs)
        return self.downsamples(x) + short.mean(2)


class WanEncoder(nn.Module):
    """Keys as in the architecture file's `wan`."""

    def __init__(self, c):
        super().__init__()
        widths = [c["dim"]] + [c["dim"] * m for m in c["dim_mult"]]
        n = len(c["dim_mult"])
        top, z = widths[-1], c["z_dim"]
        self.encoder = nn.Module()
        self.encoder.conv1 = Causal(12, widths[0], 3, padding=(0, 1, 1))
        self.encoder.downsamples = nn.Sequential(*[
            WanStage(widths[i], widths[i + 1], c["num_res_blocks"], i + 1 < n,
                     i + 1 < n and c["temperal_downsample"][i]) for i in range(n)])
        self.encoder.middle = nn.Sequential(WanBlock(top, top), WanAttention(top), WanBlock(top, top))
        self.encoder.head = nn.Sequential(Gamma(top, 3), nn.SiLU(), Causal(top, 2 * z, 3, padding=(0, 1, 1)))
        self.conv1 = nn.Conv3d(2 * z, 2 * z, 1)

    def forward(self, x):
        e = self.encoder
        mean = self.conv1(e.head(e.middle(e.downsamples(e.conv1(fold(x))))))[:, :48]
        return (mean - by_channel(LATENT_MEAN)) / by_channel(LATENT_STD)


# --- Turbo-VAED, decoder ------------------------------------------------------------------------------------------

def rms(x, eps=1e-8):
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + eps)


class TurboConv(nn.Module):
    """Time is padded by repeating the first and the last frame."""

    def __init__(self, i, o, k):
        super().__init__()
        self.conv = nn.Conv3d(i, o, k, padding=(0, k[1] // 2, k[2] // 2))

    def forward(self, x):
        if self.conv.kernel_size[0] == 3:
            x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], 2)
        return self.conv(x)


class TurboBlock(nn.Module):
    def __init__(self, i, o, first):
        super().__init__()
        self.first = first
        self.conv1, self.conv2 = TurboConv(i, o, (3, 3, 3)), TurboConv(o, o, (3, 3, 3))
        if i != o:
            self.conv_shortcut = TurboConv(i, o, (1, 1, 1))

    def forward(self, x):
        h = self.conv2(F.silu(rms(self.conv1(self.first(rms(x))))))
        return h + (self.conv_shortcut(rms(x, 1e-6)) if hasattr(self, "conv_shortcut") else x)


class TurboUpsampler(nn.Module):
    def __init__(self, width, temporal):
        super().__init__()
        self.resample = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1))
        if temporal:
            self.time_conv = TurboConv(width, 2 * width, (3, 1, 1))

    def forward(self, x, first_chunk):
        if hasattr(self, "time_conv"):
            b, c, t, y, w = x.shape
            x = self.time_conv(x).view(b, 2, c, t, y, w).permute(0, 2, 3, 1, 4, 5).reshape(b, c, 2 * t, y, w)
            x = x[:, :, 1:] if first_chunk else x
        b, c, t, y, w = x.shape
        x = self.resample(x.transpose(1, 2).reshape(b * t, c, y, w))
        return x.view(b, t, c, 2 * y, 2 * w).transpose(1, 2)


class TurboUp(nn.Module):
    def __init__(self, i, o, layers, scaling, spatial_only):
        super().__init__()
        if i != o:
            self.conv_in = TurboBlock(i, o, F.silu)
        if scaling:
            self.upsamplers = nn.ModuleList([TurboUpsampler(o, not spatial_only)])
        self.resnets = nn.ModuleList([TurboBlock(o, o, F.relu if scaling else F.silu) for _ in range(layers)])

    def forward(self, x, first_chunk):
        if hasattr(self, "conv_in"):
            x = self.conv_in(x)
        if hasattr(self, "upsamplers"):
            x = self.upsamplers[0](x, first_chunk)
        for block in self.resnets:
            x = block(x)
        return x


class TurboDecoder(nn.Module):
    """Keys as in the decoder's JSON file. One call decodes one stretch of latent frames."""

    def __init__(self, c):
        super().__init__()
        widths, layers = c["decoder_block_out_channels"], c["decoder_layers_per_block"]
        n, top = len(widths), widths[-1]
        d = self.decoder = nn.Module()
        d.conv_in = TurboConv(48, top, (3, 3, 3))
        d.mid_block = nn.Module()
        d.mid_block.resnets = nn.ModuleList([TurboBlock(top, top, F.silu) for _ in range(layers[-1])])
        d.up_blocks = nn.ModuleList([
            TurboUp(widths[min(i + 1, n - 1)], widths[i], layers[i], c["decoder_spatio_temporal_scaling"][i],
                    c["decoder_spatio_only"][i]) for i in reversed(range(n))])
        d.conv_out = TurboConv(widths[0], 12, (3, 3, 3))

    def forward(self, z, first_chunk=True):
        d = self.decoder
        x = d.conv_in(z * by_channel(LATENT_STD) + by_channel(LATENT_MEAN))
        for block in d.mid_block.resnets:
            x = block(x)
        for up in d.up_blocks:
            x = up(x, first_chunk)
        return unfold(d.conv_out(F.silu(rms(x))))

    def decode(self, z):
        """A whole clip, in the published chunks of seven latent frames."""
        frames = z.shape[2]
        padded = 7 + max(0, -(-(frames - 7) // 7)) * 7
        z = torch.cat([z] + [z[:, :, -1:]] * (padded - frames), 2)
        if padded == 7:
            return self(z)[:, :, : 4 * frames - 3]
        parts = [self(z[:, :, :8])[:, :, :-4]]
        for i in range(7, padded, 7):
            part = self(z[:, :, i - 1 : i + 8], first_chunk=False)
            parts.append(part[:, :, 4 : 32])
        return torch.cat(parts, 2)[:, :, : 4 * frames - 3]


# --- Stable Audio Open ("Oobleck") --------------------------------------------------------------------------------

class Snake(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x):
        a, b = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return x + torch.sin(a * x).square() / (b + 1e-9)


class NormedConv(nn.Module):
    """A convolution with weight normalisation over dimension 0, by hand: the published names, and quick."""

    def __init__(self, i, o, k, stride=1, padding=0, dilation=1, transposed=False, bias=True):
        super().__init__()
        made = (nn.ConvTranspose1d if transposed else nn.Conv1d)(i, o, k)
        self.weight_v = nn.Parameter(made.weight.detach())
        self.weight_g = nn.Parameter(self.weight_v.detach().flatten(1).norm(dim=1)[:, None, None])
        if bias:
            self.bias = nn.Parameter(made.bias.detach())
        self.how = dict(stride=stride, padding=padding)
        if not transposed:
            self.how["dilation"] = dilation
        self.apply_conv = F.conv_transpose1d if transposed else F.conv1d

    def forward(self, x):
        v = self.weight_v
        w = v * (self.weight_g / v.flatten(1).norm(dim=1)[:, None, None])
        return self.apply_conv(x, w, getattr(self, "bias", None), **self.how)


class Layers(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


class Unit(Layers):
    def __init__(self, width, dilation):
        super().__init__(Snake(width), NormedConv(width, width, 7, padding=3 * dilation, dilation=dilation),
                         Snake(width), NormedConv(width, width, 1))

    def forward(self, x):
        return x + self.layers(x)


def units(width):
    return [Unit(width, d) for d in (1, 3, 9)]


class Oobleck(nn.Module):
    """c: the two halves' settings. encode gives mean and scale, [B, 128, A]."""

    def __init__(self, encoder, decoder):
        super().__init__()
        e = [encoder["channels"] * m for m in [1] + encoder["c_mults"]]
        layers = [NormedConv(2, e[0], 7, padding=3)]
        for i, s in enumerate(encoder["strides"]):
            layers.append(Layers(*units(e[i]), Snake(e[i]), NormedConv(e[i], e[i + 1], 2 * s, s, (s + 1) // 2)))
        self.encoder = Layers(*layers, Snake(e[-1]), NormedConv(e[-1], encoder["latent_dim"], 3, padding=1))
        d = [decoder["channels"] * m for m in [1] + decoder["c_mults"]]
        layers = [NormedConv(decoder["latent_dim"], d[-1], 7, padding=3)]
        for i in reversed(range(len(d) - 1)):
            s = decoder["strides"][i]
            layers.append(Layers(Snake(d[i + 1]), NormedConv(d[i + 1], d[i], 2 * s, s, (s + 1) // 2, transposed=True),
                                 *units(d[i])))
        self.decoder = Layers(*layers, Snake(d[0]), NormedConv(d[0], 2, 7, padding=3, bias=False))


# --- T5Gemma, encoder ---------------------------------------------------------------------------------------------

class OffsetNorm(nn.Module):
    """x·rsqrt(mean x² + 1e-6)·(1 + weight) over the last axis; with experts, one weight for each."""

    def __init__(self, width, experts=1):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(experts * width))
        self.width = width

    def forward(self, x, rows=None):
        w = 1 + self.weight
        if len(w) == self.width:
            return F.rms_norm(x, (self.width,), w, 1e-6)
        parts = zip(x.split(rows, 1), w.split(self.width))
        return torch.cat([F.rms_norm(part, (self.width,), v, 1e-6) for part, v in parts], 1)


class GemmaAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, k = c["hidden_size"], c["head_dim"]
        self.heads, self.groups, self.k = c["num_attention_heads"], c["num_key_value_heads"], k
        self.q_proj = nn.Linear(d, self.heads * k, bias=False)
        self.k_proj = nn.Linear(d, self.groups * k, bias=False)
        self.v_proj = nn.Linear(d, self.groups * k, bias=False)
        self.o_proj = nn.Linear(self.heads * k, d, bias=False)
        self.scale = c["query_pre_attn_scalar"] ** -0.5
        self.register_buffer("frequency", c["rope_theta"] ** (-torch.arange(0, k, 2) / k), persistent=False)

    def forward(self, x, mask):
        b, n, _ = x.shape
        angle = torch.arange(n)[:, None] * self.frequency
        sine, cosine = angle.sin(), angle.cos()

        def rotated(t):
            p, q = t.chunk(2, -1)
            return torch.cat([p * cosine - q * sine, q * cosine + p * sine], -1)

        q = rotated(self.q_proj(x).view(b, n, self.heads, self.k).transpose(1, 2))
        k = rotated(self.k_proj(x).view(b, n, self.groups, self.k).transpose(1, 2))
        v = self.v_proj(x).view(b, n, self.groups, self.k).transpose(1, 2)
        k, v = (t.repeat_interleave(self.heads // self.groups, 1) for t in (k, v))
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        return self.o_proj(o.transpose(1, 2).reshape(b, n, -1))


class GemmaMlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, m = c["hidden_size"], c["intermediate_size"]
        self.gate_proj, self.up_proj = nn.Linear(d, m, bias=False), nn.Linear(d, m, bias=False)
        self.down_proj = nn.Linear(m, d, bias=False)

    def forward(self, x):
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class GemmaLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        d = c["hidden_size"]
        self.self_attn, self.mlp = GemmaAttention(c), GemmaMlp(c)
        self.pre_self_attn_layernorm, self.post_self_attn_layernorm = OffsetNorm(d), OffsetNorm(d)
        self.pre_feedforward_layernorm, self.post_feedforward_layernorm = OffsetNorm(d), OffsetNorm(d)

    def forward(self, x, mask):
        x = x + self.post_self_attn_layernorm(self.self_attn(self.pre_self_attn_layernorm(x), mask))
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class TextEncoder(nn.Module):
    """c: the `encoder` of the text encoder's config.json. ids [B, L]; mask: [B, 1, 1, L], true where a token is."""

    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        nn.init.normal_(self.embed_tokens.weight, std=c["hidden_size"] ** -0.5)
        self.layers = nn.ModuleList([GemmaLayer(c) for _ in range(c["num_hidden_layers"])])
        self.norm = OffsetNorm(c["hidden_size"])

    def forward(self, ids, mask=None):
        x = self.embed_tokens(ids) * self.embed_tokens.weight.shape[1] ** 0.5
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)


# --- The transformer ----------------------------------------------------------------------------------------------

def patchify(z):
    """[B, 48, T, Y, X] → [B, T·(Y/2)·(X/2), 192]; feature c·4 + py·2 + px."""
    b, c, t, y, x = z.shape
    z = z.view(b, c, t, y // 2, 2, x // 2, 2).permute(0, 2, 3, 5, 1, 4, 6)
    return z.reshape(b, t * (y // 2) * (x // 2), 4 * c)


def unpatchify(v, frames, rows, columns):
    """[B, tokens, 192] with feature (py·2 + px)·48 + c → [B, 48, T, Y, X]."""
    b, _, c = v.shape
    v = v.view(b, frames, rows, columns, 2, 2, c // 4).permute(0, 6, 1, 2, 4, 3, 5)
    return v.reshape(b, c // 4, frames, 2 * rows, 2 * columns)


def rope(frames, rows, columns, audio, text, bands, style):
    """Sines and cosines of all tokens, [tokens, 3·bands] each."""
    t, y, x = torch.meshgrid(torch.arange(frames), torch.arange(rows), torch.arange(columns), indexing="ij")
    video = torch.stack([t.flatten(), y.flatten() - (rows - 1) / 2, x.flatten() - (columns - 1) / 2], 1).float()
    scale = ((audio - 1) // 4) / (audio - 1) if audio > 1 else 1.0
    sound = torch.zeros(audio, 3)
    sound[:, 0] = torch.arange(audio) * scale
    words = torch.zeros(text, 3)
    if style == "v1":
        words[:, 0] = torch.arange(text) / max(text - 1, 1)
    elif text == 1:
        words[0, 0] = -1.0
    angle = (torch.cat([video, sound, words])[:, :, None] * bands).flatten(1)
    return angle.sin(), angle.cos()


class ExpertLinear(nn.Module):
    """Three weights on top of one another, for video, audio and text; or one for all."""

    def __init__(self, i, o, experts, scale=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(experts * o, i) * (scale * i**-0.5))
        self.experts = experts

    def forward(self, x, rows, every_other=None):
        """every_other: 0 or 1 for the even or the odd outputs alone."""
        w = self.weight if every_other is None else self.weight[every_other::2]
        if self.experts == 1:
            return F.linear(x, w)
        return torch.cat([F.linear(p, v) for p, v in zip(x.split(rows, 1), w.chunk(3))], 1)


class Attention(nn.Module):
    def __init__(self, c, experts, local):
        super().__init__()
        d, k = c["hidden_size"], c["head_dim"]
        self.heads, self.groups, self.k, self.local = d // k, c["num_query_groups"], k, local
        self.pre_norm = OffsetNorm(d, experts)
        self.linear_qkv = ExpertLinear(d, (self.heads + 2 * self.groups) * k + self.heads, experts)
        self.q_norm, self.k_norm = OffsetNorm(k, experts), OffsetNorm(k, experts)
        self.linear_proj = ExpertLinear(d, d, experts, 0.1)

    def forward(self, x, rows, sine, cosine, mask):
        b, n, d = x.shape
        h, g, k = self.heads, self.groups, self.k
        u = self.linear_qkv(self.pre_norm(x, rows), rows)
        q, key, v, gate = u.split([h * k, g * k, g * k, h], 2)

        def rotated(t):
            m = sine.shape[-1]
            p, q, rest = t.split([m, m, t.shape[-1] - 2 * m], -1)
            return torch.cat([p * cosine - q * sine, q * cosine + p * sine, rest], -1)

        q = rotated(self.q_norm(q.view(b, n, h, k), rows)).transpose(1, 2)
        key = rotated(self.k_norm(key.view(b, n, g, k), rows)).transpose(1, 2)
        v = v.view(b, n, g, k).transpose(1, 2)
        key, v = (t.repeat_interleave(h // g, 1) for t in (key, v))
        o = F.scaled_dot_product_attention(q, key, v, attn_mask=mask if self.local else None)
        o = o.transpose(1, 2) * torch.sigmoid(gate)[..., None]
        return self.linear_proj(o.reshape(b, n, d), rows)


class Mlp(nn.Module):
    def __init__(self, d, experts, gelu7):
        super().__init__()
        self.gelu7 = gelu7
        inner = 4 * d if gelu7 else d * 8 // 3 // 4 * 4
        self.pre_norm = OffsetNorm(d, experts)
        self.up_gate_proj = ExpertLinear(d, inner if gelu7 else 2 * inner, experts)
        self.down_proj = ExpertLinear(inner, d, experts, 0.1)

    def forward(self, x, rows):
        h = self.pre_norm(x, rows)
        gate = self.up_gate_proj
        if self.gelu7:
            z = gate(h, rows).clamp(max=7)
            return self.down_proj(F.silu(1.702 * z) / 1.702, rows)
        # Even rows are the gate, odd ones the line.
        z, line = (gate(h, rows, rest).clamp(low, 7) for rest, low in ((0, None), (1, -7)))
        return self.down_proj(F.silu(1.702 * z) * (line + 1) / 1.702, rows)


class Transformer(nn.Module):
    """Keys of c as in the architecture file's `dit`. Takes the noisy latents and the text features, gives velocities.

    The bands of the rotary embedding are stored with the weights. foal's begin at 4 instead of 1: its clips are short,
    and a sound latent is only a quarter of a picture latent away from the next.
    """

    def __init__(self, c):
        super().__init__()
        self.c, d = c, c["hidden_size"]
        self.adapter = nn.Module()
        self.adapter.video_embedder = nn.Linear(c["video_in_channels"], d)
        self.adapter.text_embedder = nn.Linear(c["text_in_channels"], d)
        self.adapter.audio_embedder = nn.Linear(c["audio_in_channels"], d)
        self.adapter.rope = nn.Module()
        bands = c["head_dim"] // 8
        self.adapter.rope.register_buffer("bands", 4.0 * 16.0 ** (-torch.arange(bands) / (bands - 1)))
        self.block = nn.Module()
        self.block.layers = nn.ModuleList()
        for i in range(c["num_layers"]):
            layer, experts = nn.Module(), 3 if i in c["mm_layers"] else 1
            layer.attention = Attention(c, experts, i in c["local_attn_layers"])
            layer.mlp = Mlp(d, experts, i in c["gelu7_layers"])
            self.block.layers.append(layer)
        self.final_norm_video, self.final_norm_audio = OffsetNorm(d), OffsetNorm(d)
        self.final_linear_video = nn.Linear(d, c["video_in_channels"], bias=False)
        self.final_linear_audio = nn.Linear(d, c["audio_in_channels"], bias=False)
        self.tables = {}
        # A velocity is mostly the noise that came in: begin by handing the input through. Of empty channels nothing is
        # taken in, and their velocity stays zero.
        with torch.no_grad():
            for embed, head, filled in ((self.adapter.video_embedder, self.final_linear_video, 4 * FILLED),
                                        (self.adapter.audio_embedder, self.final_linear_audio, c["audio_in_channels"])):
                nn.init.zeros_(embed.weight)
                embed.weight[:, :filled] = nn.init.orthogonal_(torch.empty(d, filled))
                nn.init.zeros_(embed.bias)
                head.weight.copy_(embed.weight.T)
            n = c["video_in_channels"] // 4  # the order of a patch differs between input and output
            w = self.final_linear_video.weight
            w.copy_(w.view(n, 4, d).transpose(0, 1).reshape(4 * n, d).clone())

    def table(self, *shape):
        if shape not in self.tables:
            sine, cosine = rope(*shape, self.adapter.rope.bands, self.c["coords_style"])
            frames, rows, columns, audio, text = shape
            frame = torch.arange(frames).repeat_interleave(rows * columns)
            mask = torch.ones(len(sine), len(sine), dtype=torch.bool)
            mask[: len(frame), : len(frame)] = (frame[:, None] - frame).abs() <= self.c["frame_receptive_field"]
            self.tables[shape] = sine[:, None], cosine[:, None], mask
        return self.tables[shape]

    def forward(self, video, audio, text):
        """video [B, 48, T, Y, X], audio [B, A, 64], text [B, L, C] → velocities of the first two."""
        _, _, t, y, x = video.shape
        shape = t, y // 2, x // 2, audio.shape[1], text.shape[1]
        rows = [shape[0] * shape[1] * shape[2], shape[3], shape[4]]
        sine, cosine, mask = self.table(*shape)
        a = self.adapter
        h = torch.cat([a.video_embedder(patchify(video)), a.audio_embedder(audio), a.text_embedder(text)], 1)
        for layer in self.block.layers:
            h = h + layer.attention(h, rows, sine, cosine, mask)
            h = h + layer.mlp(h, rows)
        v, s, _ = h.split(rows, 1)
        return (unpatchify(self.final_linear_video(self.final_norm_video(v)), *shape[:3]),
                self.final_linear_audio(self.final_norm_audio(s)))
