"""Training time until 99 % of MNIST's test images are classified correctly, one seed per round.

Both libraries have the same recipe: the same initial weights, order of images and learning rates.
The data is in memory. The evaluation on the test images after each epoch counts as well. On a GPU,
PyTorch's images are already in its memory, while each training of chainrule copies them there.
The network is that of the fastest published recipe (tuomaso/train_mnist_fast). The schedule of
learning rates is our own.
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
from bench.harness.case import Array, Case, Inputs, Variant, VariantBuilders
from bench.harness.networks import Network
from bench.peers import step_chainrule, step_torch

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
PEAK_RATE, EPOCHS, TARGET = 0.08, 2, 0.99
SEEDS = {"cpu": 10, "cuda": 30}
VARIANTS = {
    "cpu": ("default", "fused", "channels_last fused", "compile channels_last fused"),
    "cuda": ("default", "fused", "graph channels_last", "graph compile channels_last"),
}


class BelowTargetError(Exception):
    """Training that ended below the target accuracy."""


class TargetReachedError(Exception):
    """Raised by a callback to end the training early."""


def learning_rate(progress: float) -> float:
    """Return the rate of chainrule.OneCycle(PEAK_RATE), in plain Python for every library."""
    initial = PEAK_RATE / 25
    if progress < 0.3:
        return PEAK_RATE + (initial - PEAK_RATE) * (1 + math.cos(math.pi * progress / 0.3)) / 2
    final = initial / 10_000
    decay = (progress - 0.3) / 0.7
    return final + (PEAK_RATE - final) * (1 + math.cos(math.pi * decay)) / 2


def with_parameters(inputs: Inputs, seed: int) -> Inputs:
    """Return the data with the initial parameters of a seed."""
    return {**inputs, **networks.initial_parameters(NETWORK, np.random.default_rng(seed))}


def chainrule_variants(inputs: Inputs, device: str) -> VariantBuilders:
    import chainrule as cr

    def train(seed: int, size: int, target: float) -> None:
        parameters = with_parameters(inputs, seed)
        network = step_chainrule.build_network(NETWORK, parameters).to(device)
        test = inputs["test_x"], inputs["test_labels"]

        def check_target(network: Any, _: Any) -> None:
            accuracy = cr.evaluate(network, test).accuracy
            if accuracy is not None and accuracy >= target:
                raise TargetReachedError

        try:
            cr.fit(
                network,
                (inputs["x"][:size], inputs["labels"][:size]),
                loss=cr.CrossEntropy(),
                optimizer=cr.SGD(learning_rate, momentum=NETWORK.momentum),
                batch_size=NETWORK.batch,
                epochs=EPOCHS,
                callbacks=check_target,
                seed=seed,
                progress=False,
            )
        except TargetReachedError:
            return
        raise BelowTargetError(f"seed {seed}: below {target:.1%} after {EPOCHS} epochs")

    return {"fit": lambda: training_variant(train)}


def torch_variants(inputs: Inputs, device: str) -> VariantBuilders:
    import torch

    @cache
    def prepare(variant: str) -> tuple[step_torch.Training, Any, Any]:
        """Return model and test data, shared by all seeds so that compilation is not counted."""
        first = with_parameters({**inputs, "order": np.zeros((1, 1), np.int64)}, 0)
        training = step_torch.make_training(NETWORK, first, variant, device)
        test = training.tensor(inputs["test_x"], "channels_last" in variant)
        return training, test, torch.from_numpy(inputs["test_labels"]).to(device)

    def train(seed: int, size: int, target: float, variant: str) -> None:
        random = np.random.default_rng(seed)
        training, test, labels = prepare(variant)
        training.restart(with_parameters(inputs, seed))
        steps, step = EPOCHS * -(-size // NETWORK.batch), count()
        for _ in range(EPOCHS):
            shuffled = torch.from_numpy(random.permutation(size)).to(device)
            with torch.enable_grad():
                for indices in shuffled.split(NETWORK.batch):
                    training.set_learning_rate(learning_rate(next(step) / steps))
                    training.train_batch(indices)
            # One sum, so that the CPU waits for a GPU once.
            parts = zip(test.split(1000), labels.split(1000), strict=True)
            correct = int(sum((training.model(x).argmax(1) == y).sum() for x, y in parts))
            if correct >= target * len(labels):
                return
        raise BelowTargetError(f"seed {seed}: below {target:.1%} after {EPOCHS} epochs")

    def build(variant: str) -> Variant:
        return training_variant(partial(train, variant=variant))

    return {variant: partial(build, variant) for variant in VARIANTS[device]}


def training_variant(train: Any) -> Variant:
    """Return a variant whose calls train with the seeds 0, 1, 2, ...

    Its check trains on a few batches, which loads and compiles everything.
    """
    seeds = count()

    def result() -> tuple[Array, ...]:
        # The last batch has the size of the last batch of the full data.
        train(seed=0, size=8 * NETWORK.batch + 60_000 % NETWORK.batch, target=0.0)
        return ()

    return Variant(lambda: train(seed=next(seeds), size=60_000, target=TARGET), result)


def make_inputs() -> Inputs:
    folder = networks.mnist_folder()
    assert folder is not None, "this case requires MNIST"
    x, labels = networks.read_digits(folder, "train")
    test_x, test_labels = networks.read_digits(folder, "t10k")
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
        inputs=lambda _: make_inputs(),
        reference=None,
        variants={
            "chainrule": partial(chainrule_variants, device=device),
            "torch": partial(torch_variants, device=device),
        },
        rounds=SEEDS[device],
        is_training=True,
    )
