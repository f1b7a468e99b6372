"""TensorFlow's training step: one tf.function, channels last, one momentum kernel per parameter."""

from __future__ import annotations

from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from bench.harness.case import Array, BuilderFactory, Inputs, Variant, VariantBuilders
from bench.harness.networks import Network, parameter_names


def _forward(network: Network, parameters: dict[str, Any], x: Any) -> Any:
    import tensorflow as tf

    for i, (kind, *numbers) in enumerate(network.layers):
        if kind == "conv2d":
            p = numbers[2]
            padding = "SAME" if p == "same" else [[0, 0], [p, p], [p, p], [0, 0]]
            x = tf.nn.conv2d(x, parameters[f"{i}.weight"], 1, padding if p else "VALID")
            x = tf.nn.bias_add(x, parameters[f"{i}.bias"])
        elif kind == "linear":
            x = tf.nn.bias_add(
                tf.linalg.matmul(x, parameters[f"{i}.weight"]), parameters[f"{i}.bias"]
            )
        elif kind == "max_pool2d":
            x = tf.nn.max_pool2d(x, numbers[0], numbers[0], "VALID")
        elif kind == "dropout" and numbers[0]:
            x = tf.nn.dropout(x, numbers[0])
        elif kind == "flatten":
            x = tf.reshape(x, (x.shape[0], -1))
        elif kind == "relu":
            x = tf.nn.relu(x)
    return x


class Training:
    """Parameters and velocities.

    Images are converted to float32 beforehand, which favors TensorFlow.
    """

    def __init__(self, network: Network, inputs: Inputs, xla: bool) -> None:
        import tensorflow as tf

        x = inputs["x"]
        x = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x
        images, labels = tf.constant(x), tf.constant(inputs["labels"])
        self.order = cycle([tf.constant(batch) for batch in inputs["order"]])
        names = parameter_names(inputs)
        parameters = {name: tf.Variable(self.to_tensorflow_layout(inputs[name])) for name in names}
        self.velocity = {name: tf.Variable(tf.zeros_like(parameters[name])) for name in names}

        @tf.function(jit_compile=xla)
        def step(indices: Any) -> Any:
            indices = tf.ensure_shape(indices, (network.batch,))
            with tf.GradientTape() as tape:
                logits = _forward(network, parameters, tf.gather(images, indices))
                loss = tf.reduce_mean(
                    tf.nn.sparse_softmax_cross_entropy_with_logits(
                        tf.gather(labels, indices), logits
                    )
                )
            gradients = tape.gradient(loss, [parameters[name] for name in names])
            for name, gradient in zip(names, gradients, strict=True):
                tf.raw_ops.ResourceApplyMomentum(
                    var=parameters[name].handle,
                    accum=self.velocity[name].handle,
                    lr=network.learning_rate,
                    grad=gradient,
                    momentum=network.momentum,
                )
            return loss

        self.compiled = step

    @staticmethod
    def to_tensorflow_layout(array: Array) -> Array:
        """Return (K, R, S, C) as (R, S, C, K), and (out, in) as (in, out)."""
        return array.transpose(1, 2, 3, 0) if array.ndim == 4 else array.T

    @staticmethod
    def from_tensorflow_layout(array: Array) -> Array:
        return array.transpose(3, 0, 1, 2) if array.ndim == 4 else array.T

    def step(self) -> float:
        return float(self.compiled(next(self.order)))


def builders(network: Network, inputs: Inputs) -> VariantBuilders:
    def result(xla: bool) -> tuple[Array, ...]:
        training = Training(network.without_dropout(), inputs, xla)
        training.step()
        training.step()
        return tuple(
            training.from_tensorflow_layout(training.velocity[name].numpy())
            for name in parameter_names(inputs)
        )

    def build(xla: bool) -> Variant:
        return Variant(Training(network, inputs, xla).step, partial(result, xla))

    return {"function": partial(build, False), "function compile": partial(build, True)}


def factory(network: Network) -> BuilderFactory:
    return partial(builders, network)
