"""Goes on with one decoder while its encoder stands still, on latents of whole clips, as the transformer learns them.

So the transformer need not wait until the pictures and the sound are as good as they get.
"""
import pickle

import numpy as np
import torch

import clips
from encode import trained
from train_vae import audio_loss, video_loss
from training import Run, arguments

LATENTS = (clips.PICTURES + 3) // 4


def stretch(rng, latents, total):
    """Where a stretch of latents begins; often at the end, where bodies rest and their shape is seen best."""
    kind = rng.random()
    return 0 if kind < 0.15 else total - latents if kind < 0.5 else int(rng.integers(0, total - latents + 1))


def video_step(run, decoder, clip, latent, noise, scale):
    """One stretch of each clip; between others, the first and the last latent frame are context only."""
    count, total = (3 if scale == 2 else int(run.rng.integers(3, 6))), LATENTS
    begin = stretch(run.rng, count, total)
    z = latent[:, :, begin : begin + count]
    z = z + noise * torch.rand(len(z), 1, 1, 1, 1) * torch.randn_like(z)
    y = decoder(z, first_chunk=begin == 0)
    first = 0 if begin == 0 else 4 * begin - 3
    truth = np.stack([clips.pictures(c, first, y.shape[2], scale) for c in clip])
    x = torch.from_numpy(truth).permute(0, 4, 1, 2, 3) * 2 - 1
    front, back = (0 if begin == 0 else 4), (0 if begin + count == total else 4)
    y, x = (t[:, :, front : t.shape[2] - back] for t in (y, x))
    run.descend(video_loss(y, x, True), l1=(y - x).abs().mean())


def audio_step(run, decoder, clip, latent, noise):
    count = 6
    begin = [min(max(round(c.impacts()[run.rng.integers(c.bounces)] * clips.FPS) - int(run.rng.integers(0, count)), 0), clips.PICTURES - count)
             for c in clip]
    z = torch.stack([a[b : b + count].T for a, b in zip(latent, begin)])
    y = decoder(z + noise * torch.rand(len(z), 1, 1) * torch.randn_like(z))[:, :, 2048:-2048]
    x = [clips.sound(c)[(b + 1) * 2048 : (b + count - 1) * 2048] for c, b in zip(clip, begin)]
    x = torch.from_numpy(np.stack(x))[:, None].repeat(1, 2, 1)
    run.descend(audio_loss(y, x, 0.3), missed=audio_loss(y, x, 0))


def main():
    p = arguments(__doc__, 15)
    p.add_argument("what", choices=["video", "audio"])
    p.add_argument("--batch", type=int)
    p.add_argument("--noise", type=float, default=0.35)
    p.add_argument("--rate", type=float, default=1e-3)
    options = p.parse_args()
    (_, turbo), oobleck = trained(options)
    decoder = (turbo if options.what == "video" else oobleck.decoder).requires_grad_(True)
    run = Run(f"{options.what}_decoder", options, decoder, rate=options.rate, ema=0.995, fall=0.6, betas=(0.9, 0.99))
    shards, seen = [], set()
    while run.going():
        if run.step % 100 == 0 or not shards:
            for path in sorted((options.work / "latents").glob("*.pt")):
                if path.name not in seen:
                    shard = torch.load(path, weights_only=False)
                    if options.what not in shard:
                        continue
                    seen.add(path.name)
                    shard["clips"] = pickle.loads(shard["clips"])
                    shards.append(shard)
        doubled = [s for s in shards if "large" in s]
        large = options.what == "video" and bool(doubled) and run.rng.random() < 0.25
        choice = doubled if large else shards
        shard = choice[int(run.rng.integers(len(choice)))]
        count = options.batch or (4 if options.what == "video" else 8)
        which = run.rng.integers(len(shard["clips"]), size=max(1, count // 2) if large else count)
        clip = [shard["clips"][i] for i in which]
        if options.what == "audio":
            audio_step(run, decoder, clip, shard["audio"][which].float(), options.noise)
        else:
            latent = shard["large" if large else "video"][which].float()
            video_step(run, decoder, clip, latent, options.noise, 2 if large else 1)


if __name__ == "__main__":
    main()
