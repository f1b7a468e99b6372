"""The networks of the training cases as plain data, and their training step in NumPy float64.

Interpreters of peers need not have chainrule, so nothing here imports it.
"""

from __future__ import annotations

import gzip
import importlib
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from bench.harness.case import Array, Inputs

ROOT = Path(__file__).resolve().parents[2]
IMAGE = (28, 28, 1)
# A row per layer: ("conv2d", filters, kernel size, padding), ("linear", units),
# ("max_pool2d", window), ("dropout", rate), ("relu",) or ("flatten",).
Layers = tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Network:
    """A network, its batch size and its optimizer's constants."""

    layers: Layers
    input_shape: tuple[int, ...]
    batch: int = 128
    learning_rate: float = 0.01
    momentum: float = 0.9

    def without_dropout(self) -> Network:
        """Return the network with dropout rate 0, because libraries draw different masks."""
        layers = tuple(("dropout", 0.0) if row[0] == "dropout" else row for row in self.layers)
        return Network(layers, self.input_shape, self.batch, self.learning_rate, self.momentum)

    def shapes(self) -> list[tuple[int, ...]]:
        """Return the shape of an instance before each layer and after the last one."""
        shapes = [self.input_shape]
        for kind, *numbers in self.layers:
            shape = shapes[-1]
            if kind == "conv2d":
                filters, size, padding = numbers
                shrink = 0 if padding == "same" else size - 1 - 2 * padding
                shape = (shape[0] - shrink, shape[1] - shrink, filters)
            elif kind == "max_pool2d":
                shape = (shape[0] // numbers[0], shape[1] // numbers[0], shape[2])
            elif kind == "flatten":
                shape = (math.prod(shape),)
            elif kind == "linear":
                shape = (numbers[0],)
            shapes.append(shape)
        return shapes

    def weight_shapes(self) -> dict[int, tuple[int, ...]]:
        """Return the shape of each layer's weight in chainrule's layout, by the layer's index."""
        shapes: dict[int, tuple[int, ...]] = {}
        for i, (layer, shape) in enumerate(zip(self.layers, self.shapes(), strict=False)):
            if layer[0] == "conv2d":
                shapes[i] = (layer[1], layer[2], layer[2], shape[2])
            elif layer[0] == "linear":
                shapes[i] = (layer[1], shape[0])
        return shapes

    def flops(self) -> float:
        """Return the dense operation count of a step: multiplications and additions."""
        total, first = 0.0, True
        for i, weight in self.weight_shapes().items():
            pixels = math.prod(self.shapes()[i + 1][:-1])
            # Forward, backward weight and, except in the first such layer, backward input.
            total += 2.0 * math.prod(weight) * pixels * self.batch * (2 if first else 3)
            first = False
        return total

    def nbytes(self) -> float:
        """Return the minimum memory traffic of the update in bytes: five accesses per weight.

        These read weight, gradient and velocity, and write weight and velocity.
        """
        return 20.0 * sum(math.prod(shape) for shape in self.weight_shapes().values())


# The networks of `chainrule.recipes`, by the same names. A test compares both.
RECIPES = {
    "cnn": Network(
        (
            ("conv2d", 32, 3, 0),
            ("relu",),
            ("conv2d", 64, 3, 0),
            ("relu",),
            ("max_pool2d", 2),
            ("dropout", 0.25),
            ("flatten",),
            ("linear", 128),
            ("relu",),
            ("dropout", 0.5),
            ("linear", 10),
        ),
        IMAGE,
    ),
    "lenet": Network(
        (
            ("conv2d", 6, 5, "same"),
            ("relu",),
            ("max_pool2d", 2),
            ("conv2d", 16, 5, 0),
            ("relu",),
            ("max_pool2d", 2),
            ("flatten",),
            ("linear", 120),
            ("relu",),
            ("linear", 84),
            ("relu",),
            ("linear", 10),
        ),
        IMAGE,
    ),
    "mlp": Network((("flatten",), ("linear", 128), ("relu",), ("linear", 10)), IMAGE),
}


def initial_parameters(network: Network, random: np.random.Generator) -> Inputs:
    """Return He-initialized weights and small nonzero biases, so that biases affect the results."""
    parameters: Inputs = {}
    for i, shape in network.weight_shapes().items():
        scale = np.float32(math.sqrt(2 / math.prod(shape[1:])))
        weight = random.standard_normal(shape, dtype=np.float32) * scale
        bias = random.standard_normal(shape[0], dtype=np.float32) * np.float32(0.01)
        parameters[f"{i}.weight"], parameters[f"{i}.bias"] = weight, bias
    return parameters


def _read_idx(path: Path, header_bytes: int) -> Array:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return np.frombuffer(data, np.uint8, offset=header_bytes)


def read_digits(folder: Path, part: str) -> tuple[Array, Array]:
    """Return the images (N, 28, 28, 1) as uint8 and the labels of "train" or "t10k"."""

    def find(stem: str) -> Path:
        for suffix in ("", ".gz"):
            if (path := folder / f"{stem}{suffix}").exists():
                return path
        raise FileNotFoundError(f"no {stem} in {folder}")

    images = _read_idx(find(f"{part}-images-idx3-ubyte"), 16).reshape(-1, 28, 28, 1)
    return images, _read_idx(find(f"{part}-labels-idx1-ubyte"), 8).astype(np.int64)


def embedded_digits() -> tuple[Array, Array]:
    return read_digits(ROOT / "python" / "chainrule" / "data" / "digits", "train")


def mnist_folder() -> Path | None:
    """Return the folder of the full MNIST below CHAINRULE_DATA; None if there is none."""
    root = os.environ.get("CHAINRULE_DATA")
    folder = Path(root) / "MNIST" / "raw" if root else None
    return folder if folder and folder.is_dir() else None


def batches(count: int, batch: int, random: np.random.Generator) -> Array:
    """Return shuffled indices in complete batches, (batches, batch)."""
    order = random.permutation(count)[: count // batch * batch]
    return order.reshape(-1, batch).astype(np.int64)


def reference() -> ModuleType:
    """Return the module of the tests that has every operation in NumPy float64."""
    folder = str(ROOT / "tests" / "support")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("reference")


def _step(network: Network, parameters: Inputs, velocity: Inputs, x: Array, labels: Array) -> float:
    """Make one training step in place and return the mean loss before it."""
    ops = reference()
    saved: list[Any] = []
    for i, (kind, *numbers) in enumerate(network.layers):
        saved.append(x)
        if kind == "conv2d":
            weight, bias = parameters[f"{i}.weight"], parameters[f"{i}.bias"]
            x = ops.conv2d(x, weight, bias, padding=numbers[2])
        elif kind == "linear":
            x = ops.linear(x, parameters[f"{i}.weight"], parameters[f"{i}.bias"])
        elif kind == "max_pool2d":
            shape = x.shape
            x, argmax = ops.max_pool2d(x, numbers[0])
            saved[-1] = (argmax, shape)
        elif kind == "relu":
            x = ops.relu(x)
        elif kind == "flatten":
            x = x.reshape(len(x), -1)
    losses, dy = ops.softmax_cross_entropy(x, labels)
    first = min(network.weight_shapes())
    gradients: Inputs = {}
    for i in range(len(network.layers) - 1, first - 1, -1):
        kind, *numbers = network.layers[i]
        x = saved[i]
        if kind == "conv2d":
            size, padding = numbers[1:]
            dweight, dbias = ops.conv2d_backward_weight(dy, x, size, padding=padding)
            gradients[f"{i}.weight"], gradients[f"{i}.bias"] = dweight, dbias
            if i > first:
                weight = parameters[f"{i}.weight"]
                dy = ops.conv2d_backward_input(dy, weight, x.shape, padding=padding)
        elif kind == "linear":
            dx, dweight, dbias = ops.linear_backward(dy, x, parameters[f"{i}.weight"])
            gradients[f"{i}.weight"], gradients[f"{i}.bias"] = dweight, dbias
            dy = dx
        elif kind == "max_pool2d":
            dy = ops.max_pool2d_backward(dy, x[0], x[1], numbers[0])
        elif kind == "relu":
            dy = ops.relu_backward(dy, x)
        elif kind == "flatten":
            dy = dy.reshape(x.shape)
    for name, gradient in gradients.items():
        velocity[name] = network.momentum * velocity.get(name, 0.0) + gradient
        parameters[name] = parameters[name] - network.learning_rate * velocity[name]
    return float(losses.mean())


def parameter_names(inputs: Inputs) -> list[str]:
    """Return the names of the parameters by layer index, the bias before the weight."""
    names = [name for name in inputs if name.endswith((".weight", ".bias"))]
    return sorted(names, key=lambda name: (int(name.partition(".")[0]), name))


def two_steps(network: Network, inputs: Inputs) -> tuple[Array, ...]:
    """Return the velocities after two steps with dropout rate 0, in float64.

    They contain the gradients of both steps, and the second gradient depends on the first update.
    Parameters are much larger than their change, so they would hide a wrong gradient.
    """
    names = parameter_names(inputs)
    parameters = {name: inputs[name].astype(np.float64) for name in names}
    velocity: Inputs = {}
    for indices in inputs["order"][:2]:
        x = inputs["x"][indices]
        x = x / 255.0 if x.dtype == np.uint8 else x.astype(np.float64)
        _step(network, parameters, velocity, x, inputs["labels"][indices])
    return tuple(velocity[name] for name in names)
