"""Writes encode-rest.safetensors: a sound whose last samples fill no latent, and what PyTorch's encoder makes of it.

The network is examples/foal's, here judged by the authors' own case before it judges others. The case also says
what the samples that fill no latent are worth: how far the last latent is off without them.

    python3 make.py        (torch 2, safetensors; seed 1000)
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
sys.path.append(str(HERE.parents[2] / "examples/foal"))
import networks  # noqa: E402

config = json.loads((HERE / "model_config.json").read_text())["model"]["pretransform"]["config"]
oobleck = networks.Oobleck(config["encoder"]["config"], config["decoder"]["config"])
stored = load_file(HERE / "model.safetensors")
oobleck.load_state_dict({name.removeprefix("pretransform.model."): value for name, value in stored.items()})


@torch.no_grad()
def encode(sound):
    return oobleck.encoder(sound[None])[0].contiguous()


authors = load_file(HERE / "case-short.safetensors")
error = (encode(authors["encoder_in"]) - authors["encoder_mean_scale"]).abs().max() / authors["encoder_mean_scale"].abs().max()
assert error < 5e-4, error

torch.manual_seed(1000)
sound = torch.randn(2, 3 * 2048 + 1000) * 0.1
latent = encode(sound)
assert latent.shape == (128, 3), latent.shape
without = encode(sound[:, : 3 * 2048])
worth = ((latent - without)[:, -1].norm() / latent[:, -1].norm()).item()
save_file({"encoder_in": sound, "encoder_mean_scale": latent}, HERE / "encode-rest.safetensors",
          {"torch": torch.__version__, "seed": "1000", "rest": f"{worth:.2e}"})
print(f"authors' case {error:.1e}, rest {worth:.2e}")
