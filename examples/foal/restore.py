"""Reads an exported model back; as a program, makes of one the --work that training goes on from.

Running means, steps and the optimisers' state are not part of a model: with `--resume` training begins anew from its
weights, at step 0, and its minutes count from there.
"""
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

import networks
from train_text import Reader
from train_vae import AudioVae, VideoVae
from training import arguments, settings


def state_of(folder):
    """A folder's one shard, unpacked where it is a .zst."""
    found = next(iter(sorted(folder.glob("model-*"))))
    with tempfile.TemporaryDirectory() as spare:
        if found.suffix == ".zst":
            plain = Path(spare) / "model.safetensors"
            subprocess.run(["zstd", "-d", "-q", str(found), "-o", str(plain)], check=True)
            found = plain
        return {k: v.float() for k, v in load_file(found).items()}


def bare(state, prefix):
    return {k.removeprefix(prefix): v for k, v in state.items()}


def transformer(model, variant, c):
    """c: the model's settings, as in foal.yaml."""
    extra = {k: v for k, v in c["variants"][variant].items() if k in c["dit"]}
    net = networks.Transformer(c["dit"] | extra)
    net.load_state_dict(state_of(model / variant))
    return net.eval()


def text_encoder(model, c):
    net = networks.TextEncoder(c["text"]["encoder"])
    net.load_state_dict(bare(state_of(model / "t5gemma-9b-9b-ul2"), "model.encoder."))
    return net.eval()


def wan_encoder(model, c):
    net = networks.WanEncoder(c["wan"])
    net.load_state_dict(torch.load(model / "Wan2.2_VAE.pth"))
    return net.eval()


def turbo_decoder(model, c):
    net = networks.TurboDecoder(c["turbo"])
    net.load_state_dict(bare(torch.load(model / "turbo_vae/checkpoint-340000.ckpt")["ema_state_dict"], "module."))
    return net.eval()


def oobleck(model, c):
    vae = c["audio"]["model"]["pretransform"]["config"]
    net = networks.Oobleck(vae["encoder"]["config"], vae["decoder"]["config"])
    net.load_state_dict(bare(load_file(model / "stable-audio-open-1.0/model.safetensors"), "pretransform.model."))
    return net.eval()


def folded(vae):
    """Its encoder's standardisation is part of the weights already: folding it again changes nothing."""
    vae.standard.running_var.fill_(1 - vae.standard.eps)
    return vae


def main():
    p = arguments(__doc__, 0)
    p.add_argument("--model", type=Path, default=Path(__file__).with_name("model"))
    options = p.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    c = settings()
    video, audio, reader = folded(VideoVae(c)), folded(AudioVae(c)), Reader(c["text"]["encoder"])
    video.wan, video.turbo = wan_encoder(options.model, c), turbo_decoder(options.model, c)
    audio.oobleck, reader.encoder = oobleck(options.model, c), text_encoder(options.model, c)
    made = dict(video_vae=video, audio_vae=audio, text=reader)
    made |= {v: transformer(options.model, v, c) for v in c["variants"] if (options.model / v).exists()}
    for name, net in made.items():
        state = net.state_dict()
        torch.save(dict(model=state, ema=state, step=0, spent=0.0, optimisers=[]), options.work / f"{name}.pt")
    shutil.copy(options.model / "t5gemma-9b-9b-ul2" / "tokenizer.model", options.work / "tokenizer.model")
    print(options.work, *made)


if __name__ == "__main__":
    main()
