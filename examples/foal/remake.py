"""Latents as base makes them, of clips whose pictures are known: shards for train_decoder.py, which so learns to
draw what is generated.

A clip's latents are noised to a level at which place and times are still told, and go from there to the end by
base's guided steps. It can go on while a decoder is trained: training picks new shards up.
"""
import pickle
import time

import numpy as np
import torch

import prompts
import sampling
from encode import store
from networks import FILLED
from train_dit import Pool, mixed, network
from training import arguments


@torch.no_grad()
def remade(model, pool, shard, rng, steps=8, guidance=2.0):
    """The shard's picture latents, each from one of the last four levels of few-step sampling."""
    levels = sampling.levels(steps)
    rows = {}
    for i, clip in enumerate(shard["clips"]):
        ids = pool.tokenizer.encode(prompts.prompt(clip, rng))
        rows.setdefault((int(rng.integers(steps - 4, steps)), len(ids)), []).append((i, ids))
    made = torch.zeros_like(shard["video"], dtype=torch.float32)
    for (begin, _), row in rows.items():
        at = torch.tensor([i for i, _ in row])
        text = pool.encoder(torch.tensor([ids for _, ids in row]))
        negative = pool.negative.expand(len(row), -1, -1)
        video, audio = (mixed(x, torch.randn_like(x), levels[begin])
                        for x in (shard["video"][at].float(), shard["audio"][at].float()))
        solvers = sampling.UniPc(levels[begin:]), sampling.UniPc(levels[begin:])
        for _ in range(begin, steps):
            (v, a), (nv, na) = model(video, audio, text), model(video, audio, negative)
            video = solvers[0].step(nv + guidance * (v - nv), video)
            audio = solvers[1].step(na + guidance * (a - na), audio)
        made[at, :FILLED] = video[:, :FILLED]
    return made


def main():
    p = arguments(__doc__, 5)
    p.add_argument("--last", type=int, default=10000, help="number of the last shard")
    options = p.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    model = network("base").eval()
    model.load_state_dict(torch.load(options.start or options.work / "base.pt", weights_only=False)["ema"])
    pool = Pool(options, "small")
    for number, shard in enumerate(pool.shards[: options.last + 1]):
        if time.process_time() > options.minutes * 60:
            break
        path = pool.folder / f"made-{number:05}.pt"
        if not path.exists() or not options.resume:
            made = remade(model, pool, shard, np.random.default_rng([options.seed, 78, number]))
            store(path, dict(video=made.half(), clips=pickle.dumps(shard["clips"])))
            print(path.name, f"{time.process_time():.0f}s", f"off by {(made - shard['video'].float()).square().mean():.3f}", flush=True)


if __name__ == "__main__":
    main()
