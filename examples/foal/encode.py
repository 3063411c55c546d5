"""Encodes random clips with the trained VAEs: shards of latents and of the clips' truth, for train_dit.py.

It can go on while training runs: training picks new shards up.
"""
import os
import pickle
import time

import numpy as np
import torch

import clips
from train_vae import AudioVae, VideoVae
from training import arguments, settings

SHARD = 128


def trained(options):
    """The folded VAEs: (Wan encoder, turbo decoder), Oobleck."""
    made = []
    for kind, name in ((VideoVae, "video"), (AudioVae, "audio")):
        model = kind(settings())
        model.load_state_dict(torch.load(options.work / f"{name}_vae.pt", weights_only=False)["ema"])
        parts = model.eval().requires_grad_(False).fold()
        turned = options.work / "principal.pt"  # principal.py
        if name == "video" and turned.exists():
            state = torch.load(turned, weights_only=False)
            parts[0].load_state_dict(state["wan"])
            parts[1].load_state_dict(state["turbo"])
        better = options.work / f"{name}_decoder.pt"  # trained on by train_decoder.py
        if better.exists():
            decoder = parts[1] if name == "video" else parts.decoder
            decoder.load_state_dict(torch.load(better, weights_only=False)["ema"])
        made.append(parts)
    return made


def video_latents(drawn, wan, scale=1, together=4):
    """[N, 48, T, Y, X]. Several clips at once: of one alone PyTorch takes the slow convolution."""
    made = []
    for i in range(0, len(drawn), together):
        pictures = np.stack([clips.pictures(clip, scale=scale) for clip in drawn[i : i + together]])
        made.append(wan(torch.from_numpy(pictures).permute(0, 4, 1, 2, 3) * 2 - 1))
    return torch.cat(made)


def audio_latents(drawn, oobleck):
    """The posterior's means, [N, A, 64]."""
    made = []
    for clip in drawn:
        sound = torch.from_numpy(clips.sound(clip))[None, None].repeat(1, 2, 1)
        made.append(oobleck.encoder(sound)[:, :64].transpose(1, 2))
    return torch.cat(made)


def store(path, content):
    torch.save(content, path.with_suffix(".partial"))
    os.replace(path.with_suffix(".partial"), path)


def main():
    p = arguments(__doc__, 10)
    p.add_argument("--scale", type=int, default=1, help="2: also the pictures at twice the size")
    p.add_argument("--first", type=int, default=0, help="number of the first shard")
    p.add_argument("--last", type=int, default=10000)
    p.add_argument("--only", choices=["video", "audio"], help="audio: add the sound to shards that lack it")
    options = p.parse_args()
    torch.set_num_threads(1)
    (wan, _), oobleck = trained(options)
    folder = options.work / "latents"
    folder.mkdir(exist_ok=True)
    begin = time.monotonic()
    if options.only == "audio":
        for path in sorted(folder.glob("*.pt")):
            made = torch.load(path, weights_only=False)
            if "audio" not in made:
                made["audio"] = audio_latents(pickle.loads(made["clips"]), oobleck).half()
                store(path, made)
                print(path.name, f"{time.monotonic() - begin:.0f}s", flush=True)
        return
    for shard in range(options.first, options.last + 1):
        if time.monotonic() - begin > options.minutes * 60:
            break
        path = folder / f"{'large' if options.scale == 2 else 'small'}-{shard:05}.pt"
        if path.exists():
            continue
        rng = np.random.default_rng([options.seed, 77, shard])
        drawn = [clips.draw_clip(rng) for _ in range(SHARD)]
        made = dict(video=video_latents(drawn, wan).half(), clips=pickle.dumps(drawn))
        if options.only is None:
            made["audio"] = audio_latents(drawn, oobleck).half()
        if options.scale == 2:
            made["large"] = video_latents(drawn, wan, 2).half()
        store(path, made)
        print(path.name, f"{time.monotonic() - begin:.0f}s", flush=True)


if __name__ == "__main__":
    main()
