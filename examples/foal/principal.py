"""Turns the picture latents: their principal components come first, what is left of the 48 channels stays empty.

The picture VAE fills 48 channels, but their variance lies in few directions. A velocity is mostly the noise of all
channels, so each empty one that the transformer need not carry makes its work easier. The rotation is written into the
encoder's last convolution and the decoder's first. Goes after train_vae.py; train_decoder.py gets the decoder used to it.
"""
import numpy as np
import torch

import clips
import networks
from encode import store, trained, video_latents
from training import arguments


def components(latents, count):
    """T [count, 48]: latents to components, and its inverse [48, count]; the latents' mean.

    Deviations become their square roots, over the root of their mean: coarse things still lead, but not by as much.
    """
    x = latents.transpose(0, 1).flatten(1).double()
    variance, u = torch.linalg.eigh(torch.cov(x))
    variance, u = variance.flip(0)[:count], u.flip(1)[:, :count]
    print("share of the variance", [round(float(v), 3) for v in variance.cumsum(0) / x.var(1).sum()], flush=True)
    scale = (variance.sqrt() / variance.sqrt().mean()).sqrt() / variance.sqrt()
    return (u * scale).T, u / scale, x.mean(1)


@torch.no_grad()
def turn(wan, turbo, forth, back, middle):
    mean, std = networks.LATENT_MEAN.double(), networks.LATENT_STD.double()
    n = len(forth)
    # Encoder: components of (made − mean)/std − middle, written back as the published normalisation expects them.
    conv = wan.conv1
    w, b = conv.weight[:48].double().flatten(1), conv.bias[:48].double()
    rows = forth / std * std[:n, None]
    conv.weight[:48] = 0
    conv.bias[:48] = mean.float()
    conv.weight[:n] = (rows @ w).float()[:, :, None, None, None]
    conv.bias[:n] = (rows @ (b - mean - std * middle) + mean[:n]).float()
    # Decoder: what it is given is components·std + mean; the constant goes into the bias (at the edges only nearly).
    conv = turbo.decoder.conv_in.conv
    w = conv.weight.double()
    columns = std[:, None] * back / std[:n]
    constant = mean + std * middle - columns @ mean[:n]
    conv.bias += torch.einsum("octyx,c->o", w, constant).float()
    conv.weight.zero_()
    conv.weight[:, :n] = torch.einsum("octyx,ck->oktyx", w, columns).float()


def main():
    options = arguments(__doc__, 0).parse_args()
    torch.set_num_threads(1)
    (wan, turbo), _ = trained(options)
    rng = np.random.default_rng([options.seed, 78])
    with torch.no_grad():
        latents = video_latents([clips.draw_clip(rng) for _ in range(256)], wan)
        turn(wan, turbo, *components(latents, networks.FILLED))
        again = video_latents([clips.draw_clip(rng) for _ in range(8)], wan)
    print("deviations", again.transpose(0, 1).flatten(1).std(1)[: networks.FILLED + 1], flush=True)
    store(options.work / "principal.pt", dict(wan=wan.state_dict(), turbo=turbo.state_dict()))


if __name__ == "__main__":
    main()
