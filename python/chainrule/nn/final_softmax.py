"""The softmax that ends a network, asked in one place: by losses, `predict_proba` and `calculus`.

Layers that change no probability may follow it: they only reshape, or they are the identity on
numbers in [0, 1], or they are inactive outside training. Their output is still probabilities, and
must not be read as logits. Other layers without parameters are refused there: the softmax would be
computed twice. A layer with parameters computes logits.
"""

from __future__ import annotations

from collections.abc import Sequence

from .._types import Shape
from .layers import Layer, LeakyReLU, MaxPool2d, ReLU, Sigmoid, Softmax
from .losses import Loss
from .user_defined import reshapes_only


def find(layers: Sequence[Layer], shapes: Sequence[Shape]) -> int | None:
    """Return the index of the softmax that gives the output, or None if later layers change it."""
    last = _last_softmax(layers, shapes)
    if last is None or not all(map(keeps_probabilities, layers[last + 1 :])):
        return None
    return last


def _last_softmax(layers: Sequence[Layer], shapes: Sequence[Shape]) -> int | None:
    """Return the index of the last softmax, or None if a layer with parameters follows it."""
    for i in range(len(layers) - 1, -1, -1):
        if isinstance(layers[i], Softmax):
            return i
        if layers[i].parameter_shapes(shapes[i]):
            return None
    return None


def keeps_probabilities(layer: Layer) -> bool:
    """Return whether the layer is known to keep probabilities as they are, outside training.

    A user-defined layer is known to if its `Layer.reshapes_only` is true. Other passes are not
    tried: an example cannot show that a layer is the identity.
    """
    if reshapes_only(layer, False) or type(layer) in (ReLU, LeakyReLU):
        return True
    return type(layer) is MaxPool2d and layer.window == 1 and layer.stride in (None, 1)


def find_sigmoid(layers: Sequence[Layer]) -> int | None:
    """Return the index of the sigmoid whose probabilities are the output, or None."""
    for i in range(len(layers) - 1, -1, -1):
        if isinstance(layers[i], Sigmoid):
            return i
        if not keeps_probabilities(layers[i]):
            return None
    return None


def check_probabilities(
    operation: str, layers: Sequence[Layer], shapes: Sequence[Shape], dropout: bool
) -> None:
    """Check that the output is one choice's probabilities per row. See `Architecture`."""
    last = _last_softmax(layers, shapes)
    if last is None:
        return
    later = layers[last + 1 :]
    for layer in later:
        if keeps_probabilities(layer):
            continue
        if type(layer) is MaxPool2d:
            raise ValueError(
                f"{operation}: no pooling may follow the final softmax, got {layer!r} after layer "
                f"{last}: put it before the softmax"
            )
        other = "predict" if operation == "predict_proba" else "SquaredError"
        raise ValueError(
            f"{operation}: layers after a softmax must keep its probabilities, got {layer!r} after "
            f"layer {last}: use {other}, or remove the softmax"
        )
    if shapes[last + 1][-1] != shapes[-1][-1]:
        raise ValueError(
            f"{operation}: the final softmax must be over all outputs of an instance, got layer "
            f"{last} over the last axis of {shapes[last + 1]}, reshaped to {shapes[-1]} later: "
            f"put Flatten() before Softmax()"
        )
    active = [
        layer for layer in later if reshapes_only(layer, False) and not reshapes_only(layer, True)
    ]
    if dropout and active:
        raise ValueError(
            f"{operation}: no active dropout may follow the final softmax, got {active[0]!r} after "
            f"layer {last}: put it before the last layer with weights"
        )


def check_loss(loss: Loss, layer: Layer, last: int) -> None:
    """Raise ValueError if leaving out ``layer``, the final softmax, changes the output."""
    for method in ("forward", "backward"):
        if getattr(type(layer), method) is not getattr(Softmax, method):
            raise ValueError(
                f"{type(loss).__name__}: the final softmax must be chainrule.Softmax, got the "
                f"subclass {layer!r} with its own {method} as layer {last}"
            )
