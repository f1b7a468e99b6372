"""What follows from a list of layers and an input shape alone, before any memory is allocated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._types import Shape
from .._validation import LARGEST, integer
from .layers import KINDS, Layer

MOST_AXES = 8


def build(layers: Sequence[Layer], input_shape: Shape) -> list[Shape]:
    """Return the shape of an instance before each layer, and after the last.

    Raises
    ------
    TypeError, ValueError
        Naming the layer by its index and arguments, what it expects and what came.
    """
    if not isinstance(input_shape, tuple | list) or not input_shape:
        raise TypeError(
            f"Sequential: input_shape must be a tuple such as (28, 28, 1), got {input_shape!r}"
        )
    if len(input_shape) > MOST_AXES:
        raise ValueError(
            f"Sequential: input_shape must have at most {MOST_AXES} axes, got {len(input_shape)}"
        )
    shape = tuple(integer("Sequential", "input_shape", size, 1) for size in input_shape)
    if not layers:
        raise ValueError("Sequential: needs at least one layer, got none")
    shapes = [shape]
    for i, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            hint = f": write {layer.__name__}(...)" if isinstance(layer, type) else ""
            raise TypeError(
                f"Sequential: layer {i} must be a layer ({', '.join(KINDS)}), got {layer!r}{hint}"
            )
        try:
            shapes.append(layer.build(shapes[-1]))
        except ValueError as error:
            raise ValueError(f"Sequential: layer {i}, {layer!r}, {error}") from None
        if max(shapes[-1]) > LARGEST:
            raise ValueError(f"Sequential: layer {i}, {layer!r}, gives {shapes[-1]}: too large")
    return shapes


def parameter_shapes(layers: Sequence[Layer], shapes: Sequence[Shape]) -> dict[str, Shape]:
    """Return the shapes of all parameters, named as PyTorch's Sequential names them: "0.weight"."""
    return {
        f"{i}.{name}": shape
        for i, layer in enumerate(layers)
        for name, shape in layer.parameter_shapes(shapes[i]).items()
    }


def network_dtype(dtype: object) -> np.dtype[Any]:
    """Return ``dtype`` as float32 or float64; TypeError for all others."""
    for known in (np.dtype(np.float32), np.dtype(np.float64)):
        # None means float64 to NumPy; here it is a mistake.
        if dtype is not None and dtype == known:
            return known
    raise TypeError(f'Sequential: dtype must be "float32" or "float64", got {dtype!r}')
