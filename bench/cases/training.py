"""Complete training steps of the networks of `chainrule mnist`, a tiny network and a deep one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from bench.harness import networks
from bench.harness.case import BuilderFactory, Case, Inputs, normal
from bench.harness.networks import IMAGE, Network
from bench.peers import step_chainrule, step_jax, step_tensorflow, step_torch

TINY = Network(
    (("linear", 32), ("relu",), ("linear", 32), ("relu",), ("linear", 10)), (10,), batch=32
)


def deep(width: int) -> Network:
    hidden = (("linear", width), ("relu",)) * 8
    return Network((("flatten",), *hidden, ("linear", 10)), IMAGE, learning_rate=1e-3)


def make_inputs(network: Network, random: np.random.Generator) -> Inputs:
    weights = networks.initial_parameters(network, random)
    if network.input_shape == IMAGE:
        x, labels = networks.embedded_digits()
    else:
        x = normal(random, 1024, *network.input_shape)
        labels = random.integers(0, 10, len(x))
    order = networks.batches(len(x), network.batch, random)
    return {**weights, "x": x, "labels": labels, "order": order}


def tolerance(network: Network) -> float:
    """Return the relative error that rounding causes in two steps, at least 1e-3.

    Each term of each layer's sums adds half an eps. Rounding can also flip a ReLU or an argmax,
    which the minimum covers.
    """
    terms = sum(math.prod(shape[1:]) for shape in network.weight_shapes().values())
    return max(1e-3, 2 * terms * float(np.finfo(np.float32).eps) / 2)


def variants(network: Network, device: str) -> dict[str, BuilderFactory]:
    factories: dict[str, BuilderFactory] = {
        "chainrule": step_chainrule.factory(network, device),
        "torch": step_torch.factory(network, device),
    }
    if device == "cpu":
        factories["tensorflow"] = step_tensorflow.factory(network)
        factories["jax"] = step_jax.factory(network)
    return factories


def cases(quick: bool, device: str) -> Iterator[Case]:
    width = 64 if quick else 4096
    all_networks = {**networks.RECIPES, "mlp-10-32-32-10": TINY, f"mlp-8x{width}": deep(width)}
    for name, network in all_networks.items():
        yield Case(
            name,
            "training",
            flops=network.flops(),
            nbytes=network.nbytes(),
            bound="compute",
            inputs=partial(make_inputs, network),
            reference=partial(networks.two_steps, network),
            variants=variants(network, device),
            tolerance=tolerance(network),
        )
