"""The softmax that ends a network, asked in one place: by losses, `predict_proba` and `calculus`.

Layers that change no probability may follow it: they only reshape, or they are the identity on
numbers in [0, 1], or they are inactive outside training. Their output is still probabilities, and
must not be read as logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._types import Shape
from .layers import Layer, LayerContext, LeakyReLU, MaxPool2d, ReLU, Softmax
from .losses import Loss
from .user_defined import is_built_in


def find(layers: Sequence[Layer], shapes: Sequence[Shape], dtype: np.dtype[Any]) -> int | None:
    """Return the index of the final softmax, or None if other layers compute the output.

    A pooling may follow it. `check_probabilities` refuses such a network.
    """
    for i in range(len(layers) - 1, -1, -1):
        if isinstance(layers[i], Softmax):
            return i
        pools = type(layers[i]) is MaxPool2d
        if not pools and not keeps_probabilities(layers[i], shapes[i], dtype):
            return None
    return None


def keeps_probabilities(layer: Layer, shape: Shape, dtype: np.dtype[Any]) -> bool:
    """Return whether the layer, outside training, returns probabilities of ``shape`` as they are.

    A user-defined layer without parameters is tried on two instances.
    """
    if layer.reshapes_only(False):
        return True
    if is_built_in(layer):
        one_pixel = type(layer) is MaxPool2d and layer.window == 1 and layer.stride in (None, 1)
        return one_pixel or type(layer) in (ReLU, LeakyReLU)
    if layer.parameter_shapes(shape):
        return False
    size = math.prod(shape)
    x = np.arange(1, 2 * size + 1, dtype=dtype).reshape(2, *shape)
    x /= x.sum(axis=-1, keepdims=True)
    y = np.full((2, *layer.build(shape)), np.nan, dtype)
    saved = {name: np.zeros(*spec) for name, spec in layer.buffers(shape, 2).items()}
    try:
        layer.forward(LayerContext(layer, x, y, saved=saved))
    except Exception:
        return False
    return np.array_equal(x.reshape(-1), y.reshape(-1))


def check_probabilities(
    operation: str,
    layers: Sequence[Layer],
    shapes: Sequence[Shape],
    dtype: np.dtype[Any],
    last: int,
    dropout: bool,
) -> None:
    """Check that the output is one choice's probabilities per row. See `Architecture`."""
    later = list(zip(layers[last + 1 :], shapes[last + 1 :], strict=False))
    for layer, shape in later:
        if not keeps_probabilities(layer, shape, dtype):
            raise ValueError(
                f"{operation}: no pooling may follow the final softmax, got {layer!r} after layer "
                f"{last}: put it before the softmax"
            )
    if shapes[last + 1][-1] != shapes[-1][-1]:
        raise ValueError(
            f"{operation}: the final softmax must be over all outputs of an instance, got layer "
            f"{last} over the last axis of {shapes[last + 1]}, reshaped to {shapes[-1]} later: "
            f"put Flatten() before Softmax()"
        )
    active = [layer for layer, _ in later if not layer.reshapes_only(True)]
    active = [layer for layer in active if layer.reshapes_only(False)]
    if dropout and active:
        raise ValueError(
            f"{operation}: no active dropout may follow the final softmax, got {active[0]!r} after "
            f"layer {last}: put it before the last layer with weights"
        )


def check_loss(loss: Loss, layer: Layer, last: int) -> None:
    """Raise ValueError if leaving out ``layer``, the final softmax, changes the output."""
    if type(layer).forward is not Softmax.forward:
        raise ValueError(
            f"{type(loss).__name__}: the final softmax must be chainrule.Softmax, got the subclass "
            f"{layer!r} with its own forward as layer {last}"
        )
