"""Forward and backward passes in float64, layer by layer: nothing is fused or overwritten.

A training step fuses layers and reuses buffers. The functions of `calculus` need every
intermediate value. Each layer's own ``forward`` and ``backward``, which call the same kernels,
therefore run on separate arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .. import ops
from .._types import Array
from .._validation import imported, require_unmasked
from ..nn import user_defined
from ..nn.layers import Layer, LayerContext
from ..nn.losses import BinaryCrossEntropy, CrossEntropy, Loss, checked_loss
from ..nn.network import Sequential

FLOAT64: np.dtype[Any] = np.dtype(np.float64)


def real_array(operation: str, name: str, value: object) -> Array:
    """Return an array or a nested list of real numbers as an array, without a change of dtype."""
    require_unmasked(operation, name, value)
    if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray):
        value = imported(operation, name, value, np.from_dlpack)
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{operation}: {name} must be an array, got nested lists of different lengths"
        ) from None
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{operation}: {name} must be real numbers, got {array.dtype}")
    return array


def float64_array(operation: str, name: str, value: object, image: bool = False) -> Array:
    """Return `real_array` in float64. In an image, uint8 values are divided by 255."""
    array = real_array(operation, name, value)
    return array / 255 if image and array.dtype == np.uint8 else array.astype(FLOAT64)


def float64_parameter(array: Any) -> Array:
    """Return a float64 copy of a parameter. ``numpy()`` copies a parameter from the device."""
    return (array if isinstance(array, np.ndarray) else array.numpy()).astype(FLOAT64)


def checked_batch(operation: str, network: Sequential, x: object) -> tuple[Array, bool]:
    """Return ``x`` as a float64 batch, and True if it was a single instance."""
    given = real_array(operation, "x", x)
    array = float64_array(operation, "x", given, network.architecture.reads_images)
    single = array.shape == network.input_shape
    if single:
        array = array[None]
    # The network checks the shape, and that uint8 values are images. It accepts its own dtype.
    kind = given.dtype if given.dtype == np.uint8 else network.dtype
    network.checked(operation, np.broadcast_to(kind.type(1), array.shape))
    if len(array) == 0:
        raise ValueError(f"{operation}: x must have at least one instance, got 0")
    return np.ascontiguousarray(array), single


def checked_targets(
    operation: str,
    network: Sequential,
    y: object,
    loss: object,
    count: int,
    single: bool,
    training: bool = False,
) -> Array:
    """Return the targets of ``count`` instances in the form that the float64 loss kernel needs."""
    loss = checked_loss(operation, loss)
    target = real_array(operation, "y", y)
    one_output = math.prod(network.output_shape) == 1 and not loss.takes_logits
    if single and one_output and target.size == 1:
        target = target.reshape(network.output_shape)
    if single and target.shape in ((), network.output_shape):
        target = target[None]
    labels = target.ndim == 1 and target.dtype.kind in "iu"
    if not loss.takes_logits and not labels:
        target = target.astype(FLOAT64)
    network.architecture.check_loss(loss, training)
    return loss.check(target, count, network.output_shape, FLOAT64)


class ForwardPass:
    """The forward pass of a batch, with every layer's context for its backward pass.

    Parameters
    ----------
    network : Sequential
        The network. It is not changed.
    x : ndarray of float64, (N, *input_shape)
        The batch.
    offset : int, optional
        The counter of the dropout masks. If None, dropout is inactive.

    Attributes
    ----------
    parameters : list of dict
        The parameters of each layer, in float64.
    values : list of ndarray
        The input, then the output of each layer.
    contexts : list of LayerContext
        The arrays of each layer.
    """

    def __init__(self, network: Sequential, x: Array, offset: int | None = None) -> None:
        self.network, self.offset = network, offset
        self.parameters = [
            {name: float64_parameter(array) for name, array in network.layer_parameters(i).items()}
            for i in range(len(network.layers))
        ]
        self.values: list[Array] = [x]
        self.contexts: list[LayerContext] = []
        self.rerun(0)

    def rerun(self, start: int) -> Array:
        """Run the pass again from the input of layer ``start``. Return the output."""
        del self.values[start + 1 :], self.contexts[start:]
        for i in range(start, len(self.network.layers)):
            context = run_forward(
                self.network.layers[i],
                self.values[i],
                self.parameters[i],
                seed=self.network.dropout_seed(i),
                offset=self.offset,
            )
            self.contexts.append(context)
            self.values.append(context.y)
        return self.values[-1]


def run_forward(
    layer: Layer,
    x: Array,
    parameters: Mapping[str, Array],
    seed: int = 0,
    offset: int | None = None,
) -> LayerContext:
    """Run one layer forward on new arrays. If ``offset`` is None, dropout is inactive."""
    shape = layer.build(x.shape[1:])
    if user_defined.reshapes_only(layer, offset is not None):
        return LayerContext(layer, x, x.reshape(len(x), *shape))
    buffers = layer.buffers(x.shape[1:], len(x))
    context = LayerContext(
        layer,
        x,
        np.empty((len(x), *shape), FLOAT64),
        parameters=parameters,
        saved={name: np.empty(*spec) for name, spec in buffers.items()},
        seed=seed,
        offset=offset or 0,
        dropout=offset is not None,
    )
    if user_defined.is_built_in(layer):
        layer.forward(context)
    else:
        user_defined.forward(context)
    return context


def run_backward(context: LayerContext, dy: Array) -> tuple[Array, dict[str, Array]]:
    """Run one layer backward from ``dy``, on new arrays.

    Returns
    -------
    dx : ndarray
        The gradient with respect to the layer's input.
    gradients : dict of str to ndarray
        The gradients with respect to the parameters, summed over the batch.
    """
    if np.may_share_memory(context.x, context.y):
        return dy.reshape(context.x.shape), {}
    dy = dy.reshape(context.y.shape).copy()
    dx = dy if user_defined.in_place_backward(context.layer) else np.empty_like(context.x)
    gradients = {name: np.empty_like(array) for name, array in context.parameters.items()}
    context = replace(context, dy=dy, dx=None if dx is dy else dx, gradients=gradients)
    if user_defined.is_built_in(context.layer):
        context.layer.backward(context)
    else:
        user_defined.backward(context)
    return dx, gradients


def repeat_instance(context: LayerContext, count: int) -> LayerContext:
    """Return a context whose batch is the first instance of ``context``, ``count`` times."""
    indices = np.zeros(count, np.intp)
    x = context.x[indices]
    y = (
        x.reshape(count, *context.y.shape[1:])
        if np.may_share_memory(context.x, context.y)
        else context.y[indices]
    )
    saved = {name: array[indices] for name, array in context.saved.items()}
    return replace(context, x=x, y=y, saved=saved)


def float64_copy(network: Sequential) -> Sequential:
    """Return a copy of the network in float64, with its own memory."""
    copy = Sequential(
        *network.layers, input_shape=network.input_shape, seed=network.seed, dtype=FLOAT64
    )
    for name, array in network.parameters.items():
        copy.parameters[name][...] = float64_parameter(array)
    return copy


class LossHead:
    """The loss, together with a final softmax if the loss fuses it.

    Parameters
    ----------
    forward : ForwardPass
        The forward pass of the network.
    target : ndarray
        The result of `checked_targets`.
    loss : Loss
        The loss.

    Attributes
    ----------
    depth : int
        The number of layers before the head: all of them, or those before a final softmax.
    losses : ndarray, (N,)
        The loss of each instance.
    output : ndarray
        The input of the loss kernel, in the shape of the network's output.
    doutput : ndarray
        The gradient of each instance's own loss with respect to ``output``. It is not divided by N.
    y_hat : ndarray
        The network's output. Under `CrossEntropy` it is the output of the softmax, and under
        `BinaryCrossEntropy` that of the sigmoid.
    dy_hat : ndarray or None
        The gradient of each instance's loss with respect to ``y_hat``. None if only ``doutput`` is
        known.
    has_softmax, has_sigmoid : bool
        True if the loss is `CrossEntropy`, or `BinaryCrossEntropy`.
    """

    def __init__(self, forward: ForwardPass, target: Array, loss: Loss) -> None:
        architecture = forward.network.architecture
        self.depth = len(architecture.layers)
        if loss.takes_logits and architecture.final_softmax is not None:
            self.depth = architecture.final_softmax
        output = forward.values[self.depth]
        output = output.reshape(len(output), *architecture.shapes[-1])
        self.output = output
        self.losses = np.empty(len(output), FLOAT64)
        self.doutput = np.empty_like(output)
        # One instance per call: the kernel computes the gradient of the mean over its batch.
        for i in range(len(output)):
            one = slice(i, i + 1)
            user_defined.compare(
                loss, output[one], target[one], self.losses[one], self.doutput[one]
            )
        self.y_hat = output
        self.dy_hat: Array | None = None
        self.has_softmax = isinstance(loss, CrossEntropy)
        self.has_sigmoid = isinstance(loss, BinaryCrossEntropy)
        if self.has_softmax:
            self.y_hat = ops.softmax(output)
            rows = np.arange(len(output))
            self.dy_hat = np.zeros_like(output)
            with np.errstate(divide="ignore"):
                self.dy_hat[rows, target] = -1 / self.y_hat[rows, target]
        elif self.has_sigmoid:
            # The softmax of 0 and z is 1 - σ(z) and σ(z), both accurate for any z.
            both = ops.softmax(np.stack([np.zeros_like(output), output], axis=-1))
            no, self.y_hat = both[..., 0], both[..., 1]
            with np.errstate(divide="ignore", invalid="ignore"):
                self.dy_hat = np.where(target == 1, 0, (1 - target) / no)
                self.dy_hat -= np.where(target == 0, 0, target / self.y_hat)
        elif self.depth == len(architecture.layers):
            self.dy_hat = self.doutput
