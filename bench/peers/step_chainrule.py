"""chainrule's training step, as `fit` takes it: batch by its indices, uint8 to float, descent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from bench.harness.case import Array, Inputs, Leg
from bench.harness.networks import Network, parameter_names

# Steps of an epoch of MNIST, which the few images here are repeated for on a GPU: an epoch's start
# waits.
EPOCH = 468


def build(network: Network, inputs: Inputs) -> Any:
    import chainrule as cr

    kinds: dict[str, Callable[..., Any]] = {
        "conv2d": lambda filters, size, padding: cr.Conv2d(filters, size, padding=padding),
        "max_pool2d": cr.MaxPool2d,
        "linear": cr.Linear,
        "dropout": cr.Dropout,
        "flatten": cr.Flatten,
        "relu": cr.ReLU,
    }
    layers = [kinds[kind](*numbers) for kind, *numbers in network.layers]
    net = cr.Sequential(*layers, input_shape=network.input_shape, seed=0)
    for name in parameter_names(inputs):
        net.parameters[name][...] = inputs[name]
    return net


class Training:
    """A network in the midst of `fit`."""

    device = "cpu"

    def __init__(self, network: Network, inputs: Inputs) -> None:
        import chainrule as cr
        from chainrule.training.training_data import TrainingData

        net, self.order = build(network, inputs).to(self.device), inputs["order"]
        data = TrainingData("bench", net, (inputs["x"], inputs["labels"]), cr.CrossEntropy())
        self.optimizer = cr.SGD(network.learning_rate, momentum=network.momentum)
        self.state = self.optimizer.start(net)
        self.prepare(net, data, network.batch)

    def prepare(self, net: Any, data: Any, batch: int) -> None:
        from chainrule.training.epoch import TrainStep

        self.train_step = TrainStep(net, self.state, data, batch, self.order.size)
        self.chosen = cycle(list(self.order))

    def step(self) -> float:
        value, _ = self.train_step.compute(next(self.chosen))
        if not math.isfinite(value):
            raise ArithmeticError(f"loss is {value}")
        self.state.step(self.optimizer.rate(0.0))
        return value

    def velocity(self, name: str) -> Array:
        found = self.state.arrays["velocity"][name]
        array: Array = found if isinstance(found, np.ndarray) else found.numpy()
        return array


class OnGpu(Training):
    """The same on a GPU, where a step is a captured graph, and losses are read once in a while."""

    device = "cuda"

    def prepare(self, net: Any, data: Any, batch: int) -> None:
        from chainrule.training.epoch_cuda import CudaTrainStep

        self.order = np.tile(self.order, (-(-EPOCH // len(self.order)), 1))
        count = self.order.size
        self.train_step = CudaTrainStep(net, self.state, data, batch, count)
        self.rates = [self.optimizer.rate(0.0)] * len(self.order)
        self.done = 0

    def step(self) -> float:
        from chainrule.training.epoch_cuda import STEPS_PER_SYNC

        if self.done % len(self.order) == 0:
            self.train_step.start_epoch(self.order.ravel(), self.rates)
            self.done = 0
        self.train_step.queue(1)
        self.done += 1
        if self.done % STEPS_PER_SYNC == 0 or self.done == len(self.order):
            losses, _ = self.train_step.read()
            if not np.isfinite(losses[: self.done]).all():
                raise ArithmeticError(f"a loss is not finite before step {self.done}")
        return 0.0


def training(network: Network, inputs: Inputs, device: str) -> Training:
    return (OnGpu if device == "cuda" else Training)(network, inputs)


def legs(network: Network, device: str, inputs: Inputs) -> Mapping[str, Callable[[], Leg]]:
    def result() -> tuple[Array, ...]:
        one = training(network.without_dropout(), inputs, device)
        one.step()
        one.step()
        return tuple(one.velocity(name) for name in parameter_names(inputs))

    def leg() -> Leg:
        one = training(network, inputs, device)
        if device == "cpu":
            return Leg(one.step, result)
        from chainrule import cuda

        return Leg(one.step, result, wait=cuda.synchronize)

    return {"fit": leg}


def factory(network: Network, device: str) -> Callable[[Inputs], Mapping[str, Callable[[], Leg]]]:
    return partial(legs, network, device)
