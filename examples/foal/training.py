"""What the training scripts share: settings, a schedule by the clock, a running mean of the weights, resuming."""
import argparse
import copy
import os
import time
from pathlib import Path

import numpy as np
import torch
import yaml

HERE = Path(__file__).resolve().parent


def arguments(about, minutes):
    p = argparse.ArgumentParser(description=about)
    p.add_argument("--work", type=Path, required=True, help="folder of checkpoints and latents")
    p.add_argument("--minutes", type=float, default=minutes, help="of training, in all, as its core counts them")
    p.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    p.add_argument("--start", type=Path, help="begin with the weights of another run's checkpoint")
    p.add_argument("--seed", type=int, default=1)
    return p


def settings():
    return yaml.safe_load((HERE / "foal.yaml").read_text())


class Muon(torch.optim.Optimizer):
    """Momentum, of which each matrix is replaced by nearly the nearest orthogonal one (five steps of Newton and Schulz).

    The changes are scaled to AdamW's usual size. A stack of experts is that many matrices; of a convolution each output
    is a row.
    """

    def __init__(self, parameters, rate, momentum=0.95):
        super().__init__([{"params": [p], "parts": parts} for p, parts in parameters], dict(lr=rate))
        self.momentum = momentum

    @staticmethod
    def orthogonal(x):
        wide = len(x) <= x.shape[1]
        x = x if wide else x.T
        x = x / (x.norm() + 1e-7)
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        return x if wide else x.T

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            p = group["params"][0]
            mean = self.state[p].setdefault("mean", torch.zeros_like(p))
            mean.lerp_(p.grad, 1 - self.momentum)
            ahead = p.grad.lerp(mean, self.momentum)
            for part, change in zip(p.flatten(1).chunk(group["parts"]), ahead.flatten(1).chunk(group["parts"])):
                part.add_(self.orthogonal(change), alpha=-0.2 * max(change.shape) ** 0.5 * group["lr"])


class Run:
    """A loop that lasts a number of minutes over any number of starts: minutes of its core, so that other work there
    does not eat its schedule.

    Learning rate: up over the first steps, flat, then down over the last `fall` of the time.
    """

    def __init__(self, name, options, model, rate, decay=0.01, ema=0.998, fall=0.4, betas=(0.9, 0.97), muon=()):
        """muon: (parameter, number of stacked matrices) of those that Muon trains; AdamW has the others."""
        options.work.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(1)
        self.path = options.work / f"{name}.pt"
        if options.start:
            model.load_state_dict(torch.load(options.start, weights_only=False)["model"])
        self.name, self.model, self.rate, self.fall, self.ema_rate = name, model, rate, fall, ema
        self.ema = copy.deepcopy(model).requires_grad_(False)
        muon = list(muon)
        rest = [p for p in model.parameters() if p.requires_grad and all(p is not q for q, _ in muon)]
        self.optimisers = [torch.optim.AdamW([{"params": [p for p in rest if p.ndim > 1], "weight_decay": decay},
                                              {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0}],
                                             lr=rate, betas=betas)]
        if muon:
            self.optimisers.append(Muon(muon, rate))
        self.step, self.spent, self.budget = 0, 0.0, options.minutes * 60
        if options.resume and self.path.exists():
            state = torch.load(self.path, weights_only=False)
            model.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
            for optimiser, kept in zip(self.optimisers, state["optimisers"]):
                optimiser.load_state_dict(kept)
            self.step, self.spent = state["step"], state["spent"]
        torch.manual_seed(options.seed * 1_000_003 + self.step)
        self.rng = np.random.default_rng([options.seed, self.step])
        self.begin, self.saved, self.sums = time.process_time() - self.spent, time.monotonic(), {}

    def share(self):
        return min(1.0, (time.process_time() - self.begin) / self.budget)

    def going(self):
        if time.monotonic() - self.saved > 180:
            self.save()
        if self.share() >= 1:
            self.save()
            return False
        return True

    def save(self):
        self.spent = time.process_time() - self.begin
        partial = self.path.with_suffix(".partial")
        torch.save(dict(model=self.model.state_dict(), ema=self.ema.state_dict(), step=self.step, spent=self.spent,
                        optimisers=[o.state_dict() for o in self.optimisers]), partial)
        os.replace(partial, self.path)
        self.saved = time.monotonic()

    def descend(self, loss, every=50, **measures):
        share = self.share()
        rate = self.rate * min(1, (self.step + 1) / 50) * (1 if share < 1 - self.fall else max(0.02, (1 - share) / self.fall))
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        keep = min(self.ema_rate, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, now in zip(self.ema.state_dict().values(), self.model.state_dict().values()):
                if mean.is_floating_point():
                    mean.lerp_(now, 1 - keep)
        for key, value in dict(loss=loss, **measures).items():
            self.sums[key] = self.sums.get(key, 0.0) + float(value.detach())
        if self.step % every == 0:
            told = " ".join(f"{k} {v / every:.4f}" for k, v in self.sums.items())
            print(f"{self.name} {self.step} {time.process_time() - self.begin:.0f}s rate {rate:.1e} {told}", flush=True)
            self.sums = {}
