"""Gives the trained picture decoder the further blocks that foal.yaml asks for: new ones begin as the identity.

What a decoder makes of its latents stays as it was; train_decoder.py then teaches the new blocks. Checkpoints in --work
are rewritten: the picture VAE, what principal.py made of it, and the decoder trained since.
"""
import torch

import networks
from encode import store
from training import arguments, settings


def grown(state, config):
    """The state of a decoder with all blocks of `config`, of a state with fewer."""
    made = networks.TurboDecoder(config).state_dict()
    for name, value in made.items():
        if name in state:
            made[name] = state[name]
        elif name.endswith("conv1.conv.weight"):
            torch.nn.init.kaiming_normal_(value, nonlinearity="linear")
        else:
            value.zero_()
    return made


def main():
    options = arguments(__doc__, 0).parse_args()
    torch.manual_seed(options.seed)
    config, prefix = settings()["turbo"], "turbo."
    path = options.work / "video_vae.pt"
    content = torch.load(path, weights_only=False)
    for which in ("model", "ema"):
        turbo = {k.removeprefix(prefix): v for k, v in content[which].items() if k.startswith(prefix)}
        content[which] |= {prefix + k: v for k, v in grown(turbo, config).items()}
    store(path, content)
    path = options.work / "principal.pt"
    content = torch.load(path, weights_only=False)
    content["turbo"] = grown(content["turbo"], config)
    store(path, content)
    path = options.work / "video_decoder.pt"
    if path.exists():
        content = torch.load(path, weights_only=False)
        mean = grown(content["ema"], config)
        store(path, dict(model=mean, ema=mean))


if __name__ == "__main__":
    main()
