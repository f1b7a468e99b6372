"""chainrule's training step, as `fit` takes it: batch by its indices, uint8 to float, descent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import cycle
from typing import Any

from bench.case import Array, Inputs, Leg
from bench.networks import Network, parameter_names


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

    def __init__(self, network: Network, inputs: Inputs) -> None:
        import chainrule as cr
        from chainrule.steps import Examples, Steps

        net, loss, order = build(network, inputs), cr.CrossEntropy(), inputs["order"]
        examples = Examples("bench", net, (inputs["x"], inputs["labels"]), loss)
        self.steps = Steps(net, examples, loss, network.batch, order.size)
        self.optimizer = cr.SGD(network.learning_rate, momentum=network.momentum)
        self.descent = self.optimizer.start(net)
        self.chosen = cycle(list(order))

    def step(self) -> float:
        value, _ = self.steps.compute(next(self.chosen))
        if not math.isfinite(value):
            raise ArithmeticError(f"loss is {value}")
        self.descent.step(self.optimizer.rate(0.0))
        return value


def legs(network: Network, inputs: Inputs) -> Mapping[str, Callable[[], Leg]]:
    def result() -> tuple[Array, ...]:
        training = Training(network.without_dropout(), inputs)
        training.step()
        training.step()
        return tuple(training.descent.velocity[name] for name in parameter_names(inputs))

    return {"fit": lambda: Leg(Training(network, inputs).step, result)}


def factory(network: Network) -> Callable[[Inputs], Mapping[str, Callable[[], Leg]]]:
    return partial(legs, network)
