"""The layers: forward and backward passes, each one or two calls of ``ops``."""

from __future__ import annotations

from .activations import LeakyReLU, ReLU, Softmax
from .base import NO_BUFFER, Layer, LayerContext, Pooled
from .identities import Dropout, Flatten
from .pooling import MaxPool2d
from .products import Conv2d, Linear

__all__ = [
    "KINDS",
    "NO_BUFFER",
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
    "Softmax",
]

KINDS: dict[str, type[Layer]] = {
    kind.__name__: kind
    for kind in (Linear, Conv2d, MaxPool2d, ReLU, LeakyReLU, Softmax, Dropout, Flatten)
}
