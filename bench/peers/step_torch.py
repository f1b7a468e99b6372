"""PyTorch's training step, with each of the switches that its users know."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from bench.harness.case import Array, Inputs, Leg
from bench.harness.networks import Network, parameter_names

IMAGE_VARIANTS = (
    "default",
    "fused",
    "channels_last fused",
    "compile fused",
    "compile channels_last fused",
)
# A graph takes launches away that compiling leaves: compiled steps are timed in one.
GPU_DENSE_VARIANTS = ("default", "fused", "graph", "graph compile")
GPU_IMAGE_VARIANTS = (
    *GPU_DENSE_VARIANTS,
    "channels_last fused",
    "graph channels_last",
    "graph compile channels_last",
)
# So often chainrule, too, reads the losses of a GPU.
WAIT = 64
DENSE_VARIANTS = ("default", "fused", "compile fused")


def _layer(kind: str, numbers: list[Any], channels: int) -> Any:
    from torch import nn

    if kind == "conv2d":
        return nn.Conv2d(channels, numbers[0], numbers[1], padding=numbers[2])
    if kind == "linear":
        return nn.Linear(channels, numbers[0])
    made = {"relu": nn.ReLU, "flatten": nn.Flatten, "max_pool2d": nn.MaxPool2d}
    return nn.Dropout(*numbers) if kind == "dropout" else made[kind](*numbers)


def _permutation(network: Network, layer: int) -> tuple[int, ...] | None:
    """Return the instance's shape (H, W, C) where a linear layer stands behind a flattened image.

    PyTorch flattens (C, H, W): the columns of that weight stand in another order.
    """
    shapes = network.shapes()
    for before in range(layer - 1, -1, -1):
        if network.layers[before][0] == "flatten":
            return shapes[before] if len(shapes[before]) == 3 else None
        if network.layers[before][0] == "linear":
            return None
    return None


def to_torch(network: Network, name: str, array: Array) -> Array:
    """Return a parameter in PyTorch's order of axes."""
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    image = _permutation(network, int(name.partition(".")[0])) if array.ndim == 2 else None
    if image is None:
        return array
    rows = array.reshape(-1, *image).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(rows.reshape(len(array), -1))


def from_torch(network: Network, name: str, array: Array) -> Array:
    if array.ndim == 4:
        return array.transpose(0, 2, 3, 1)
    image = _permutation(network, int(name.partition(".")[0])) if array.ndim == 2 else None
    if image is None:
        return array
    height, width, channels = image
    rows = array.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return rows.reshape(len(array), -1)


class Training:
    """A model, its optimizer and its data; images are float already, in PyTorch's favour.

    On a GPU all of it lies there, and losses are looked at once in a while: reading one waits.
    """

    def __init__(self, network: Network, inputs: Inputs, variant: str, device: str = "cpu") -> None:
        import torch
        from torch import nn

        self.torch, self.device, self.every = torch, device, 1 if device == "cpu" else WAIT
        self.steps = 0
        channels_last = "channels_last" in variant
        layers = [
            _layer(kind, numbers, shape[-1])
            for (kind, *numbers), shape in zip(network.layers, network.shapes(), strict=False)
        ]
        self.model: Any = nn.Sequential(*layers)
        self.network = network
        if channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.model.to(device)
        self.named = dict(self.model.named_parameters())
        for parameter in self.named.values():
            # Modules made while gradients are off still ask for them; so that it does not matter.
            parameter.requires_grad_(True)
        self.load(inputs)
        self.x = self.tensor(inputs["x"], channels_last)
        self.labels = torch.from_numpy(inputs["labels"]).to(device)
        self.order = cycle([torch.from_numpy(one).to(device) for one in inputs["order"]])
        self.optimizer = self.optimizer_of(variant)
        self.loss: Any = self._loss
        if "compile" in variant:
            self.loss = torch.compile(self._loss, dynamic=False)

    def optimizer_of(self, variant: str) -> Any:
        return self.torch.optim.SGD(
            self.model.parameters(),
            lr=self.network.learning_rate,
            momentum=self.network.momentum,
            fused=True if "fused" in variant else None,
        )

    def set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def tensor(self, x: Array, channels_last: bool) -> Any:
        values = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x
        tensor = self.torch.from_numpy(values).to(self.device)
        if tensor.dim() != 4:
            return tensor
        tensor = tensor.permute(0, 3, 1, 2)
        if channels_last:
            return tensor.contiguous(memory_format=self.torch.channels_last)
        return tensor.contiguous()

    def load(self, inputs: Inputs) -> None:
        """Take initial weights."""
        for name in parameter_names(inputs):
            array = to_torch(self.network, name, inputs[name])
            self.named[name].data.copy_(self.torch.from_numpy(array))

    def restart(self, inputs: Inputs) -> None:
        """Start again from other weights, at rest; what has been compiled stays."""
        self.load(inputs)
        self.optimizer.state.clear()

    def _loss(self, x: Any, labels: Any) -> Any:
        return self.torch.nn.functional.cross_entropy(self.model(x), labels)

    def step(self) -> float:
        with self.torch.enable_grad():
            return self.descend(next(self.order))

    def move(self, chosen: Any) -> Any:
        """Descend once; the loss, where it is."""
        loss = self.loss(self.x.index_select(0, chosen), self.labels.index_select(0, chosen))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss

    def descend(self, chosen: Any) -> float:
        return self.seen(self.move(chosen))

    def seen(self, loss: Any) -> float:
        self.steps += 1
        if self.steps % self.every:
            return 0.0
        value = float(loss.item())
        if not math.isfinite(value):
            raise ArithmeticError(f"loss is {value}")
        return value

    def velocity(self, name: str) -> Array:
        buffer = self.optimizer.state[self.named[name]]["momentum_buffer"]
        array: Array = buffer.detach().cpu().contiguous().numpy()
        return array


def legs(
    network: Network, variants: tuple[str, ...], device: str, inputs: Inputs
) -> Mapping[str, Callable[[], Leg]]:
    def training_of(network: Network, variant: str) -> Training:
        if "graph" in variant:
            from bench.peers.gpu_torch import Graphed

            return Graphed(network, inputs, variant)
        return Training(network, inputs, variant, device)

    def result(variant: str) -> tuple[Array, ...]:
        training = training_of(network.without_dropout(), variant)
        training.step()
        training.step()
        return tuple(
            from_torch(network, name, training.velocity(name)) for name in parameter_names(inputs)
        )

    def leg(variant: str) -> Leg:
        training = training_of(network, variant)
        if device == "cpu":
            return Leg(training.step, partial(result, variant))
        wait = training.torch.cuda.synchronize
        return Leg(training.step, partial(result, variant), wait=wait)

    return {variant: partial(leg, variant) for variant in variants}


def factory(network: Network, device: str) -> Callable[[Inputs], Mapping[str, Callable[[], Leg]]]:
    image = any(layer[0] == "conv2d" for layer in network.layers)
    variants: tuple[str, ...] = IMAGE_VARIANTS if image else DENSE_VARIANTS
    if device == "cuda":
        variants = GPU_IMAGE_VARIANTS if image else GPU_DENSE_VARIANTS
    return partial(legs, network, variants, device)
