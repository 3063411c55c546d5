"""Makes ema.ckpt: what a trainer saves with torch.save: averaged weights behind DistributedDataParallel's
prefix, beside an optimizer's state and plain values. Weights are 0, 1, 2, ... in the order of the map.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0
    venv/bin/python tests/golden/torch/make.py
"""
import collections
import pathlib

import torch

network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
network(torch.zeros(4, 3)).sum().backward()
optimizer.step()

state = network.state_dict()  # an OrderedDict with _metadata
count = 0
for name, tensor in state.items():
    if tensor.dtype == torch.float32:
        tensor.copy_(torch.arange(count, count + tensor.numel()).reshape(tensor.shape))
    count += tensor.numel()
ema = collections.OrderedDict((f"module.{name}", tensor) for name, tensor in state.items())
ema["module.half"] = torch.nn.Parameter(torch.tensor([[0.5, -2.0]], dtype=torch.bfloat16))
ema["module.shared"] = state["0.weight"][1]  # a view into another tensor's storage
torch.save({"epoch": 7, "loss": 0.25, "name": "tiny", "big": 2**40, "flags": [True, None, (1, 2)],
            "state_dict": state, "optimizer": optimizer.state_dict(), "size": torch.Size([2, 3]),
            "ema_state_dict": ema}, pathlib.Path(__file__).parent / "ema.ckpt")
