"""Where a layer meets a batch: its arrays at one batch size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._types import Array, Pair

if TYPE_CHECKING:
    from .layers import Layer


class Pooled(NamedTuple):
    """The max-pooling behind a convolution that one kernel does with it."""

    y: Array
    argmax: Array
    window: Pair


# Stands for a buffer that this plan does not have; a kernel that is handed it by mistake says so.
ABSENT: Array = np.empty(0)


@dataclass(slots=True, eq=False)
class Slot:
    """What one layer touches at one batch size: views into the plan's arena and the parameters.

    Attributes
    ----------
    x, y : ndarray, input and output, shapes (N, *input shape) and (N, *output shape)
    dy, dx : ndarray, the loss's gradients by y and by x. ``dx`` is None where nobody wants it
    parameters, gradients : by the names of `Layer.parameter_shapes`
    kept : what forward leaves for backward, by the names of `Layer.buffers`
    pooled : the `MaxPool2d` behind this convolution, which then has no ``y`` of its own, and whose
        ``dy`` is the gradient by the pooled output
    activation : "relu" where the next layer's rectifier is done by this layer's kernel
    seed, offset : the dropout mask's counter
    """

    layer: Layer
    x: Array
    y: Array
    dy: Array = field(default_factory=lambda: ABSENT)
    dx: Array | None = None
    parameters: Mapping[str, Array] = field(default_factory=dict)
    gradients: Mapping[str, Array] = field(default_factory=dict)
    kept: Mapping[str, Array] = field(default_factory=dict)
    pooled: Pooled | None = None
    activation: str | None = None
    seed: int = 0
    offset: int | Array = 0
