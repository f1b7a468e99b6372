"""JAX's training step: one compiled function that donates the buffers of its old parameters."""

from __future__ import annotations

from functools import partial
from itertools import count, cycle
from typing import Any

import numpy as np

from bench.harness.case import Array, BuilderFactory, Inputs, Variant, VariantBuilders
from bench.harness.networks import Network, parameter_names


def _forward(network: Network, parameters: dict[str, Any], x: Any, key: Any) -> Any:
    import jax
    from jax import lax
    from jax import numpy as jnp

    for i, (kind, *numbers) in enumerate(network.layers):
        if kind == "conv2d":
            padding = "SAME" if numbers[2] == "same" else [(numbers[2], numbers[2])] * 2
            x = lax.conv_general_dilated(
                x,
                parameters[f"{i}.weight"],
                (1, 1),
                padding,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            x = x + parameters[f"{i}.bias"]
        elif kind == "linear":
            x = x @ parameters[f"{i}.weight"] + parameters[f"{i}.bias"]
        elif kind == "max_pool2d":
            window = (1, numbers[0], numbers[0], 1)
            x = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
        elif kind == "dropout" and numbers[0]:
            mask = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - numbers[0], x.shape)
            x = jnp.where(mask, x / (1 - numbers[0]), 0)
        elif kind == "flatten":
            x = x.reshape(len(x), -1)
        elif kind == "relu":
            x = jax.nn.relu(x)
    return x


class Training:
    """Parameters and velocities on the device.

    Images are converted to float32 beforehand, which favors JAX.
    """

    def __init__(self, network: Network, inputs: Inputs) -> None:
        import jax
        from jax import numpy as jnp

        x = inputs["x"]
        x = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x
        self.x, self.labels = jnp.asarray(x), jnp.asarray(inputs["labels"].astype(np.int32))
        self.order = cycle([jnp.asarray(batch.astype(np.int32)) for batch in inputs["order"]])
        self.parameters = {
            name: jnp.asarray(self.to_jax_layout(inputs[name])) for name in parameter_names(inputs)
        }
        self.velocity = {name: jnp.zeros_like(array) for name, array in self.parameters.items()}
        self.count = count()

        def mean_loss(parameters: Any, x: Any, labels: Any, key: Any) -> Any:
            logits = jax.nn.log_softmax(_forward(network, parameters, x, key))
            return -jnp.take_along_axis(logits, labels[:, None], axis=1).mean()

        def step(parameters: Any, velocity: Any, x: Any, labels: Any, indices: Any, i: Any) -> Any:
            key = jax.random.fold_in(jax.random.key(0), i)
            loss_and_gradient = jax.value_and_grad(mean_loss)
            loss, gradient = loss_and_gradient(parameters, x[indices], labels[indices], key)
            velocity = jax.tree.map(lambda v, g: network.momentum * v + g, velocity, gradient)
            parameters = jax.tree.map(
                lambda p, v: p - network.learning_rate * v, parameters, velocity
            )
            return parameters, velocity, loss

        self.compiled = jax.jit(step, donate_argnums=(0, 1))

    @staticmethod
    def to_jax_layout(array: Array) -> Array:
        """Return (K, R, S, C) as (R, S, C, K), and (out, in) as (in, out)."""
        return array.transpose(1, 2, 3, 0) if array.ndim == 4 else array.T

    @staticmethod
    def from_jax_layout(array: Array) -> Array:
        return array.transpose(3, 0, 1, 2) if array.ndim == 4 else array.T

    def step(self) -> float:
        self.parameters, self.velocity, loss = self.compiled(
            self.parameters,
            self.velocity,
            self.x,
            self.labels,
            next(self.order),
            next(self.count),
        )
        return float(loss)


def builders(network: Network, inputs: Inputs) -> VariantBuilders:
    def result() -> tuple[Array, ...]:
        training = Training(network.without_dropout(), inputs)
        training.step()
        training.step()
        return tuple(
            training.from_jax_layout(np.asarray(training.velocity[name]))
            for name in parameter_names(inputs)
        )

    return {"jit": lambda: Variant(Training(network, inputs).step, result)}


def factory(network: Network) -> BuilderFactory:
    return partial(builders, network)
