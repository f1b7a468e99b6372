"""What the kernels of a training step work in, asked of them before there is any array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import chainrule._core as _core

from .._validation import both
from .layers import Conv2d, Linear
from .plan import first_with_parameters, pooled_convolutions

if TYPE_CHECKING:
    from .network import Sequential


def workspace(network: Sequential, batch: int) -> int:
    """Return the bytes that the greediest kernel of a training step wants: all take turns in one.

    It depends on the backend and, a little, on the number of threads.
    """
    windows = {
        behind.convolution: behind.window for behind in pooled_convolutions(network).values()
    }
    float64, on_gpu = network.dtype == np.float64, network.device != "cpu"
    first, largest = first_with_parameters(network), 0
    for i, (layer, shape) in enumerate(zip(network.layers, network.shapes, strict=False)):
        wanted = 0
        try:
            if isinstance(layer, Linear):
                wanted = _core.linear_workspace(batch, shape[0], layer.out, float64, on_gpu)
            elif isinstance(layer, Conv2d):
                window = both(windows[i]) if i in windows else None
                weight = layer.parameter_shapes(shape)["weight"]
                image = (batch, shape[0], shape[1], shape[2])
                wanted = _core.conv2d_workspace(
                    image, weight, layer.stride, layer.padding, window, i > first, float64, on_gpu
                )
        except ValueError:
            pass  # sizes whose products do not fit 63 bits; nothing of them will ever run
        largest = max(largest, wanted)
    return largest
