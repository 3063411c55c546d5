"""Trains a variant of the transformer: base from nothing, distill and 540p_sr from base's running mean.

base: velocity of picture and sound together, part of the time with the first picture or the sound given clean, and
with the negative prompt instead of the real one.
distill: the same network learns to say at once where base with guidance ends, from the levels of few-step sampling.
540p_sr: from the blurred and noised small latents to those of the large pictures.
"""
import pickle

import numpy as np
import sentencepiece
import torch

import clips
import networks
import prompts
import sampling
from encode import SHARD
from train_decoder import LATENTS
from train_text import Reader
from training import Run, arguments, settings


SOUND = 1.5  # weight of the sound's error


class Pool:
    """Latents on disk, and prompts for them with their features; a batch has prompts of one length."""

    def __init__(self, options, kind):
        self.folder, self.kind, self.shards, self.seen = options.work / "latents", kind, [], set()
        self.tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(options.work / "tokenizer.model"))
        reader = Reader(settings()["text"]["encoder"])
        reader.load_state_dict(torch.load(options.work / "text.pt", weights_only=False)["ema"])
        self.encoder = reader.encoder.eval().requires_grad_(False)
        self.negative = self.features([prompts.NEGATIVE])
        self.waiting = {}
        self.look()

    def look(self):
        for path in sorted(self.folder.glob(f"{self.kind}-*.pt")):
            if path.name not in self.seen:
                shard = torch.load(path, weights_only=False)
                if "audio" not in shard:
                    continue
                self.seen.add(path.name)
                shard["clips"] = pickle.loads(shard["clips"])
                self.shards.append(shard)

    def features(self, texts):
        return self.encoder(torch.tensor([self.tokenizer.encode(t) for t in texts]))

    def batch(self, rng, count):
        """Indices into the pool and the features of their prompts."""
        while True:
            which = int(rng.integers(len(self.shards))), int(rng.integers(SHARD))
            text = prompts.prompt(self.shards[which[0]]["clips"][which[1]], rng)
            ids = self.tokenizer.encode(text)
            row = self.waiting.setdefault(len(ids), [])
            row.append((which, ids))
            if len(row) == count:
                del self.waiting[len(ids)]
                return [w for w, _ in row], self.encoder(torch.tensor([i for _, i in row]))

    def latents(self, which, key):
        return torch.stack([self.shards[s][key][i] for s, i in which]).float()


def mixed(x, noise, sigma):
    return (1 - sigma) * x + sigma * noise


def column(sigma, like):
    return sigma.view(-1, *[1] * (like.ndim - 1))


def conditions(rng, count, share=0.15):
    """Which samples have their first picture given, which their sound."""
    return torch.from_numpy(rng.random(count) < share), torch.from_numpy(rng.random(count) < share)


def noised(video, audio, sigma, sigma_sound, image, sound):
    """Noisy latents as the sampler would show them, the noise, and masks of what is to be learnt."""
    nv, na = torch.randn_like(video), torch.randn_like(audio)
    x, a = mixed(video, nv, column(sigma, video)), mixed(audio, na, column(sigma_sound, audio))
    wv, wa = torch.ones_like(video[:, :1, :, :1, :1]), torch.ones_like(audio[:, :1, :1])
    wv[image, :, 0] = 0
    wa[sound] = 0
    x = torch.where(wv > 0, x, video)
    # Driving sound is drawn from the encoder's posterior.
    a = torch.where(wa > 0, a, audio + 0.1 * na)
    return x, a, nv, na, wv, wa


def error(out, target, weight):
    if out.ndim == 5:  # a picture: only the channels that carry anything
        out, target = out[:, : networks.FILLED], target[:, : networks.FILLED]
    return (weight * (out - target).square()).sum() / (weight.sum() * out[0].numel() / weight[0].numel()).clamp(min=1)


def base_step(run, model, pool, batch):
    which, text = pool.batch(run.rng, batch)
    if run.rng.random() < 0.1:
        text = pool.negative.expand(batch, -1, -1)
    video, audio = pool.latents(which, "video"), pool.latents(which, "audio")
    # Spread evenly within the batch, mostly at the noisy end as in the sampler, whose last level is higher than 0.1. Half
    # of the sounds have a level of their own: where the other one is clearer, picture and sound learn to follow it.
    s = 0.03 + 0.97 * (torch.arange(batch) + torch.rand(batch)) / batch
    sigma = 4 * s / (1 + 3 * s)
    other = torch.where(torch.rand(batch) < 0.5, sigma[torch.randperm(batch)], sigma)
    x, a, nv, na, wv, wa = noised(video, audio, sigma, other, *conditions(run.rng, batch))
    v, u = model(x, a, text)
    lv, la = error(v, nv - video, wv), error(u, na - audio, wa)
    run.descend(lv + SOUND * la, every=100, video=lv.detach(), audio=la.detach())


def led(model, x, a, text, given, begin, end):
    """Picture and sound at noise level `end`, where these of level `begin` move; what is given stays."""
    v, u = model(x, a, text)
    wv, wa = given
    return x + wv * column(end - begin, x) * v, a + wa * column(end - begin, a) * u


def distill_step(run, model, teacher, pool, batch, steps=8, guidance=2.0):
    """Consistency along the teacher's path: from a level of the few-step sampler the student must say at once what it
    says one level further on, where base with guidance leads; from the last level, what base ends with."""
    which, text = pool.batch(run.rng, batch)
    video, audio = pool.latents(which, "video"), pool.latents(which, "audio")
    levels = torch.tensor(sampling.levels(steps))
    at = torch.from_numpy(run.rng.permutation(np.arange(batch) % steps))
    begin, end = levels[at], levels[at + 1]
    given = conditions(run.rng, batch)
    with torch.no_grad():
        # What re-noising goes on with is not a real clip but the student's word, again and again: up to three times
        # from the levels before, or every other one of them, as in half as many steps.
        stride = torch.where((at % 2 == 0) & (torch.rand(batch) < 0.5), 2, 1)
        for back in range(int(run.rng.integers(4)), 0, -1):
            before = levels[(at - back * stride).clamp(min=0)]
            x, a, _, _, *free = noised(video, audio, before, before, *given)
            video, made = led(model, x, a, text, free, before, torch.zeros(batch))
            audio = torch.where(column(given[1], audio), audio, made)
        x, a, _, _, *free = noised(video, audio, begin, begin, *given)

        def guided(x, a, text):
            v, u = teacher(x, a, text)
            nv, nu = teacher(x, a, pool.negative.expand(batch, -1, -1))
            return nv + guidance * (v - nv), nu + guidance * (u - nu)

        middle = led(guided, x, a, text, free, begin, (begin + end) / 2)
        further = led(lambda *_: guided(*middle, text), x, a, text, free, begin, end)
        goal_x, goal_a = led(run.ema, *further, text, free, end, torch.zeros(batch))
        v, u = (x - goal_x) / column(begin, x), (a - goal_a) / column(begin, a)
    made_v, made_u = model(x, a, text)
    lv, la = error(made_v, v, free[0]), error(made_u, u, free[1])
    run.descend(lv + SOUND * la, every=20, video=lv, audio=la)


def sr_step(run, model, pool, batch, steps=5):
    which, text = pool.batch(run.rng, batch)
    small, audio, large = (pool.latents(which, key) for key in ("video", "audio", "large"))
    small = small + 0.15 * torch.rand(batch, 1, 1, 1, 1) * torch.randn_like(small)  # generated ones are not perfect
    start = sampling.SR_SIGNAL * sampling.enlarge(small) + sampling.SR_NOISE * torch.randn_like(large)
    sound = sampling.SR_SOUND_NOISE * torch.randn_like(audio) + (1 - sampling.SR_SOUND_NOISE) * audio
    grid = torch.tensor(sampling.levels(steps)[:-1])
    sigma = grid[torch.from_numpy(run.rng.integers(0, steps, batch))]
    x = mixed(large, start, column(sigma, large))
    image, _ = conditions(run.rng, batch)
    weight = torch.ones_like(large[:, :1, :, :1, :1])
    weight[image, :, 0] = 0
    x = torch.where(weight > 0, x, large)
    v, _ = model(x, sound, text)
    loss = error(v, (start - large), weight)
    run.descend(loss, every=50)


def network(variant):
    c = settings()
    extra = {k: v for k, v in c["variants"][variant].items() if k in c["dit"]}
    return networks.Transformer(c["dit"] | extra)


def main():
    p = arguments(__doc__, 50)
    p.add_argument("variant", choices=["base", "distill", "540p_sr"])
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--rate", type=float, default=1e-3)
    options = p.parse_args()
    model = network(options.variant)
    if options.variant != "base":
        model.load_state_dict(torch.load(options.work / "base.pt", weights_only=False)["ema"])
    run = Run(options.variant, options, model, options.rate, ema=0.998 if options.variant == "base" else 0.99,
              fall=0.35, betas=(0.9, 0.95), muon=[(m.weight, m.experts) for m in model.modules()
                                                          if isinstance(m, networks.ExpertLinear)])
    pool = Pool(options, "large" if options.variant == "540p_sr" else "small")
    print("parameters", sum(q.numel() for q in model.parameters()), "clips", SHARD * len(pool.shards), flush=True)
    if options.variant == "distill":
        teacher = network("base").eval().requires_grad_(False)
        teacher.load_state_dict(torch.load(options.work / "base.pt", weights_only=False)["ema"])
    for net in [model] + ([teacher] if options.variant == "distill" else []):
        for layer in net.block.layers:  # a third faster
            layer.attention.compile(dynamic=True)
            layer.mlp.compile(dynamic=True)
    while run.going():
        if run.step % 100 == 0:
            pool.look()
        if options.variant == "base":
            base_step(run, model, pool, options.batch)
        elif options.variant == "distill":
            distill_step(run, model, teacher, pool, options.batch)
        else:
            sr_step(run, model, pool, options.batch)


if __name__ == "__main__":
    main()
