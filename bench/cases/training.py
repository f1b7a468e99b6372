"""Whole training steps: the networks of `chainrule mnist`, a tiny one and a deep one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from bench.harness import networks
from bench.harness.case import Case, Inputs, Legs, normal
from bench.harness.networks import Network
from bench.peers import step_chainrule, step_jax, step_tensorflow, step_torch

IMAGE = (28, 28, 1)
CNN = Network(
    (
        ("conv2d", 32, 3, 0),
        ("relu",),
        ("conv2d", 64, 3, 0),
        ("relu",),
        ("max_pool2d", 2),
        ("dropout", 0.25),
        ("flatten",),
        ("linear", 128),
        ("relu",),
        ("dropout", 0.5),
        ("linear", 10),
    ),
    IMAGE,
)
LENET = Network(
    (
        ("conv2d", 6, 5, "same"),
        ("relu",),
        ("max_pool2d", 2),
        ("conv2d", 16, 5, 0),
        ("relu",),
        ("max_pool2d", 2),
        ("flatten",),
        ("linear", 120),
        ("relu",),
        ("linear", 84),
        ("relu",),
        ("linear", 10),
    ),
    IMAGE,
)
MLP = Network((("flatten",), ("linear", 128), ("relu",), ("linear", 10)), IMAGE)
TINY = Network(
    (("linear", 32), ("relu",), ("linear", 32), ("relu",), ("linear", 10)), (10,), batch=32
)


def deep(width: int) -> Network:
    hidden = (("linear", width), ("relu",)) * 8
    return Network((("flatten",), *hidden, ("linear", 10)), IMAGE, learning_rate=1e-3)


def inputs(network: Network, random: np.random.Generator) -> Inputs:
    made = networks.weights(network, random)
    if network.input_shape == IMAGE:
        x, labels = networks.embedded_digits()
    else:
        x = normal(random, 1024, *network.input_shape)
        labels = random.integers(0, 10, len(x))
    order = networks.batches(len(x), network.batch, random)
    return {**made, "x": x, "labels": labels, "order": order}


def tolerance(network: Network) -> float:
    """Return what two steps may round by: half an eps for each term of each layer's sums. At least
    1e-3: a rectifier or a maximum that rounds to the other side is a difference of its own."""
    terms = sum(math.prod(shape[1:]) for shape in network.weight_shapes().values())
    return max(1e-3, 2 * terms * float(np.finfo(np.float32).eps) / 2)


def legs(network: Network, device: str) -> dict[str, Legs]:
    found: dict[str, Legs] = {
        "chainrule": step_chainrule.factory(network, device),
        "torch": step_torch.factory(network, device),
    }
    if device == "cpu":
        found["tensorflow"] = step_tensorflow.factory(network)
        found["jax"] = step_jax.factory(network)
    return found


def cases(quick: bool, device: str) -> Iterator[Case]:
    wide = 64 if quick else 4096
    found = {"cnn": CNN, "lenet": LENET, "mlp": MLP, "mlp-10-32-32-10": TINY}
    found[f"mlp-8x{wide}"] = deep(wide)
    for name, network in found.items():
        yield Case(
            name,
            "training",
            flops=network.flops(),
            nbytes=network.nbytes(),
            bound="compute",
            inputs=partial(inputs, network),
            reference=partial(networks.two_steps, network),
            legs=legs(network, device),
            tolerance=tolerance(network),
        )
