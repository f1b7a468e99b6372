"""One walk over a network in float64, layer by layer: nothing fused, nothing overwritten.

A training step fuses layers and reuses buffers; here every quantity of the tutorial is wanted, so
each layer's own forward and backward, which are calls of the same kernels, run on arrays of their
own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .. import ops
from .._types import Array
from ..nn.layers import Layer, LayerContext, Softmax
from ..nn.losses import CrossEntropy, Loss
from ..nn.network import Sequential

FLOAT: np.dtype[Any] = np.dtype(np.float64)


def checked_network(operation: str, network: object) -> Sequential:
    """Return ``network``; TypeError where it is none."""
    if not isinstance(network, Sequential):
        raise TypeError(f"{operation}: network must be a Sequential, got {type(network).__name__}")
    return network


def real_array(operation: str, name: str, value: object) -> Array:
    """Return any array or nested list of real numbers as an array of its own dtype."""
    if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray):
        value = np.from_dlpack(value)
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{operation}: {name} must be an array, got nested lists of different lengths"
        ) from None
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{operation}: {name} must be real numbers, got {array.dtype}")
    return array


def numbers(operation: str, name: str, value: object) -> Array:
    """Return `real_array` in float64; uint8 means value / 255."""
    array = real_array(operation, name, value)
    return array / 255 if array.dtype == np.uint8 else array.astype(FLOAT)


def in_float64(array: Any) -> Array:
    """Return a copy of a parameter in float64; one on a device is fetched with its ``numpy()``."""
    return (array if isinstance(array, np.ndarray) else array.numpy()).astype(FLOAT)


def instances(operation: str, network: Sequential, x: object) -> tuple[Array, bool]:
    """Return ``x`` as a batch in float64, and whether it was a single instance."""
    array = numbers(operation, "x", x)
    single = array.shape == network.input_shape
    if single:
        array = array[None]
    # The network's own check of the shape, on bytes, which networks of any dtype take.
    network.checked(operation, np.broadcast_to(np.uint8(0), array.shape))
    if len(array) == 0:
        raise ValueError(f"{operation}: x must hold at least one instance, got 0")
    return np.ascontiguousarray(array), single


def targets(
    operation: str, network: Sequential, y: object, loss: object, count: int, single: bool
) -> Array:
    """Return the targets of ``count`` instances as the loss's kernel wants them in float64."""
    if not isinstance(loss, Loss):
        raise TypeError(f"{operation}: loss must be CrossEntropy() or SquaredError(), got {loss!r}")
    target = real_array(operation, "y", y)
    lone = math.prod(network.output_shape) == 1 and not loss.takes_logits
    if single and lone and target.size == 1:
        target = target.reshape(network.output_shape)
    if single and target.shape in ((), network.output_shape):
        target = target[None]
    labels = target.ndim == 1 and target.dtype.kind in "iu"
    if not loss.takes_logits and not labels:
        target = target.astype(FLOAT)
    return loss.check(target, count, network.output_shape, FLOAT)


class Walk:
    """A batch's way through a network, and each layer's way back.

    Parameters
    ----------
    network : Sequential
    x : ndarray float64 (N, *input_shape)
    offset : int, the dropout mask's counter; None: dropout is inactive

    Attributes
    ----------
    parameters : list of dict, each layer's, in float64
    values : list of ndarray, the input and every layer's output
    slots : list of LayerContext, what each layer saw
    """

    def __init__(self, network: Sequential, x: Array, offset: int | None = None) -> None:
        self.network, self.offset = network, offset
        self.parameters = [
            {name: in_float64(array) for name, array in network.layer_parameters(i).items()}
            for i in range(len(network.layers))
        ]
        self.values: list[Array] = [x]
        self.slots: list[LayerContext] = []
        self.resume(0)

    def resume(self, start: int) -> Array:
        """Walk forward again from the input of layer ``start``; return the output."""
        del self.values[start + 1 :], self.slots[start:]
        for i in range(start, len(self.network.layers)):
            slot = run(
                self.network.layers[i],
                self.values[i],
                self.parameters[i],
                seed=self.network.dropout_seed(i),
                offset=self.offset,
            )
            self.slots.append(slot)
            self.values.append(slot.y)
        return self.values[-1]


def run(
    layer: Layer,
    x: Array,
    parameters: Mapping[str, Array],
    seed: int = 0,
    offset: int | None = None,
) -> LayerContext:
    """Run one layer forward on arrays of its own; ``offset`` None leaves dropout out."""
    shape = layer.build(x.shape[1:])
    if layer.reshapes_only(offset is not None):
        return LayerContext(layer, x, x.reshape(len(x), *shape))
    declared = layer.buffers(x.shape[1:], len(x))
    slot = LayerContext(
        layer,
        x,
        np.empty((len(x), *shape), FLOAT),
        parameters=parameters,
        saved={name: np.empty(*what) for name, what in declared.items()},
        seed=seed,
        offset=offset or 0,
    )
    layer.forward(slot)
    return slot


def run_back(slot: LayerContext, dy: Array) -> tuple[Array, dict[str, Array]]:
    """Run one layer back from ``dy``.

    Returns
    -------
    dx : ndarray like the layer's input
    gradients : dict of name -> ndarray, summed over the batch
    """
    if np.may_share_memory(slot.x, slot.y):
        return dy.reshape(slot.x.shape), {}
    dy = dy.copy()
    dx = dy if slot.layer.in_place_backward else np.empty_like(slot.x)
    gradients = {name: np.empty_like(array) for name, array in slot.parameters.items()}
    slot.layer.backward(replace(slot, dy=dy, dx=None if dx is dy else dx, gradients=gradients))
    return dx, gradients


def copies(slot: LayerContext, count: int) -> LayerContext:
    """A batch of ``count`` copies of the one instance that the layer saw."""
    chosen = np.zeros(count, np.intp)
    x = slot.x[chosen]
    y = (
        x.reshape(count, *slot.y.shape[1:])
        if np.may_share_memory(slot.x, slot.y)
        else slot.y[chosen]
    )
    return replace(slot, x=x, y=y, saved={name: kept[chosen] for name, kept in slot.saved.items()})


def twin(network: Sequential) -> Sequential:
    """The same network in float64, with memory of its own."""
    other = Sequential(
        *network.layers, input_shape=network.input_shape, seed=network.seed, dtype=FLOAT
    )
    for name, array in network.parameters.items():
        other.parameters[name][...] = in_float64(array)
    return other


class Ending:
    """What stands behind the network's layers: the loss, and the softmax that it brings along.

    Parameters
    ----------
    walk : Walk
    target : ndarray, as `targets` returns it
    loss : Loss

    Attributes
    ----------
    last : int, the number of layers before the loss: all, or all but a final softmax
    losses : ndarray (N,), of each instance
    value : ndarray, what the loss's kernel takes
    dvalue : ndarray like ``value``, each instance's own gradient, not their mean's
    y_hat : ndarray like the network's output, after softmax under `CrossEntropy`
    dy_hat : ndarray, each instance's gradient by it; None where only ``dvalue`` is known
    """

    def __init__(self, walk: Walk, target: Array, loss: Loss) -> None:
        layers = walk.network.layers
        self.last = len(layers) - (loss.takes_logits and isinstance(layers[-1], Softmax))
        output = walk.values[self.last]
        self.value = output
        self.losses = np.empty(len(output), FLOAT)
        self.dvalue = np.empty_like(output)
        # One by one: the kernel's gradient is that of the mean over what it is given.
        for i in range(len(output)):
            one = slice(i, i + 1)
            loss.compare(output[one], target[one], self.losses[one], self.dvalue[one])
        self.y_hat = output
        self.dy_hat: Array | None = None
        self.softmax = isinstance(loss, CrossEntropy)
        if self.softmax:
            self.y_hat = ops.softmax(output)
            rows = np.arange(len(output))
            self.dy_hat = np.zeros_like(output)
            with np.errstate(divide="ignore"):
                self.dy_hat[rows, target] = -1 / self.y_hat[rows, target]
        elif self.last == len(layers):
            self.dy_hat = self.dvalue
