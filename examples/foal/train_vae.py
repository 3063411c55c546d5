"""Trains the picture VAE (Wan encoder, Turbo-VAED decoder) or the sound VAE (Oobleck).

Between encoder and decoder every latent channel is standardised, and noise is added: the decoder must bear latents
that were generated. `fold` then writes the standardisation into the encoder's last convolution.
"""
import numpy
import torch
import torch.nn.functional as F
from torch import nn

import clips
import networks
from training import Run, arguments, settings


class VideoVae(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.wan, self.turbo = networks.WanEncoder(c["wan"]), networks.TurboDecoder(c["turbo"])
        self.standard = nn.BatchNorm3d(48, affine=False, momentum=0.02)

    def forward(self, x, sigma):
        z = self.standard(self.wan(x))
        return self.turbo(z + sigma * torch.randn_like(z)), z

    def fold(self):
        """The encoder and decoder, standardisation folded in."""
        s, conv = self.standard, self.wan.conv1
        scale = torch.rsqrt(s.running_var + s.eps)
        std, mean = networks.LATENT_STD, networks.LATENT_MEAN
        # normalised = (conv − mean)/std; wanted (normalised − m)·scale, that is conv' = conv·scale + shift
        shift = mean - scale * mean - s.running_mean * scale * std
        with torch.no_grad():
            conv.weight[:48] *= scale[:, None, None, None, None]
            conv.bias[:48] = conv.bias[:48] * scale + shift
        s.running_mean.zero_()
        s.running_var.fill_(1 - s.eps)
        return self.wan, self.turbo


class AudioVae(nn.Module):
    def __init__(self, c):
        super().__init__()
        k = c["audio"]["model"]["pretransform"]["config"]
        self.oobleck = networks.Oobleck(k["encoder"]["config"], k["decoder"]["config"])
        self.standard = nn.BatchNorm1d(64, affine=False, momentum=0.02)

    def forward(self, x, sigma):
        z = self.standard(self.oobleck.encoder(x)[:, :64])
        return self.oobleck.decoder(z + sigma * torch.randn_like(z)), z

    def fold(self, spread=0.1):
        """The network with the standardisation folded in; the posterior's deviation becomes `spread`."""
        s, conv = self.standard, self.oobleck.encoder.layers[-1]
        scale = torch.rsqrt(s.running_var + s.eps)
        with torch.no_grad():
            conv.weight_g[:64] *= scale[:, None, None]
            conv.bias[:64] = (conv.bias[:64] - s.running_mean) * scale
            conv.weight_g[64:] = 0.0
            conv.bias[64:] = float(torch.log(torch.expm1(torch.tensor(spread - 1e-4, dtype=torch.float64))))
        s.running_mean.zero_()
        s.running_var.fill_(1 - s.eps)
        return self.oobleck


def straight(net):
    """Begins near a chain of linear filters: there the two halves find each other soonest."""
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, networks.NormedConv):
                v = m.weight_v
                v.normal_(0, (2 * len(v) if m.apply_conv is F.conv_transpose1d else v[0].numel()) ** -0.5)
                m.weight_g.copy_(v.flatten(1).norm(dim=1)[:, None, None])
                if hasattr(m, "bias"):
                    m.bias.zero_()
            if isinstance(m, networks.Snake):
                m.alpha.fill_(-2.0)
        for m in net.modules():
            if isinstance(m, networks.Unit):
                m.layers[3].weight_g *= 0.1
        net.decoder.layers[-1].weight_g *= 0.1


def video_batch(rng, count, latents):
    pictures = 4 * latents - 3
    made = []
    for _ in range(count):
        clip = clips.draw_clip(rng)
        begin = 0 if rng.random() < 0.3 else int(rng.integers(0, clips.PICTURES - pictures))
        if rng.random() < 0.25:  # a cut-out of the picture at twice the size, for super-resolution
            large = clips.pictures(clip, begin, pictures, scale=2)
            x = min(max(int(2 * clip.x - 32 + rng.uniform(-16, 16)), 0), 64)
            y = int(rng.integers(16, 65))
            made.append(large[:, y : y + 64, x : x + 64])
        else:
            made.append(clips.pictures(clip, begin, pictures))
    return torch.from_numpy(numpy.stack(made)).permute(0, 4, 1, 2, 3) * 2 - 1


def video_loss(y, x, fine):
    """Squares, the body's surroundings counting nine times; when `fine`, absolute values and edges as well, and the
    body's outline, which tells its shape, most of all.

    Absolute values from the start end in one grey for all: their slope is as steep for a shade as for a body.
    """
    body = ((x.amax(1, keepdim=True) - x.amin(1, keepdim=True)) > 0.5).float()
    weight = 1 + 8 * F.max_pool3d(body, (1, 5, 5), stride=1, padding=(0, 2, 2))
    if fine:
        grown, shrunk = (F.max_pool3d(b, (1, 3, 3), stride=1, padding=(0, 1, 1)) for b in (body, 1 - body))
        weight = weight + 20 * grown * shrunk
    loss = (weight * (y - x).square()).mean() / weight.mean()
    if fine:
        loss = loss + 0.3 * (weight * (y - x).abs()).mean() / weight.mean()
        loss = loss + 0.2 * sum(((y.diff(dim=d) - x.diff(dim=d)).abs()).mean() for d in (2, 3, 4) if x.shape[d] > 1)
    return loss


def audio_batch(rng, count, latents):
    made = []
    for _ in range(count):
        clip = clips.draw_clip(rng)
        times = clip.impacts()
        at = int(times[rng.integers(len(times))] * 25) - int(rng.integers(-1, latents))
        at = min(max(at, 0), clips.PICTURES - latents)
        made.append(clips.sound(clip)[at * 2048 : (at + latents) * 2048])
    return torch.from_numpy(numpy.stack(made))[:, None].repeat(1, 2, 1)


def spectra(x):
    x = x.flatten(0, 1)
    for n in (128, 512, 2048):
        s = torch.stft(x, n, n // 4, window=torch.hann_window(n), return_complex=True)
        yield torch.sqrt(s.real.square() + s.imag.square() + 1e-6)


def audio_loss(y, x, tones):
    """Share of the power that is missed; `tones` is the weight of the spectra's magnitudes."""
    loss = (y - x).square().mean() / x.square().mean().clamp(min=0.003)
    if tones:
        apart = [(a - b).abs().mean() / (b.mean() + 0.01) for a, b in zip(spectra(y), spectra(x))]
        loss = loss + tones * sum(apart)
    return loss


def main():
    p = arguments(__doc__, 25)
    p.add_argument("what", choices=["video", "audio"])
    p.add_argument("--batch", type=int)
    p.add_argument("--rate", type=float)
    p.add_argument("--noise", type=float, default=0.3, help="most that is added to standardised latents")
    options = p.parse_args()
    video = options.what == "video"
    model = (VideoVae if video else AudioVae)(settings())
    if video:
        for m in model.modules():
            if isinstance(m, (nn.Conv3d, nn.Conv2d)):
                nn.init.kaiming_normal_(m.weight, nonlinearity="linear")
                nn.init.zeros_(m.bias)
        with torch.no_grad():  # blocks begin near the identity
            for m in model.modules():
                if isinstance(m, networks.WanBlock):
                    m.residual[6].weight *= 0.1
                if isinstance(m, networks.TurboBlock):
                    m.conv2.conv.weight *= 0.1
            model.turbo.decoder.conv_out.conv.weight *= 0.1
        # Norms over channels follow one another: where biases grow first, they drown the picture for good. A second
        # run, that starts with the weights of a first, frees them.
        for name, p in model.named_parameters():
            if not options.start and name.endswith("bias") and not name.startswith(("wan.conv1", "turbo.decoder.conv_out")):
                p.requires_grad_(False)
    else:
        straight(model.oobleck)
    run = Run(f"{options.what}_vae", options, model, rate=options.rate or (1e-3 if video else 3e-3), ema=0.995, betas=(0.9, 0.99))
    print("parameters", sum(q.numel() for q in model.parameters()), flush=True)
    while run.going():
        # Towards the end the standardisation stands still: it is folded into the weights.
        model.standard.train(run.share() < 0.7)
        if video:
            # Single pictures first: eight times as many changes of the weights a second.
            latents = 1 if run.share() < 0.2 and not options.start else 5 if run.step % 4 == 0 else 3
            x = video_batch(run.rng, (options.batch or 4) * (2 if latents == 1 else 1), latents)
        else:
            x = audio_batch(run.rng, options.batch or 8, 4)
        sigma = options.noise * min(1, 2 * run.share()) * torch.rand(len(x), *[1] * (x.ndim - 1))
        y, z = model(x, sigma)
        loss = video_loss(y, x, options.start or run.share() > 0.6) if video else audio_loss(y, x, 0.3 * (run.share() > 0.6))
        if not model.standard.training:  # keep them standard
            loss = loss + 0.01 * (z.mean() ** 2 + (z.var() - 1) ** 2)
        run.descend(loss, l1=(y - x).abs().mean().detach())


if __name__ == "__main__":
    main()
