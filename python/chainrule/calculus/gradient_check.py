"""Compare gradients with central differences, and count kinks of ReLU and max-pooling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .._random import generator
from .._types import Array
from .._validation import integer, number
from ..nn import user_defined
from ..nn.architecture import Mode
from ..nn.layers import LeakyReLU, MaxPool2d, ReLU
from ..nn.losses import Loss
from ..nn.network import Sequential, checked_network
from ._passes import (
    FLOAT64,
    ForwardPass,
    LossHead,
    checked_batch,
    checked_targets,
    float64_copy,
    run_backward,
)

# Larger relative errors fail. Errors of correct gradients are smaller by orders of magnitude, and
# errors of wrong gradients are larger.
TOLERANCE = 1e-6
# A smaller step does not change a number near 1.
EPSILON = float(np.finfo(FLOAT64).eps)


@dataclass(frozen=True)
class Derivative:
    """One derivative, computed by the kernels and measured by a central difference.

    Attributes
    ----------
    index : tuple of int
        The position in the array.
    computed : float
        The derivative that the backward pass computes.
    measured : float
        The central difference.

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.calculus.Derivative((0, 1), computed=2.0, measured=2.5).difference
    0.5
    """

    index: tuple[int, ...]
    computed: float
    measured: float

    @property
    def difference(self) -> float:
        """The absolute difference between the two. Infinite if one of them is NaN."""
        difference = abs(self.computed - self.measured)
        return math.inf if math.isnan(difference) else difference


@dataclass(frozen=True)
class LayerCheck:
    """The derivatives of the loss with respect to one array of a layer.

    Attributes
    ----------
    layer : int
        The index of the layer in the network.
    kind : str
        The layer, such as "Linear(3)".
    by : str
        The array: "weight", "bias", or "input" for the layer's input.
    error : float
        The largest difference, relative to the largest derivative.
    worst : Derivative or None
        The derivative with the largest difference. None if no derivative was compared.
    checked : int
        The number of derivatives that were compared.
    size : int
        The number of elements of the array.
    kinks : tuple of tuple of int
        The indices that were not compared: a ReLU or a maximum switches within eps.

    Examples
    --------
    >>> import chainrule as cr
    >>> net = cr.Sequential(cr.Linear(2), input_shape=(3,), seed=1)
    >>> report = cr.calculus.check_gradient(net, [1.0, 2.0, 3.0], 1, cr.CrossEntropy())
    >>> [(layer.kind, layer.by, layer.checked) for layer in report.layers]
    [('Linear(2)', 'weight', 6), ('Linear(2)', 'bias', 2), ('Linear(2)', 'input', 3)]
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
    """The result of `check_gradient`. ``print`` shows a table and the verdict.

    Attributes
    ----------
    layers : tuple of LayerCheck
        The checks, layer by layer.
    eps : float
        The step of the differences.
    tolerance : float
        The largest relative error that passes.

    Examples
    --------
    >>> import chainrule as cr
    >>> net = cr.Sequential(cr.Linear(2), input_shape=(3,), seed=1)
    >>> report = cr.calculus.check_gradient(net, [1.0, 2.0, 3.0], 1, cr.CrossEntropy())
    >>> report.passed, report.error < 1e-8, report.kinks
    (True, True, 0)
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
        """The number of derivatives that were not compared because they are at a kink."""
        return sum(len(layer.kinks) for layer in self.layers)

    @property
    def passed(self) -> bool:
        """True if all errors are within the tolerance and at least one derivative was compared."""
        return any(layer.checked for layer in self.layers) and self.error <= self.tolerance

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        headers = ("", "layer", "w.r.t.", "relative error", "checked", "kinks", "worst entry")
        cells = [headers]
        for check in self.layers:
            worst = check.worst
            entry = (
                ""
                if worst is None
                else (f"{list(worst.index)}: {worst.computed:.9g}, measured {worst.measured:.9g}")
            )
            error = f"{check.error:.1e}" + ("" if check.error <= self.tolerance else "  wrong")
            checked = f"{check.checked:,} of {check.size:,}"
            kinks = f"{len(check.kinks)}"
            cells.append((str(check.layer), check.kind, check.by, error, checked, kinks, entry))
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
            end += f"; {self.kinks} at kinks, not compared"
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
    """Compare the gradients of every layer with central differences, in float64.

    Each layer is checked in two ways. The gradients with respect to its weights and biases are
    those of a training step on the fused kernels. The gradient with respect to its input is that of
    the layer's own backward pass. At a kink, a ReLU or a maximum of a pooling window switches
    between the two ends of a difference. The derivative does not exist there, so kinks are counted
    separately.

    Parameters
    ----------
    network : Sequential
        A network of any dtype. It is not changed.
    x, y : array_like
        One instance or a batch, and the targets, as in `trace`. A few instances are best: with more
        instances, more units are at a kink.
    loss : Loss
        The loss.
    eps : float
        The step to either side, at least 2.2e-16. For numbers above 1 it is a relative step.
    tolerance : float
        The largest relative error that passes.
    samples : int
        The largest number of derivatives to compare per array. The network's seed selects them.
    training : bool
        If True, dropout is active, with the same mask in all passes.

    Returns
    -------
    GradientCheck
        The errors per layer. It is true if the check passed.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``y`` do not fit the network or the loss, or an option is out of range.

    Examples
    --------
    >>> import chainrule as cr
    >>> net = cr.examples.three_unit_network()
    >>> x, y = cr.examples.three_unit_instance()
    >>> cr.calculus.check_gradient(net, x, y, cr.SquaredError()).passed
    True
    """
    operation = "check_gradient"
    checked_network(operation, network)
    eps = number(operation, "eps", eps, EPSILON)
    tolerance = number(operation, "tolerance", tolerance, 0)
    samples = integer(operation, "samples", samples, 1)
    batch, single = checked_batch(operation, network, x)
    target = checked_targets(operation, network, y, loss, len(batch), single, training)
    forward = ForwardPass(network, batch, network.count_pass() if training else None)
    checks = _layer_checks(forward, target, loss, eps, tolerance, samples)
    return GradientCheck(tuple(checks), eps, tolerance)


def _layer_checks(
    forward: ForwardPass, target: Array, loss: Loss, eps: float, tolerance: float, samples: int
) -> Iterator[LayerCheck]:
    network = forward.network
    head = LossHead(forward, target, loss)
    mean = float(np.abs(head.losses).mean())
    # The rounding error of the loss, divided by eps, hides gradients below this.
    floor = EPSILON * max(mean, 1e-300) / eps / max(tolerance, 1e-300)
    input_gradients = []
    dy = head.doutput / len(target)
    for context in reversed(forward.contexts[: head.depth]):
        dy, _ = run_backward(context, dy)
        input_gradients.append(dy)
    trained = _training_step(forward, target, loss)
    for i, dx in enumerate(reversed(input_gradients)):
        kind = repr(network.layers[i])
        gradients = trained.layer_gradients(i)
        arrays = [(name, forward.parameters[i][name], gradients[name]) for name in gradients]
        for by, array, gradient in [*arrays, ("input", forward.values[i], dx)]:
            # Stream 4. Weights, masks, order and split use other streams.
            random = generator(network.seed, 4, i)
            positions = np.arange(array.size)
            if array.size > samples:
                positions = np.sort(random.choice(array.size, samples, replace=False))
            probe = _Probe(forward, target, loss, i)
            kinks, derivatives = [], []
            for position in positions:
                index = tuple(int(k) for k in np.unravel_index(int(position), array.shape))
                measured = probe.measure(array, index, eps)
                if measured is None:
                    kinks.append(index)
                else:
                    derivatives.append(Derivative(index, float(gradient[index]), measured))
            worst = max(derivatives, key=lambda each: each.difference, default=None)
            error = 0.0
            if worst is not None:
                scale = max(max(abs(d.computed), abs(d.measured)) for d in derivatives)
                finite = math.isfinite(worst.difference)
                error = worst.difference / max(scale, floor) if finite else math.inf
            yield LayerCheck(i, kind, by, error, worst, len(derivatives), array.size, tuple(kinks))


def _training_step(forward: ForwardPass, target: Array, loss: Loss) -> Sequential:
    """Return a copy of the network with the gradients of a training step on the fused kernels."""
    copy = float64_copy(forward.network)
    mode = Mode(backward=True, dropout=forward.offset is not None, logits=loss.takes_logits)
    with copy.plan(len(target), mode) as plan:
        plan.load(forward.values[0])
        user_defined.compare(
            loss, plan.forward(forward.offset or 0), target, plan.losses, plan.doutput
        )
        plan.backward()
    return copy


class _Probe:
    """Measures derivatives of the loss with respect to elements of one layer's arrays."""

    def __init__(self, forward: ForwardPass, target: Array, loss: Loss, start: int) -> None:
        self.forward, self.target, self.loss, self.start = forward, target, loss, start
        self.pattern = self._pattern()

    def _pattern(self) -> list[Array]:
        """Return the branch of each ReLU and each maximum from layer ``start`` on."""
        found = []
        for context in self.forward.contexts[self.start :]:
            if isinstance(context.layer, ReLU | LeakyReLU):
                found.append(context.x > 0)
            elif isinstance(context.layer, MaxPool2d):
                found.append(context.saved["argmax"])
        return found

    def _losses(self, array: Array, index: tuple[int, ...], value: float) -> tuple[Array, bool]:
        """Return the losses with one number changed, and True if no branch changed."""
        array[index] = value
        self.forward.rerun(self.start)
        same = all(map(np.array_equal, self.pattern, self._pattern()))
        return LossHead(self.forward, self.target, self.loss).losses, same

    def measure(self, array: Array, index: tuple[int, ...], eps: float) -> float | None:
        """Return the derivative of the mean loss for one element, or None at a kink."""
        value = float(array[index])
        step = eps * max(1.0, abs(value))
        up, down = value + step, value - step
        try:
            (above, same_above), (below, same_below) = (
                self._losses(array, index, up),
                self._losses(array, index, down),
            )
        finally:
            array[index] = value
            self.forward.rerun(self.start)
        if not (same_above and same_below):
            return None
        # The divisor is the rounded step, not the requested one. The differences are taken per
        # instance: the sum of the losses would round the change away.
        return float((above - below).mean() / (up - down))
