"""A training step that calls every operation, to be recorded and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from assertions import same_bits
from cases import normal, seeded
from chainrule import Program, ops

SEED = 99


class FullStep:
    """A training step that calls every operation of ``ops``, on its own arrays.

    `change` sets the values that differ between steps: instances, labels, learning rate and dropout
    offset.
    """

    def __init__(self, dtype: np.dtype[Any], batch: int = 6) -> None:
        rng = seeded("chain")
        self.batch = batch

        def zeros(*shape: int, kind: Any = dtype) -> np.ndarray:
            return np.zeros(shape, kind)

        def weights(*shape: int) -> np.ndarray:
            return normal(rng, shape, dtype) / dtype.type(4)

        self.images = rng.integers(0, 256, (20, 8, 8, 2), dtype=np.uint8)
        self.indices = np.arange(batch) % len(self.images)
        self.labels = np.arange(batch) % 5
        self.rate, self.offset = np.array(0.1), np.array(0, np.uint64)
        self.filters, self.shifts = weights(4, 3, 3, 2), weights(4)
        self.weight, self.bias, self.mix = weights(5, 36), weights(5), weights(36, 36)
        self.parameters = [self.filters, self.shifts, self.weight, self.bias, self.mix]
        self.velocities = [np.zeros_like(p) for p in self.parameters]
        self.gradients = [np.zeros_like(p) for p in self.parameters]
        self.x = zeros(batch, 8, 8, 2)
        self.a, self.da = zeros(batch, 6, 6, 4), zeros(batch, 6, 6, 4)
        self.pooled, self.dpooled = zeros(batch, 3, 3, 4), zeros(batch, 3, 3, 4)
        self.argmax = zeros(batch, 3, 3, 4, kind=np.uint16)
        self.conv_pooled = zeros(batch, 3, 3, 4), zeros(batch, 3, 3, 4, kind=np.uint16)
        self.dx, self.conv_pooled_dx = np.zeros_like(self.x), np.zeros_like(self.x)
        self.conv_pooled_gradients = np.zeros_like(self.filters), np.zeros_like(self.shifts)
        self.hidden = [zeros(batch, 36) for _ in range(4)]
        self.dhidden = [zeros(batch, 36) for _ in range(4)]
        self.logits, self.dlogits, self.losses = zeros(batch, 5), zeros(batch, 5), zeros(batch)
        self.soft = [zeros(batch, 5) for _ in range(3)]
        self.squared = zeros(batch), zeros(batch, 5)
        self.smooth = [zeros(batch, 5) for _ in range(6)]
        self.binary, self.hubers = (zeros(batch), zeros(batch, 5)), (zeros(batch), zeros(batch, 5))
        # Far below the rate of SGD: large logits have subnormal gradients, which a program flushes.
        self.adam_rate, self.count = np.array(1e-3), np.array(1, np.uint64)
        self.moments = [(np.zeros_like(p), np.zeros_like(p)) for p in self.parameters]

    def change(self, step: int) -> None:
        rng = seeded("step", step)
        self.indices[...] = rng.integers(0, len(self.images), self.batch)
        self.labels[...] = rng.integers(0, 5, self.batch)
        self.rate[...] = 0.2 / (step + 1)
        self.offset[...] = step
        self.count[...] = step + 1
        self.adam_rate[...] = 1e-3 / (step + 1)

    def step(self) -> None:
        flat, dflat = self.pooled.reshape(-1, 36), self.dpooled.reshape(-1, 36)
        hidden, dhidden = self.hidden, self.dhidden
        dfilters, dshifts, dweight, dbias, dmix = self.gradients
        dropped = {"rate": 0.25, "seed": SEED, "offset": self.offset}

        ops.gather(self.images, self.indices, out=self.x)
        ops.conv2d(self.x, self.filters, self.shifts, out=self.a)
        ops.relu(self.a, out=self.a)
        ops.max_pool2d(self.a, 2, out=(self.pooled, self.argmax))
        ops.conv2d_pooled(
            self.x, self.filters, self.shifts, window=2, activation="relu", out=self.conv_pooled
        )
        ops.matmul(flat, self.mix, transpose_b=True, out=hidden[0])
        ops.leaky_relu(hidden[0], 0.1, out=hidden[1])
        ops.dropout(hidden[1], **dropped, out=hidden[2])
        ops.linear(hidden[2], self.weight, self.bias, out=self.logits)
        ops.softmax_cross_entropy(self.logits, self.labels, out=(self.losses, self.dlogits))
        ops.softmax(self.logits, out=self.soft[0])
        ops.log_softmax(self.logits, out=self.soft[1])
        ops.softmax_backward(self.dlogits, self.soft[0], out=self.soft[2])
        ops.squared_error(self.soft[0], self.soft[1], out=self.squared)
        for i, name in enumerate(("sigmoid", "tanh", "gelu")):
            y, dx = self.smooth[2 * i : 2 * i + 2]
            getattr(ops, name)(self.logits, out=y)
            # The derivative of gelu is a function of its input, the others of their output.
            read = self.logits if name == "gelu" else y
            getattr(ops, f"{name}_backward")(self.dlogits, read, out=dx)
        ops.binary_cross_entropy(self.logits, self.soft[0], out=self.binary)
        ops.huber(self.soft[0], self.soft[1], out=self.hubers)

        ops.linear_backward(self.dlogits, hidden[2], self.weight, out=(dhidden[2], dweight, dbias))
        ops.dropout_backward(dhidden[2], **dropped, out=dhidden[1])
        ops.leaky_relu_backward(dhidden[1], hidden[0], 0.1, out=dhidden[0])
        ops.matmul(dhidden[0], flat, transpose_a=True, out=dmix)
        ops.matmul(dhidden[0], self.mix, out=dflat)
        ops.max_pool2d_backward(self.dpooled, self.argmax, self.a.shape, 2, out=self.da)
        ops.relu_backward(self.da, self.a, out=self.da)
        ops.conv2d_backward_weight(self.da, self.x, 3, out=(dfilters, dshifts))
        ops.conv2d_backward_input(self.da, self.filters, self.x.shape, out=self.dx)
        pooled = self.dpooled, self.argmax
        ops.conv2d_pooled_backward_weight(*pooled, self.x, 3, 2, out=self.conv_pooled_gradients)
        ops.conv2d_pooled_backward_input(
            *pooled, self.filters, self.x.shape, 2, out=self.conv_pooled_dx
        )
        for parameter, gradient, velocity in zip(
            self.parameters, self.gradients, self.velocities, strict=True
        ):
            ops.sgd(
                parameter, gradient, velocity, learning_rate=self.rate, momentum=0.9,
                nesterov=True, l2=0.01,
            )  # fmt: skip
        for parameter, gradient, moments in zip(
            self.parameters, self.gradients, self.moments, strict=True
        ):
            ops.adam(parameter, gradient, *moments, learning_rate=self.adam_rate, step=self.count)

    def all_arrays(self) -> dict[str, np.ndarray]:
        """Return every array that a step reads or writes, by name."""
        found: dict[str, np.ndarray] = {}
        for name, value in vars(self).items():
            for i, array in enumerate(value if isinstance(value, list | tuple) else [value]):
                for j, one in enumerate(array if isinstance(array, tuple) else [array]):
                    if isinstance(one, np.ndarray):
                        found[f"{name}[{i}][{j}]"] = one
        return found


def recorded(work: Callable[[], Any]) -> Program:
    """Return a program with the operations that ``work`` calls."""
    with Program() as program:
        work()
    return program


def assert_same(got: FullStep, want: FullStep) -> None:
    expected = want.all_arrays()
    for name, array in got.all_arrays().items():
        assert same_bits(array, expected[name]), name
