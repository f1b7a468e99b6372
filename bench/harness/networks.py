"""The networks of the training cases as plain data, and their step in NumPy float64."""

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
# (kind, *numbers): ("conv2d", filters, size, padding), ("linear", neurons), ("max_pool2d", window),
# ("dropout", rate), ("relu",), ("flatten",).
Layers = tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Network:
    """A network and how it descends."""

    layers: Layers
    input_shape: tuple[int, ...]
    batch: int = 128
    learning_rate: float = 0.01
    momentum: float = 0.9

    def without_dropout(self) -> Network:
        """The same function at rate 0: no two libraries draw the same masks."""
        layers = tuple(("dropout", 0.0) if one[0] == "dropout" else one for one in self.layers)
        return Network(layers, self.input_shape, self.batch, self.learning_rate, self.momentum)

    def shapes(self) -> list[tuple[int, ...]]:
        """Return the shape of an instance before each layer, and after the last."""
        shapes = [self.input_shape]
        for kind, *numbers in self.layers:
            shape = shapes[-1]
            if kind == "conv2d":
                filters, size, padding = numbers
                lost = 0 if padding == "same" else size - 1 - 2 * padding
                shape = (shape[0] - lost, shape[1] - lost, filters)
            elif kind == "max_pool2d":
                shape = (shape[0] // numbers[0], shape[1] // numbers[0], shape[2])
            elif kind == "flatten":
                shape = (math.prod(shape),)
            elif kind == "linear":
                shape = (numbers[0],)
            shapes.append(shape)
        return shapes

    def weight_shapes(self) -> dict[int, tuple[int, ...]]:
        """Return the shape of each layer's weight, as chainrule has it, by the layer's place."""
        out: dict[int, tuple[int, ...]] = {}
        for i, (layer, shape) in enumerate(zip(self.layers, self.shapes(), strict=False)):
            if layer[0] == "conv2d":
                out[i] = (layer[1], layer[2], layer[2], shape[2])
            elif layer[0] == "linear":
                out[i] = (layer[1], shape[0])
        return out

    def flops(self) -> float:
        """Return the multiplications and additions of a step, all products done densely."""
        total, first = 0.0, True
        for i, weight in self.weight_shapes().items():
            places = math.prod(self.shapes()[i + 1][:-1])
            # Forward, backward weight, and backward input where something lies before.
            total += 2.0 * math.prod(weight) * places * self.batch * (2 if first else 3)
            first = False
        return total

    def nbytes(self) -> float:
        """Return the least traffic of a step's parameters: read, gradient, velocity, written."""
        return 20.0 * sum(math.prod(shape) for shape in self.weight_shapes().values())


def weights(network: Network, random: np.random.Generator) -> Inputs:
    """He's initial weights, and small biases, so that these matter in the comparison."""
    out: Inputs = {}
    for i, shape in network.weight_shapes().items():
        scale = np.float32(math.sqrt(2 / math.prod(shape[1:])))
        out[f"{i}.weight"] = random.standard_normal(shape, dtype=np.float32) * scale
        out[f"{i}.bias"] = random.standard_normal(shape[0], dtype=np.float32) * np.float32(0.01)
    return out


def _idx(path: Path, head: int) -> Array:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return np.frombuffer(data, np.uint8, offset=head)


def digits(folder: Path, part: str) -> tuple[Array, Array]:
    """Read handwritten digits, (N, 28, 28, 1) and labels: every library gets the same bytes."""

    def find(stem: str) -> Path:
        for suffix in ("", ".gz"):
            if (path := folder / f"{stem}{suffix}").exists():
                return path
        raise FileNotFoundError(f"no {stem} in {folder}")

    images = _idx(find(f"{part}-images-idx3-ubyte"), 16).reshape(-1, 28, 28, 1)
    return images, _idx(find(f"{part}-labels-idx1-ubyte"), 8).astype(np.int64)


def embedded_digits() -> tuple[Array, Array]:
    return digits(ROOT / "python" / "chainrule" / "data" / "digits", "train")


def mnist_folder() -> Path | None:
    """Return where all of MNIST is, if CHAINRULE_DATA says."""
    root = os.environ.get("CHAINRULE_DATA")
    folder = Path(root) / "MNIST" / "raw" if root else None
    return folder if folder and folder.is_dir() else None


def batches(count: int, batch: int, random: np.random.Generator) -> Array:
    """Return a shuffled order in whole batches, (batches, batch)."""
    order = random.permutation(count)[: count // batch * batch]
    return order.reshape(-1, batch).astype(np.int64)


def reference() -> ModuleType:
    """Return the operations in NumPy float64, from the tests."""
    folder = str(ROOT / "tests" / "support")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("reference")


def _step(network: Network, parameters: Inputs, velocity: Inputs, x: Array, labels: Array) -> float:
    """One step of descent, in place; returns the mean loss before it."""
    of = reference()
    kept: list[Any] = []
    for i, (kind, *numbers) in enumerate(network.layers):
        kept.append(x)
        if kind == "conv2d":
            weight, bias = parameters[f"{i}.weight"], parameters[f"{i}.bias"]
            x = of.conv2d(x, weight, bias, padding=numbers[2])
        elif kind == "linear":
            x = of.linear(x, parameters[f"{i}.weight"], parameters[f"{i}.bias"])
        elif kind == "max_pool2d":
            before = x.shape
            x, places = of.max_pool2d(x, numbers[0])
            kept[-1] = (places, before)
        elif kind == "relu":
            x = of.relu(x)
        elif kind == "flatten":
            x = x.reshape(len(x), -1)
    losses, dy = of.softmax_cross_entropy(x, labels)
    first = min(network.weight_shapes())
    gradients: Inputs = {}
    for i in range(len(network.layers) - 1, first - 1, -1):
        kind, *numbers = network.layers[i]
        x = kept[i]
        if kind == "conv2d":
            size, padding = numbers[1:]
            got = of.conv2d_backward_weight(dy, x, size, padding=padding)
            gradients[f"{i}.weight"], gradients[f"{i}.bias"] = got
            if i > first:
                weight = parameters[f"{i}.weight"]
                dy = of.conv2d_backward_input(dy, weight, x.shape, padding=padding)
        elif kind == "linear":
            dx, *got = of.linear_backward(dy, x, parameters[f"{i}.weight"])
            gradients[f"{i}.weight"], gradients[f"{i}.bias"] = got
            dy = dx
        elif kind == "max_pool2d":
            dy = of.max_pool2d_backward(dy, x[0], x[1], numbers[0])
        elif kind == "relu":
            dy = of.relu_backward(dy, x)
        elif kind == "flatten":
            dy = dy.reshape(x.shape)
    for name, gradient in gradients.items():
        velocity[name] = network.momentum * velocity.get(name, 0.0) + gradient
        parameters[name] = parameters[name] - network.learning_rate * velocity[name]
    return float(losses.mean())


def parameter_names(inputs: Inputs) -> list[str]:
    """Return the names of the parameters, layer after layer, the bias first."""
    names = [name for name in inputs if name.endswith((".weight", ".bias"))]
    return sorted(names, key=lambda name: (int(name.partition(".")[0]), name))


def two_steps(network: Network, inputs: Inputs) -> tuple[Array, ...]:
    """Return the velocities after two steps, dropout at rate 0, in float64.

    They hold both gradients, the second one after the parameters have moved. The parameters
    themselves would hide a wrong gradient behind their own size.
    """
    names = parameter_names(inputs)
    parameters = {name: inputs[name].astype(np.float64) for name in names}
    velocity: Inputs = {}
    for chosen in inputs["order"][:2]:
        x = inputs["x"][chosen]
        x = x / 255.0 if x.dtype == np.uint8 else x.astype(np.float64)
        _step(network, parameters, velocity, x, inputs["labels"][chosen])
    return tuple(velocity[name] for name in names)
