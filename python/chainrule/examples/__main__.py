"""``python -m chainrule.examples deep`` and ``python -m chainrule.examples approximation``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..data import digits
from ..nn.initialization import RULES
from ..training.optimizers import SGD
from .approximation import Approximation, growing_depth, growing_width
from .deep import CLIP, LEARNING_RATE, deep_network, learn


def _deep(given: argparse.Namespace) -> None:
    network = deep_network(given.depth, given.width, given.seed, given.dtype, given.init)
    optimizer = SGD(given.learning_rate, clip=given.clip or None)
    print(f"{given.depth} layers, {given.width} units wide, init {given.init}")
    print(network.summary(optimizer=optimizer).totals(), flush=True)
    learnt = learn(
        network,
        *digits(),
        epochs=given.epochs,
        learning_rate=given.learning_rate,
        clip=optimizer.clip,
        progress=True,
    )
    print(f"loss on the training images: {learnt.loss_before:.3f} -> {learnt.loss_after:.3f}")
    print(f"accuracy on the test images: {100 * learnt.accuracy:.2f} %")


def _approximation(given: argparse.Namespace) -> None:
    n = given.dimension
    print(f"depth 2, growing width, trained by gradient descent; n = {n}")
    _table(growing_width(dimension=n, seed=given.seed))
    print(f"width n + 1 = {n + 1}, growing depth, built from max and min")
    _table(growing_depth(points=(1, 4, 16, 64) if n == 1 else (1, 4, 8, 12), dimension=n))


def _table(found: list[Approximation]) -> None:
    print("  width  depth  parameters  root mean square error  largest")
    for one in found:
        size = one.network.parameter_vector.size
        print(f"{one.width:7}{one.depth:7}{size:12,}{one.rms:24.5f}{one.largest:9.4f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one example as the command line says, and print what came of it."""
    shown = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m chainrule.examples")
    examples = parser.add_subparsers(required=True, metavar="EXAMPLE")

    deep = examples.add_parser(
        "deep", help="a deep stack of dense layers learns the digits", formatter_class=shown
    )
    deep.set_defaults(run=_deep)
    deep.add_argument("--depth", type=int, default=200, help="layers with weights")
    deep.add_argument("--width", type=int, default=1024, help="units of a hidden layer")
    deep.add_argument("--epochs", type=int, default=1, help="passes over 6,000 images")
    deep.add_argument("--init", choices=RULES, default="looks_linear", help="first weights")
    deep.add_argument("--learning-rate", type=float, default=LEARNING_RATE, help="size of a step")
    deep.add_argument("--clip", type=float, default=CLIP, help="longest gradient; 0: any")
    deep.add_argument("--seed", type=int, default=0, help="of weights and of the order of images")
    deep.add_argument(
        "--dtype", choices=["float32", "float64"], default="float32", help="of all numbers"
    )

    approximation = examples.add_parser(
        "approximation",
        help="wide networks and deep ones come close to a continuous function",
        formatter_class=shown,
    )
    approximation.set_defaults(run=_approximation)
    approximation.add_argument(
        "--dimension", type=int, choices=[1, 2], default=1, help="variables of the function"
    )
    approximation.add_argument("--seed", type=int, default=0, help="of the trained networks")

    given = parser.parse_args(arguments)
    try:
        given.run(given)
    except (ArithmeticError, MemoryError, ValueError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
