"""Gradients against central differences, with the kinks of rectifiers and pooling told apart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .._random import generator
from .._types import Array
from .._validation import integer, number
from ..nn.architecture import Mode
from ..nn.layers import LeakyReLU, MaxPool2d, ReLU
from ..nn.losses import Loss
from ..nn.network import Sequential
from ._passes import FLOAT, Ending, Walk, checked_network, instances, run_back, targets, twin

# Relative errors above this fail. Right gradients stay orders of magnitude below; wrong ones,
# orders above.
TOLERANCE = 1e-6
# A smaller step would change nothing.
EPSILON = float(np.finfo(FLOAT).eps)


@dataclass(frozen=True)
class Derivative:
    """One derivative: what the kernels say and what the difference quotient says."""

    index: tuple[int, ...]
    computed: float
    measured: float

    @property
    def difference(self) -> float:
        """How far the two lie apart; infinite where one of them is not a number."""
        difference = abs(self.computed - self.measured)
        return math.inf if math.isnan(difference) else difference


@dataclass(frozen=True)
class LayerCheck:
    """The derivatives of the loss by one array.

    Attributes
    ----------
    layer : int, the layer's place in the network
    kind : str, the layer as it was written
    by : str, "weight", "bias", or "input" for what goes into the layer
    error : float, the largest difference, relative to the largest derivative
    worst : Derivative, where it is
    checked : int, how many derivatives were compared
    size : int, how many there are
    kinks : tuple of index, where a rectifier or a maximum switches within eps: not compared
    """

    layer: int
    kind: str
    by: str
    error: float
    worst: Derivative | None
    checked: int
    size: int
    kinks: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class GradientCheck:
    """What `check_gradient` returns; ``print`` shows a table and the verdict.

    Attributes
    ----------
    layers : tuple of LayerCheck
    eps : float, the step of the differences
    tolerance : float
    """

    layers: tuple[LayerCheck, ...]
    eps: float
    tolerance: float

    @property
    def error(self) -> float:
        """The largest relative error."""
        return max((layer.error for layer in self.layers), default=0.0)

    @property
    def worst(self) -> LayerCheck:
        """The check with the largest error."""
        return max(self.layers, key=lambda layer: layer.error)

    @property
    def kinks(self) -> int:
        """How many derivatives were left out because they stand at a kink."""
        return sum(len(layer.kinks) for layer in self.layers)

    @property
    def passed(self) -> bool:
        """Whether every error is within the tolerance, and there was anything to compare."""
        return any(layer.checked for layer in self.layers) and self.error <= self.tolerance

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        headers = ("", "layer", "by", "relative error", "checked", "kinks", "worst entry")
        cells = [headers]
        for each in self.layers:
            worst = each.worst
            where = (
                ""
                if worst is None
                else (f"{list(worst.index)}: {worst.computed:.9g}, measured {worst.measured:.9g}")
            )
            error = f"{each.error:.1e}" + ("" if each.error <= self.tolerance else "  wrong")
            checked = f"{each.checked:,} of {each.size:,}"
            cells.append(
                (str(each.layer), each.kind, each.by, error, checked, f"{len(each.kinks)}", where)
            )
        widths = [max(len(line[i]) for line in cells) for i in range(len(headers))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in cells
        ]
        verdict = "passed" if self.passed else "failed"
        end = (
            f"{verdict}: relative error at most {self.error:.1e} (tolerance {self.tolerance:g}, "
            f"eps {self.eps:g})"
        )
        if self.kinks:
            end += f"; {self.kinks} at kinks, where no difference tells a derivative"
        return "\n".join([*lines, end])

    __repr__ = __str__


def check_gradient(
    network: Sequential,
    x: object,
    y: object,
    loss: Loss,
    eps: float = 1e-6,
    *,
    tolerance: float = TOLERANCE,
    samples: int = 64,
    training: bool = False,
) -> GradientCheck:
    """Compare every layer's gradients with central differences, in float64.

    Each layer is checked twice over: by its weights and biases, with the gradients that a training
    step computes on its fused kernels, and by its input, with what the layer's own backward pass
    hands down. Where a rectifier or a maximum of pooling switches between the two
    ends of a difference, there is no derivative to compare with: such kinks are counted apart.

    Parameters
    ----------
    network : Sequential, of any dtype; it is not changed
    x, y : an instance or a batch, and targets, as in `trace`. Few instances tell most: many units
        meet many kinks
    loss : Loss
    eps : float, at least 2.2e-16, the step to either side; of a number above 1, relative to it
    tolerance : float, the largest relative error that passes
    samples : int, at most so many derivatives of each array are compared, chosen by the network's
        seed
    training : bool, whether dropout is active, with one mask throughout

    Returns
    -------
    GradientCheck
    """
    operation = "check_gradient"
    checked_network(operation, network)
    eps = number(operation, "eps", eps, EPSILON)
    tolerance = number(operation, "tolerance", tolerance, 0)
    samples = integer(operation, "samples", samples, 1)
    batch, single = instances(operation, network, x)
    target = targets(operation, network, y, loss, len(batch), single)
    walk = Walk(network, batch, network.count_pass() if training else None)
    return GradientCheck(
        tuple(_checks(walk, target, loss, eps, tolerance, samples)), eps, tolerance
    )


def _checks(
    walk: Walk, target: Array, loss: Loss, eps: float, tolerance: float, samples: int
) -> Iterator[LayerCheck]:
    network = walk.network
    ending = Ending(walk, target, loss)
    mean = float(np.abs(ending.losses).mean())
    # Below this a gradient drowns in the rounding of the loss over eps.
    floor = EPSILON * max(mean, 1e-300) / eps / max(tolerance, 1e-300)
    by_input = []
    dy = ending.dvalue / len(target)
    for slot in reversed(walk.slots[: ending.last]):
        dy, _ = run_back(slot, dy)
        by_input.append(dy)
    trained = _trained(walk, target, loss)
    for i, dx in enumerate(reversed(by_input)):
        kind = repr(network.layers[i])
        gradients = trained.layer_gradients(i)
        arrays = [(name, walk.parameters[i][name], gradients[name]) for name in gradients]
        for by, array, gradient in [*arrays, ("input", walk.values[i], dx)]:
            # A stream of its own, beside those of weights, masks, order and split.
            random = generator(network.seed, 4, i)
            chosen = np.arange(array.size)
            if array.size > samples:
                chosen = np.sort(random.choice(array.size, samples, replace=False))
            probe = _Probe(walk, target, loss, i)
            kinks, entries = [], []
            for place in chosen:
                index = tuple(int(k) for k in np.unravel_index(int(place), array.shape))
                measured = probe.measure(array, index, eps)
                if measured is None:
                    kinks.append(index)
                else:
                    entries.append(Derivative(index, float(gradient[index]), measured))
            worst = max(entries, key=lambda each: each.difference, default=None)
            error = 0.0
            if worst is not None:
                scale = max(max(abs(e.computed), abs(e.measured)) for e in entries)
                finite = math.isfinite(worst.difference)
                error = worst.difference / max(scale, floor) if finite else math.inf
            yield LayerCheck(i, kind, by, error, worst, len(entries), array.size, tuple(kinks))


def _trained(walk: Walk, target: Array, loss: Loss) -> Sequential:
    """A copy of the network with the gradients that a training step computes: fused, in a plan."""
    other = twin(walk.network)
    mode = Mode(backward=True, dropout=walk.offset is not None, logits=loss.takes_logits)
    with other.plan(len(target), mode) as plan:
        plan.load(walk.values[0])
        loss.compare(plan.forward(walk.offset or 0), target, plan.losses, plan.doutput)
        plan.backward()
    return other


class _Probe:
    """Losses of a network one of whose numbers has moved, from its layer onwards."""

    def __init__(self, walk: Walk, target: Array, loss: Loss, start: int) -> None:
        self.walk, self.target, self.loss, self.start = walk, target, loss, start
        self.pattern = self._pattern()

    def _pattern(self) -> list[Array]:
        """Which side of its kink everything stands on."""
        found = []
        for slot in self.walk.slots[self.start :]:
            if isinstance(slot.layer, ReLU | LeakyReLU):
                found.append(slot.x > 0)
            elif isinstance(slot.layer, MaxPool2d):
                found.append(slot.saved["argmax"])
        return found

    def _at(self, array: Array, index: tuple[int, ...], value: float) -> tuple[Array, bool]:
        array[index] = value
        self.walk.resume(self.start)
        same = all(map(np.array_equal, self.pattern, self._pattern()))
        return Ending(self.walk, self.target, self.loss).losses, same

    def measure(self, array: Array, index: tuple[int, ...], eps: float) -> float | None:
        """The mean loss's derivative by one element; None at a kink."""
        start = float(array[index])
        # Differences of what float64 can hold, not of what was asked for.
        step = eps * max(1.0, abs(start))
        up, down = start + step, start - step
        try:
            (above, one_side), (below, other_side) = (
                self._at(array, index, up),
                self._at(array, index, down),
            )
        finally:
            array[index] = start
            self.walk.resume(self.start)
        if not (one_side and other_side):
            return None
        # Instance by instance: their sum would round away what the step has changed.
        return float((above - below).mean() / (up - down))
