"""Goes on with one decoder while its encoder stands still, on latents of whole clips, as the transformer learns them.

So the transformer need not wait until the pictures and the sound are as good as they get.
"""
import pickle

import numpy as np
import torch

import clips
import networks
from encode import trained
from train_vae import audio_loss, video_loss
from training import Run, arguments

LATENTS = (clips.PICTURES + 3) // 4


def disturbed(z, noise):
    """Latents with noise, of another strength each; in generated ones empty channels are nothing but noise."""
    added = torch.rand(len(z), 1, 1, 1, 1) * torch.randn_like(z)
    added[:, : networks.FILLED] *= noise
    return z + added


def stretch(rng, total):
    """Begin and length of a stretch of latents; often the end, where bodies rest and their shape is seen best."""
    kind = rng.random()
    if kind < 0.5:
        return total - 2, 2
    return (0, 3) if kind < 0.65 else (int(rng.integers(0, total - 3)), 4)


def video_step(run, decoder, clip, latent, begin, noise, scale):
    """A stretch of each clip; between others, the first and the last latent frame are context only."""
    count = latent.shape[2]
    y = decoder(disturbed(latent, noise), first_chunk=begin == 0)
    first = 0 if begin == 0 else 4 * begin - 3
    truth = np.stack([clips.pictures(c, first, y.shape[2], scale) for c in clip])
    x = torch.from_numpy(truth).permute(0, 4, 1, 2, 3) * 2 - 1
    front, back = (0 if begin == 0 else 4), (0 if begin + count == LATENTS else 4)
    y, x = (t[:, :, front : t.shape[2] - back] for t in (y, x))
    run.descend(video_loss(y, x, True), l1=(y - x).abs().mean())


def picture_step(run, wan, decoder, count, noise, scale):
    """Single pictures, new ones every time, as if clips began with them. A clip costs what a dozen of these do, and
    differs in shape and colour but once.
    """
    drawn, at = [clips.draw_clip(run.rng) for _ in range(count)], run.rng.integers(clips.PICTURES, size=count)
    truth = np.stack([clips.pictures(c, int(t), 1, scale) for c, t in zip(drawn, at)])
    x = torch.from_numpy(truth).permute(0, 4, 1, 2, 3) * 2 - 1
    with torch.no_grad():
        z = wan(x)
    y = decoder(disturbed(z, noise))
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
    (wan, turbo), oobleck = trained(options)
    decoder = (turbo if options.what == "video" else oobleck.decoder).requires_grad_(True)
    run = Run(f"{options.what}_decoder", options, decoder, rate=options.rate, ema=0.99, fall=0.6, betas=(0.9, 0.99),
              muon=[(p, 1) for p in decoder.parameters() if p.ndim == 5] if options.what == "video" else [])
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
        if options.what == "video" and run.rng.random() < 0.5:
            large = run.rng.random() < 0.15
            picture_step(run, wan, decoder, 12 if large else 48, options.noise, 2 if large else 1)
            continue
        doubled = [s for s in shards if "large" in s]
        large = options.what == "video" and bool(doubled) and run.rng.random() < 0.15
        # Mostly latents that base made (remake.py): it is their pictures that are wanted.
        remade = [s for s in shards if "audio" not in s] if run.rng.random() < 0.7 else []
        choice = doubled if large else remade or shards
        shard = choice[int(run.rng.integers(len(choice)))]
        count = options.batch or (6 if options.what == "video" else 8)
        begin, length = stretch(run.rng, LATENTS)
        if options.what == "video":
            count = count * 3 // length // (3 if large else 1)
        which = run.rng.integers(len(shard["clips"]), size=count)
        clip = [shard["clips"][i] for i in which]
        if options.what == "audio":
            audio_step(run, decoder, clip, shard["audio"][which].float(), options.noise)
        else:
            latent = shard["large" if large else "video"][which, :, begin : begin + length].float()
            video_step(run, decoder, clip, latent, begin, options.noise, 2 if large else 1)


if __name__ == "__main__":
    main()
