"""chainrule's training step as in `fit`: batch indices, uint8 to float, gradients, update."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from bench.harness.case import Array, BuilderFactory, Inputs, Variant, VariantBuilders
from bench.harness.networks import RECIPES, Layers, Network, parameter_names

# Steps of an epoch of MNIST. On a GPU the few batches here are repeated to as many steps, because
# the start of an epoch waits.
STEPS_PER_EPOCH = 468


def layers_of(sequential: Any) -> Layers:
    """Return the layers of a Sequential as rows of `bench.harness.networks`."""
    import chainrule as cr

    def row(layer: Any) -> tuple[Any, ...]:
        match layer:
            case cr.Conv2d():
                return ("conv2d", layer.out_channels, layer.kernel_size, layer.padding)
            case cr.MaxPool2d():
                return ("max_pool2d", layer.window)
            case cr.Linear():
                return ("linear", layer.out)
            case cr.Dropout():
                return ("dropout", layer.rate)
        return ({cr.ReLU: "relu", cr.Flatten: "flatten"}[type(layer)],)

    return tuple(row(layer) for layer in sequential.layers)


def build_network(network: Network, inputs: Inputs) -> Any:
    """Return the network as a Sequential with the parameters of ``inputs``.

    Raises AssertionError if a network of `chainrule mnist` differs from `chainrule.recipes`.
    """
    import chainrule as cr

    for name, recipe in RECIPES.items():
        if network == recipe:
            built = cr.recipes.RECIPES[name].network()
            assert layers_of(built) == network.layers, f"{name} must equal chainrule.recipes.{name}"
    classes: dict[str, Callable[..., Any]] = {
        "conv2d": lambda filters, size, padding: cr.Conv2d(filters, size, padding=padding),
        "max_pool2d": cr.MaxPool2d,
        "linear": cr.Linear,
        "dropout": cr.Dropout,
        "flatten": cr.Flatten,
        "relu": cr.ReLU,
    }
    layers = [classes[kind](*numbers) for kind, *numbers in network.layers]
    sequential = cr.Sequential(*layers, input_shape=network.input_shape, seed=0)
    for name in parameter_names(inputs):
        sequential.parameters[name][...] = inputs[name]
    return sequential


class Training:
    """A network, its optimizer and its data, as during `fit` on the CPU."""

    device = "cpu"

    def __init__(self, network: Network, inputs: Inputs) -> None:
        import chainrule as cr
        from chainrule.training.training_data import TrainingData

        sequential = build_network(network, inputs).to(self.device)
        self.order = inputs["order"]
        data = TrainingData("bench", sequential, (inputs["x"], inputs["labels"]), cr.CrossEntropy())
        self.optimizer = cr.SGD(network.learning_rate, momentum=network.momentum)
        self.state = self.optimizer.start(sequential)
        self.prepare(sequential, data, network.batch)

    def prepare(self, sequential: Any, data: Any, batch: int) -> None:
        from chainrule.training.epoch import TrainStep

        self.train_step = TrainStep(sequential, self.state, data, batch, self.order.size)
        self.batches = cycle(list(self.order))

    def step(self) -> float:
        """Train on the next batch and return its loss."""
        loss, _ = self.train_step.compute(next(self.batches))
        if not math.isfinite(loss):
            raise ArithmeticError(f"loss must be finite, got {loss}")
        self.state.step(self.optimizer.rate(0.0))
        return loss

    def velocity(self, name: str) -> Array:
        velocity = self.state.arrays["velocity"][name]
        array: Array = velocity if isinstance(velocity, np.ndarray) else velocity.numpy()
        return array


class CudaTraining(Training):
    """Training on a GPU: a step is a CUDA graph, and losses are read every STEPS_PER_SYNC steps."""

    device = "cuda"

    def prepare(self, sequential: Any, data: Any, batch: int) -> None:
        from chainrule.training.epoch_cuda import CudaTrainStep

        self.order = np.tile(self.order, (-(-STEPS_PER_EPOCH // len(self.order)), 1))
        count = self.order.size
        self.train_step = CudaTrainStep(sequential, self.state, data, batch, count)
        self.rates = [self.optimizer.rate(0.0)] * len(self.order)
        self.steps = 0

    def step(self) -> float:
        """Queue a step on the next batch and return 0."""
        from chainrule.training.epoch_cuda import STEPS_PER_SYNC

        if self.steps % len(self.order) == 0:
            self.train_step.start_epoch(self.order.ravel(), self.rates)
            self.steps = 0
        self.train_step.queue(1)
        self.steps += 1
        if self.steps % STEPS_PER_SYNC == 0 or self.steps == len(self.order):
            losses, _ = self.train_step.read()
            if not np.isfinite(losses[: self.steps]).all():
                raise ArithmeticError(f"all losses up to step {self.steps} must be finite")
        return 0.0


def make_training(network: Network, inputs: Inputs, device: str) -> Training:
    return (CudaTraining if device == "cuda" else Training)(network, inputs)


def builders(network: Network, device: str, inputs: Inputs) -> VariantBuilders:
    def result() -> tuple[Array, ...]:
        training = make_training(network.without_dropout(), inputs, device)
        training.step()
        training.step()
        return tuple(training.velocity(name) for name in parameter_names(inputs))

    def build() -> Variant:
        training = make_training(network, inputs, device)
        if device == "cpu":
            return Variant(training.step, result)
        from chainrule import cuda

        return Variant(training.step, result, wait=cuda.synchronize)

    return {"fit": build}


def factory(network: Network, device: str) -> BuilderFactory:
    return partial(builders, network, device)
