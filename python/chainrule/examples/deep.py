"""Train a dense network of hundreds of layers by plain gradient descent.

The network has a thousand units per layer. It is a stack of `Linear` and `ReLU` layers without skip
connections or normalization. It learns the digits that come with the package because of its
initialization and bounded steps: see `chainrule.nn.initialization` for ``init="looks_linear"``, and
`chainrule.SGD` for ``clip``. With ``--init he`` the same network hardly learns, and with a large
``--clip`` it diverges.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import chainrule as cr
from chainrule.nn.initialization import RULES

# Best of 0.05, 0.1 and 0.2 at 200 x 64 after one epoch of the digits, for each of three seeds.
LEARNING_RATE = 0.1
CLIP = 1.0


def deep_network(
    depth: int = 200,
    width: int = 1024,
    seed: int = 0,
    dtype: str = "float32",
    init: str = "looks_linear",
) -> cr.Sequential:
    """Return a network of ``depth`` dense layers: ``depth - 1`` with ReLU, and one for the logits.

    Parameters
    ----------
    depth : int, at least 2
    width : int, at least 2
        Units per hidden layer.
    seed : int
    dtype : str
        "float32" or "float64".
    init : str
        As in `chainrule.Sequential`.

    Returns
    -------
    Sequential
        From images (N, 28, 28, 1) to logits (N, 10).

    Examples
    --------
    >>> from chainrule.examples import deep_network
    >>> network = deep_network(depth=5, width=16)
    >>> network.input_shape, network.output_shape, network.parameter_vector.size
    ((28, 28, 1), (10,), 13546)
    """
    hidden = [layer for _ in range(depth - 1) for layer in (cr.Linear(width), cr.ReLU())]
    return cr.Sequential(
        cr.Flatten(), *hidden, cr.Linear(10), input_shape=(28, 28, 1), seed=seed, dtype=dtype,
        init=init,
    )  # fmt: skip


@dataclass(frozen=True)
class DeepResult:
    """The measurements of `train_deep`.

    Attributes
    ----------
    loss_before, loss_after : float
        Mean cross-entropy on the training images.
    accuracy : float in [0, 1]
        On the test images.

    Examples
    --------
    >>> from chainrule.examples import DeepResult
    >>> DeepResult(loss_before=2.35, loss_after=0.28, accuracy=0.92).accuracy
    0.92
    """

    loss_before: float
    loss_after: float
    accuracy: float


def train_deep(
    network: cr.Sequential,
    train: Any,
    test: Any,
    *,
    epochs: int = 1,
    learning_rate: float = LEARNING_RATE,
    clip: float | None = CLIP,
    progress: bool = False,
) -> DeepResult:
    """Train by stochastic gradient descent without momentum, and measure the result.

    Parameters
    ----------
    network : Sequential
    train, test : data set, or pair (x, labels)
        As in `chainrule.fit`.
    epochs : int
    learning_rate : float
    clip : float
        The largest norm of the gradient. None means no bound.
    progress : bool
        Whether to print one line per epoch.

    Returns
    -------
    DeepResult

    Examples
    --------
    >>> import chainrule as cr
    >>> train, test = cr.data.digits()
    >>> result = cr.examples.train_deep(cr.examples.deep_network(20, 16), train[:1000], test[:200])
    >>> result.loss_after < result.loss_before
    True
    """
    loss = cr.CrossEntropy()
    loss_before = cr.evaluate(network, train, loss).loss
    cr.fit(
        network, train, loss=loss, optimizer=cr.SGD(learning_rate, clip=clip), epochs=epochs,
        progress=progress,
    )  # fmt: skip
    accuracy = cr.evaluate(network, test, loss).accuracy
    assert accuracy is not None, "labels have an accuracy"
    return DeepResult(loss_before, cr.evaluate(network, train, loss).loss, accuracy)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the network on the embedded digits, and print losses and accuracy."""
    parser = argparse.ArgumentParser(
        prog="python -m chainrule.examples deep",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--depth", type=int, default=200, help="layers with weights")
    parser.add_argument("--width", type=int, default=1024, help="units per hidden layer")
    parser.add_argument("--epochs", type=int, default=1, help="passes over 6,000 images")
    parser.add_argument("--init", choices=RULES, default="looks_linear", help="initial weights")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE, help="size of a step")
    parser.add_argument("--clip", type=float, default=CLIP, help="largest gradient norm; 0: any")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and image order")
    parser.add_argument(
        "--dtype", choices=["float32", "float64"], default="float32", help="of all numbers"
    )
    given = parser.parse_args(arguments)
    network = deep_network(given.depth, given.width, given.seed, given.dtype, given.init)
    optimizer = cr.SGD(given.learning_rate, clip=given.clip or None)
    print(f"{given.depth} layers, {given.width} units wide, init {given.init}")
    print(network.summary(optimizer=optimizer).totals(), flush=True)
    result = train_deep(
        network, *cr.data.digits(), epochs=given.epochs, learning_rate=given.learning_rate,
        clip=optimizer.clip, progress=True,
    )  # fmt: skip
    print(f"loss on the training images: {result.loss_before:.3f} -> {result.loss_after:.3f}")
    print(f"accuracy on the test images: {100 * result.accuracy:.2f} %")


if __name__ == "__main__":
    main()
