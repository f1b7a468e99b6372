"""The layers: forward and backward passes, each one or two calls of ``ops``."""

from __future__ import annotations

from .activations import GELU, Activation, LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from .base import NO_BUFFER, Layer, LayerContext, Pooled
from .identities import Dropout, Flatten
from .pooling import MaxPool2d
from .products import Conv2d, Linear

__all__ = [
    "GELU",
    "KINDS",
    "NO_BUFFER",
    "Activation",
    "Conv2d",
    "Dropout",
    "Flatten",
    "Layer",
    "LayerContext",
    "LeakyReLU",
    "Linear",
    "MaxPool2d",
    "Pooled",
    "ReLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
]

KINDS: dict[str, type[Layer]] = {
    kind.__name__: kind
    for kind in (
        *(Linear, Conv2d, MaxPool2d),
        *(ReLU, LeakyReLU, Sigmoid, Tanh, GELU, Softmax),
        *(Dropout, Flatten),
    )
}
