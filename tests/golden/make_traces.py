"""Make ``traces.json``: losses of the golden networks' first steps, by PyTorch in float64.

Needs chainrule (only for its embedded digits) and ``torch==2.13.0``, which no test needs::

    python tests/golden/make_traces.py

``float32_deviation`` is the largest relative difference between PyTorch's float32 and float64
losses, over several starts that differ in the last bits of the weights. If a ReLU or a maximum is
near a tie, rounding decides it, and training takes another course. With some seeds the losses then
differ by 10 %. A network's seed must therefore have a deviation far below the tolerance of
``test_golden.py``. For any other seed the script raises an error.
"""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chainrule.data import digits

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import traces

DISTURBED_STARTS = 12
LARGEST_DEVIATION = 1e-5


def module(layer: traces.Layer, before: tuple[int, ...]) -> torch.nn.Module:
    """Return the equivalent PyTorch layer. ``before`` is the input shape (H, W, C) or (inputs,)."""
    match layer.kind:
        case "conv2d":
            return torch.nn.Conv2d(before[-1], layer.size, layer.kernel, padding=layer.padding)
        case "relu":
            return torch.nn.ReLU()
        case "max_pool2d":
            return torch.nn.MaxPool2d(layer.size)
        case "flatten":
            return torch.nn.Flatten()
        case "linear":
            return torch.nn.Linear(before[0], layer.size)


def torch_parameters(network: traces.Network) -> dict[str, torch.Tensor]:
    """Return the initial parameters in PyTorch's layouts.

    Images are (C, H, W) in PyTorch. Convolution weights are transposed from (K, R, S, C) to
    (K, C, R, S). The columns of the first linear layer after the flattening are reordered from
    (H, W, C) to (C, H, W).
    """
    shapes = [traces.INPUT_SHAPE, *traces.output_shapes(network)]
    kinds = [layer.kind for layer in network.layers]
    converted = {}
    for name, values in traces.initial_parameters(network).items():
        index = int(name.split(".")[0])
        if values.ndim == 4:
            values = values.transpose(0, 3, 1, 2)
        elif values.ndim == 2 and kinds[index - 1] == "flatten":
            images = values.reshape(len(values), *shapes[index - 1])
            values = images.transpose(0, 3, 1, 2).reshape(values.shape)
        converted[name] = torch.from_numpy(values.copy())
    return converted


def losses(
    network: traces.Network,
    images: traces.ByteArray,
    labels: traces.ByteArray,
    parameters: dict[str, torch.Tensor],
    dtype: torch.dtype,
) -> list[float]:
    """Return the loss of each step, before its update."""
    before = [traces.INPUT_SHAPE, *traces.output_shapes(network)]
    model = torch.nn.Sequential(
        *(module(layer, shape) for layer, shape in zip(network.layers, before, strict=False))
    ).to(dtype)
    model.load_state_dict(parameters)
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": 2 * network.l2},
        {"params": biases},
    ]
    optimizer = torch.optim.SGD(
        groups, lr=network.learning_rate, momentum=network.momentum, nesterov=network.nesterov,
    )  # fmt: skip
    trace = []
    for x, y in traces.batches(network, images, labels):
        optimizer.zero_grad()
        logits = model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).to(dtype))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y))
        loss.backward()  # type: ignore[no-untyped-call]  # torch 2.13 leaves it unannotated
        optimizer.step()
        trace.append(loss.item())
    return trace


def disturbed(parameters: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Return parameters changed by about the rounding error of float32."""
    generator = torch.Generator().manual_seed(seed)

    def factor(values: torch.Tensor) -> torch.Tensor:
        return 1 + 1e-7 * torch.randn(values.shape, generator=generator, dtype=values.dtype)

    return {name: values * factor(values) for name, values in parameters.items()}


def main() -> None:
    """Write ``traces.json`` next to this file."""
    train, _ = digits()
    document: dict[str, Any] = {
        "made_with": {"torch": torch.__version__, "numpy": np.__version__},
        "made_on": datetime.date.today().isoformat(),
        "data": "first training images of chainrule.data.digits(), in file order",
        "networks": {},
    }
    for name, network in traces.NETWORKS.items():
        start = torch_parameters(network)
        exact = losses(network, train.images, train.labels, start, torch.float64)
        deviation = 0.0
        for seed in range(DISTURBED_STARTS):
            single = losses(
                network, train.images, train.labels, disturbed(start, seed), torch.float32
            )
            deviation = max(deviation, float(np.max(np.abs(np.array(single) / exact - 1))))
        print(f"{name}: {exact[0]:.4f} ... {exact[-1]:.4f}, float32 within {deviation:.1e}")
        if deviation > LARGEST_DEVIATION:
            raise SystemExit(
                f"{name}: the deviation of seed {network.seed} must be at most "
                f"{LARGEST_DEVIATION}, got {deviation:.1e}: try another seed"
            )
        document["networks"][name] = {
            "inputs_sha256": traces.fingerprint(network, train.images, train.labels),
            "float32_deviation": float(f"{deviation:.2g}"),
            "losses": exact,
        }
    traces.TRACES.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
