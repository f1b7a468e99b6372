"""Seconds of training until 99 % of MNIST's test images are right, from memory, a seed a round.

The recipe is the same for everyone: weights drawn by the same numbers, the same order of images,
the same rates, and after every epoch a look at the test images, which counts too. On a GPU PyTorch
finds the images there; chainrule's are copied there by every training. The network is
that of the fastest published recipe (tuomaso/train_mnist_fast); the descent is ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import count
from typing import Any

import numpy as np

from bench.harness import networks
from bench.harness.case import Array, Case, Inputs, Leg
from bench.harness.networks import Network
from bench.peers import gpu_torch, step_chainrule, step_torch
from bench.peers.kernel_variants import Variants

NETWORK = Network(
    (
        ("conv2d", 24, 5, 0),
        ("relu",),
        ("max_pool2d", 2),
        ("conv2d", 32, 3, 0),
        ("relu",),
        ("max_pool2d", 2),
        ("flatten",),
        ("linear", 256),
        ("relu",),
        ("linear", 10),
    ),
    (28, 28, 1),
    batch=64,
)
PEAK, EPOCHS, TARGET = 0.08, 2, 0.99
SEEDS = {"cpu": 10, "cuda": 30}
VARIANTS = {
    "cpu": ("default", "fused", "channels_last fused", "compile channels_last fused"),
    "cuda": ("default", "fused", "graph channels_last", "graph compile channels_last"),
}


class MissedError(Exception):
    """Training that ended below the target."""


class ReachedError(Exception):
    """Training that need not go on."""


def rate(progress: float) -> float:
    """chainrule.OneCycle(PEAK), written out for everyone."""
    start = PEAK / 25
    if progress < 0.3:
        return PEAK + (start - PEAK) * (1 + math.cos(math.pi * progress / 0.3)) / 2
    final = start / 10_000
    fall = (progress - 0.3) / 0.7
    return final + (PEAK - final) * (1 + math.cos(math.pi * fall)) / 2


def start(made: Inputs, seed: int) -> Inputs:
    """Return the data with a seed's weights."""
    return {**made, **networks.weights(NETWORK, np.random.default_rng(seed))}


def chainrule_legs(made: Inputs, device: str) -> Variants:
    import chainrule as cr

    def train(seed: int, size: int, target: float) -> None:
        net = step_chainrule.build(NETWORK, start(made, seed)).to(device)
        test = made["test_x"], made["test_labels"]

        def reached(network: Any, _: Any) -> None:
            accuracy = cr.evaluate(network, test).accuracy
            if accuracy is not None and accuracy >= target:
                raise ReachedError

        try:
            cr.fit(
                net,
                (made["x"][:size], made["labels"][:size]),
                loss=cr.CrossEntropy(),
                optimizer=cr.SGD(rate, momentum=NETWORK.momentum),
                batch_size=NETWORK.batch,
                epochs=EPOCHS,
                callbacks=reached,
                seed=seed,
                progress=False,
            )
        except ReachedError:
            return
        raise MissedError(f"seed {seed}: below {target:.1%} after {EPOCHS} epochs")

    return {"fit": lambda: leg(train)}


def torch_legs(made: Inputs, device: str) -> Variants:
    import torch

    @cache
    def ready(variant: str) -> tuple[step_torch.Training, Any, Any]:
        """Return model and data, once for all seeds: compiling is not counted."""
        first = start({**made, "order": np.zeros((1, 1), np.int64)}, 0)
        if "graph" in variant:
            training: step_torch.Training = gpu_torch.Graphed(NETWORK, first, variant)
        else:
            training = step_torch.Training(NETWORK, first, variant, device)
        test = training.tensor(made["test_x"], "channels_last" in variant)
        return training, test, torch.from_numpy(made["test_labels"]).to(device)

    def train(seed: int, size: int, target: float, variant: str) -> None:
        order = np.random.default_rng(seed)
        training, test, labels = ready(variant)
        training.restart(start(made, seed))
        steps, step = EPOCHS * -(-size // NETWORK.batch), count()
        for _ in range(EPOCHS):
            shuffled = torch.from_numpy(order.permutation(size)).to(device)
            with torch.enable_grad():
                for chosen in shuffled.split(NETWORK.batch):
                    training.set_rate(rate(next(step) / steps))
                    training.descend(chosen)
            # One sum, so that a GPU is waited for once.
            parts = zip(test.split(1000), labels.split(1000), strict=True)
            right = int(sum((training.model(x).argmax(1) == y).sum() for x, y in parts))
            if right >= target * len(labels):
                return
        raise MissedError(f"seed {seed}: below {target:.1%} after {EPOCHS} epochs")

    def of(variant: str) -> Leg:
        return leg(partial(train, variant=variant))

    return {variant: partial(of, variant) for variant in VARIANTS[device]}


def leg(train: Any) -> Leg:
    """A call trains the next seed; the check trains a little, so that everything is loaded."""
    seeds = count()

    def result() -> tuple[Array, ...]:
        # The last batch is smaller, as that of the whole data is.
        train(seed=0, size=8 * NETWORK.batch + 60_000 % NETWORK.batch, target=0.0)
        return ()

    return Leg(lambda: train(seed=next(seeds), size=60_000, target=TARGET), result)


def inputs() -> Inputs:
    folder = networks.mnist_folder()
    assert folder is not None, "this case is only there where MNIST is"
    x, labels = networks.digits(folder, "train")
    test_x, test_labels = networks.digits(folder, "t10k")
    return {"x": x, "labels": labels, "test_x": test_x, "test_labels": test_labels}


def cases(quick: bool, device: str) -> Iterator[Case]:
    if quick or networks.mnist_folder() is None:
        return
    yield Case(
        "mnist-99",
        "training",
        flops=replace(NETWORK, batch=60_000).flops(),
        nbytes=replace(NETWORK, batch=60_000).nbytes(),
        bound="compute",
        inputs=lambda _: inputs(),
        reference=None,
        legs={
            "chainrule": partial(chainrule_legs, device=device),
            "torch": partial(torch_legs, device=device),
        },
        rounds=SEEDS[device],
        whole=True,
    )
