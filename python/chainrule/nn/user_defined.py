"""Checks of layers and losses that are defined outside this package.

A layer inherits `Layer.fuses_relu`, `Layer.in_place_backward` and `Layer.reshapes_only` with the
methods that they describe. A subclass that overrides such a method does not inherit the
description. Otherwise a ReLU would be left out that the subclass does not apply, a gradient would
be lost, or the subclass's own method would not run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .._types import Array
from .layers import KINDS, Layer, LayerContext
from .losses import LOSSES, Loss

# The kinds as they are here, before a program adds its own: those compute only with `ops`.
BUILT_IN: frozenset[type[Layer]] = frozenset(KINDS.values())
# The bits of a NaN that no arithmetic produces: it marks elements that are not written.
UNWRITTEN: dict[int, np.generic[Any]] = {
    4: np.uint32(0x7FC1DEAD),
    8: np.uint64(0x7FF8_1DEA_D000_0001),
}


def is_built_in(layer: Layer) -> bool:
    """Return whether the layer computes with `ops` only, so that a `Program` records all of it."""
    return type(layer) in BUILT_IN


def fuses_relu(layer: Layer) -> bool:
    """Return whether the layer's own forward pass applies a following ReLU."""
    return layer.fuses_relu and _describes(layer, "fuses_relu", "forward")


def in_place_backward(layer: Layer) -> bool:
    """Return whether the layer's own backward pass writes dx over dy."""
    return layer.in_place_backward and _describes(layer, "in_place_backward", "backward")


def reshapes_only(layer: Layer, dropout: bool) -> bool:
    """Return whether the layer's own passes only reshape, so that none of them has to run."""
    return _describes(layer, "reshapes_only", "forward", "backward") and layer.reshapes_only(
        dropout
    )


def _describes(layer: Layer, name: str, *methods: str) -> bool:
    """Return whether no subclass of the class that defines ``name`` overrides a method."""
    for kind in type(layer).__mro__:
        if name in vars(kind):
            return True
        if any(method in vars(kind) for method in methods):
            return False
    return False


def forward(context: LayerContext) -> None:
    """Run a forward pass, and check that it writes every element of ``context.y``.

    Raises
    ------
    TypeError
        If the layer returns its output, assigns ``context.y``, or leaves elements unwritten.
    """
    y = context.y
    _mark(y)
    call: Callable[[LayerContext], object] = context.layer.forward
    result = call(context)
    assigned, context.y = context.y, y
    name = f"{type(context.layer).__name__}: forward must"
    _check_result(name, "y", result, y, assigned)
    _check_written(name, {"context.y": y})


def backward(context: LayerContext) -> None:
    """Run a backward pass, and check that it writes ``context.dx`` and all gradients.

    Raises
    ------
    TypeError
        If the layer returns its gradient, assigns ``context.dx``, or leaves elements unwritten.
    """
    dy, dx = context.dy, context.dx
    gradients = dict(context.gradients)
    written = {f'context.gradients["{name}"]': array for name, array in gradients.items()}
    if dx is not None:
        written["context.dx"] = dx
    for array in written.values():
        _mark(array)
    call: Callable[[LayerContext], object] = context.layer.backward
    result = call(context)
    assigned = replace(context)
    context.dy, context.dx, context.gradients = dy, dx, gradients
    name = f"{type(context.layer).__name__}: backward must"
    if in_place_backward(context.layer):
        _check_result(name, "dy", result, dy, assigned.dy)
    else:
        _check_result(name, "dx", result, dx, assigned.dx)
    for key, array in gradients.items():
        _check_result(name, f'gradients["{key}"]', None, array, assigned.gradients.get(key))
    _check_written(name, written)


def takes_weights(loss: Loss) -> bool:
    """Return whether ``loss.compare`` has the parameters ``weight`` and ``instances``."""
    parameters = inspect.signature(loss.compare).parameters
    named = {"weight", "instances"} <= parameters.keys()
    return named or any(item.kind is item.VAR_KEYWORD for item in parameters.values())


def compare(
    loss: Loss,
    output: Array,
    target: Array,
    losses: Array,
    doutput: Array,
    weight: Array | None = None,
) -> None:
    """Call ``loss.compare``. Check that a user-defined loss writes its two results.

    Parameters
    ----------
    loss, output, target, losses, doutput
        As in `Loss.compare`.
    weight : ndarray (N,)
        Weights whose mean over all training data is 1, so that the divisor is the number of
        instances. None means 1.

    Raises
    ------
    TypeError
        If the loss returns its results, or leaves elements unwritten.
    """
    call: Callable[..., object] = loss.compare
    options = {} if weight is None else {"weight": weight, "instances": len(output)}
    if type(loss) in LOSSES:
        call(output, target, losses, doutput, **options)
        return
    _mark(losses)
    _mark(doutput)
    result = call(output, target, losses, doutput, **options)
    name = f"{type(loss).__name__}: compare must"
    if result is not None:
        raise TypeError(
            f"{name} write into the arrays losses and doutput, such as losses[...] = ..., and "
            f"return None, got {type(result).__name__}"
        )
    _check_written(name, {"losses": losses, "doutput": doutput})


def _mark(array: Array) -> None:
    if isinstance(array, np.ndarray) and array.dtype.kind == "f":
        array.view(UNWRITTEN[array.dtype.itemsize].dtype)[...] = UNWRITTEN[array.dtype.itemsize]


def _check_result(name: str, buffer: str, result: Any, given: Any, assigned: Any) -> None:
    rule = f"{name} write into the array context.{buffer}, such as context.{buffer}[...] = ..."
    if assigned is not given:
        raise TypeError(f"{rule}, got an assignment of another array to context.{buffer}")
    if result is not None and result is not given:
        raise TypeError(f"{rule}, and return None, got {type(result).__name__}")


def _check_written(name: str, arrays: Mapping[str, Array]) -> None:
    for buffer, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            continue
        mark = UNWRITTEN[array.dtype.itemsize]
        missing = int(np.count_nonzero(array.view(mark.dtype) == mark))
        if missing:
            raise TypeError(
                f"{name} write every element of {buffer}, got {missing:,} of "
                f"{array.size:,} unwritten"
            )
