"""Make ``adam.json``: 100 steps of PyTorch's Adam and AdamW on a small network, in float64.

Needs ``torch==2.13.0``, which no test needs::

    python tests/golden/make_adam.py

Weights are regularized and biases are not, by two groups of parameters. PyTorch's ``weight_decay``
of Adam is twice ``l2`` of eq. (40). The file has the inputs too, so the test draws nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

STEPS = 100
KEPT = (1, 2, 10, 100)
# Name -> class of PyTorch, its options, and its decay of weights.
RUNS: dict[str, tuple[Any, dict[str, Any], float]] = {
    "adam": (torch.optim.Adam, {"lr": 1e-2}, 0.0),
    "adam_l2": (torch.optim.Adam, {"lr": 2e-2, "betas": (0.8, 0.99), "eps": 1e-3}, 0.1),
    "adamw": (torch.optim.AdamW, {"lr": 1e-2}, 0.25),
}


def module(initial: dict[str, np.ndarray]) -> torch.nn.Sequential:
    """Return the network with the initial parameters, which have PyTorch's names."""
    built = torch.nn.Sequential(
        torch.nn.Linear(4, 5), torch.nn.LeakyReLU(0.1), torch.nn.Linear(5, 2)
    ).double()
    built.load_state_dict({name: torch.tensor(values) for name, values in initial.items()})
    return built


def trajectory(
    name: str, initial: dict[str, np.ndarray], x: np.ndarray, target: np.ndarray
) -> dict[int, dict[str, Any]]:
    """Return the parameters after the steps of KEPT."""
    kind, options, decay = RUNS[name]
    net = module(initial)
    named = dict(net.named_parameters())
    optimizer = kind(
        [
            {
                "params": [p for n, p in named.items() if n.endswith("weight")],
                "weight_decay": decay,
            },
            {"params": [p for n, p in named.items() if n.endswith("bias")], "weight_decay": 0.0},
        ],
        **options,
    )
    kept = {}
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        error = net(torch.tensor(x)) - torch.tensor(target)
        (error.square().sum() / len(x)).backward()
        optimizer.step()
        if step in KEPT:
            kept[step] = {n: p.detach().numpy().tolist() for n, p in named.items()}
    return kept


def main() -> None:
    rng = np.random.default_rng(16)
    shapes = {"0.weight": (5, 4), "0.bias": (5,), "2.weight": (2, 5), "2.bias": (2,)}
    initial = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    x, target = rng.normal(size=(12, 4)), rng.normal(size=(12, 2))
    content = {
        "made_with": {"torch": torch.__version__, "numpy": np.__version__},
        "x": x.tolist(),
        "target": target.tolist(),
        "initial": {name: values.tolist() for name, values in initial.items()},
        "runs": {name: trajectory(name, initial, x, target) for name in RUNS},
    }
    path = Path(__file__).with_name("adam.json")
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
