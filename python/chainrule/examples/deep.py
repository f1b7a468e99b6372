"""Hundreds of layers, a thousand units wide: ``python -m chainrule.examples deep``.

Trains a plain stack of `Linear` and `ReLU`, nothing beside it, on the digits that come with the
package, by plain gradient descent. What makes it learn is where it starts and how far a step goes:
see `chainrule.nn.initialization` for ``init="looks_linear"``, and `SGD` for ``clip``. With
``--init he`` the same network hardly learns, and with a large ``--clip`` it diverges.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..nn.layers import Flatten, Layer, Linear, ReLU
from ..nn.losses import CrossEntropy
from ..nn.network import Sequential
from ..training.loop import Data, evaluate, fit
from ..training.optimizers import SGD

# Best of 0.05, 0.1 and 0.2 at 200 x 64 after an epoch of the digits, with any of three seeds.
LEARNING_RATE = 0.1
CLIP = 1.0


def deep_network(
    depth: int = 200,
    width: int = 1024,
    seed: int = 0,
    dtype: str = "float32",
    init: str = "looks_linear",
) -> Sequential:
    """Build ``depth`` layers with weights: ``depth - 1`` of ``width`` rectified units, and logits.

    Parameters
    ----------
    depth : int, at least 2
    width : int, at least 2
    seed : int
    dtype : "float32" or "float64"
    init : as `Sequential` takes it

    Returns
    -------
    Sequential
        From images (N, 28, 28, 1) to logits (N, 10).
    """
    hidden: list[Layer] = [layer for _ in range(depth - 1) for layer in (Linear(width), ReLU())]
    return Sequential(
        Flatten(), *hidden, Linear(10), input_shape=(28, 28, 1), seed=seed, dtype=dtype, init=init
    )


@dataclass(frozen=True)
class Learnt:
    """Mean cross-entropy on the training images before and after, accuracy on the test images."""

    loss_before: float
    loss_after: float
    accuracy: float


def learn(
    network: Sequential,
    train: Data,
    test: Data,
    *,
    epochs: int = 1,
    learning_rate: float = LEARNING_RATE,
    clip: float | None = CLIP,
    progress: bool = False,
) -> Learnt:
    """Train by plain stochastic gradient descent, and measure what it brought.

    Parameters
    ----------
    network : Sequential
    train, test : as `chainrule.fit` takes them, with labels
    epochs : int
    learning_rate : float
    clip : float, the most that the gradient's norm may be; None: anything
    progress : bool, whether to show how it goes

    Returns
    -------
    Learnt
    """
    loss = CrossEntropy()
    before = evaluate(network, train, loss).loss
    fit(
        network,
        train,
        loss=loss,
        optimizer=SGD(learning_rate, clip=clip),
        epochs=epochs,
        progress=progress,
    )
    accuracy = evaluate(network, test, loss).accuracy
    assert accuracy is not None, "labels have an accuracy"
    return Learnt(before, evaluate(network, train, loss).loss, accuracy)
