"""Makes distill.pt without training: base, and a share of what an earlier distillation added to the base it came from.

A distilled network hears its prompt better than base does in as many steps, and blurs shapes; a part of the way
keeps both.
"""
from pathlib import Path

import torch

from training import arguments


def main():
    p = arguments(__doc__, 0)
    p.add_argument("--earlier", type=Path, required=True, help="base.pt as it was then")
    p.add_argument("--learnt", type=Path, required=True, help="distill.pt as it was then")
    p.add_argument("--share", type=float, default=0.6)
    options = p.parse_args()
    base, earlier, learnt = (torch.load(path, weights_only=False)["ema"]
                             for path in (options.work / "base.pt", options.earlier, options.learnt))
    made = {k: v + options.share * (learnt[k] - earlier[k]) for k, v in base.items()}
    torch.save(dict(model=made, ema=made, step=0), options.work / "distill.pt")


if __name__ == "__main__":
    main()
