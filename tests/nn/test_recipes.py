"""The three networks have the published architectures, and their recipes train."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import data, recipes
from chainrule.recipes import RECIPES

# Computed by hand from the sizes of the layers.
PARAMETERS = {
    "cnn": (32 * 9 + 32) + (64 * 32 * 9 + 64) + (128 * 64 * 12 * 12 + 128) + (10 * 128 + 10),
    "lenet": (6 * 25 + 6) + (16 * 6 * 25 + 16) + (120 * 400 + 120) + (84 * 120 + 84) + (850),
    "mlp": (128 * 784 + 128) + (10 * 128 + 10),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_network_has_the_parameters_of_its_layers(name: str) -> None:
    network = RECIPES[name].network()
    assert sum(array.size for array in network.parameters.values()) == PARAMETERS[name]
    assert network.input_shape == (28, 28, 1)
    assert network.output_shape == (10,)


def test_architectures() -> None:
    assert [type(layer).__name__ for layer in recipes.cnn().layers] == [
        "Conv2d",
        "ReLU",
        "Conv2d",
        "ReLU",
        "MaxPool2d",
        "Dropout",
        "Flatten",
        "Linear",
        "ReLU",
        "Dropout",
        "Linear",
    ]
    assert [repr(layer) for layer in recipes.lenet().layers if "ReLU" not in repr(layer)] == [
        repr(layer)
        for layer in (
            cr.Conv2d(6, 5, padding="same"),
            cr.MaxPool2d(2),
            cr.Conv2d(16, 5),
            cr.MaxPool2d(2),
            cr.Flatten(),
            cr.Linear(120),
            cr.Linear(84),
            cr.Linear(10),
        )
    ]
    assert [repr(layer) for layer in recipes.mlp().layers] == [
        repr(layer) for layer in (cr.Flatten(), cr.Linear(128), cr.ReLU(), cr.Linear(10))
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_seed_and_dtype_reach_the_network(name: str) -> None:
    build = RECIPES[name].network
    assert np.array_equal(build(seed=3).parameter_vector, build(seed=3).parameter_vector)
    assert not np.array_equal(build(seed=3).parameter_vector, build(seed=4).parameter_vector)
    assert build(dtype="float64").dtype == np.float64


def test_the_optimizer_has_the_values_of_the_recipe_and_a_given_peak() -> None:
    recipe = RECIPES["mlp"]
    optimizer = recipe.optimizer()
    assert optimizer == cr.SGD(cr.OneCycle(recipe.peak), momentum=recipe.momentum, l2=recipe.l2)
    assert recipe.optimizer(0.5).learning_rate == cr.OneCycle(0.5)


def test_the_recipe_learns_the_embedded_digits() -> None:
    recipe = RECIPES["mlp"]
    train, test = data.digits()
    network = recipe.network(seed=0)
    cr.fit(
        network,
        train,
        loss=cr.CrossEntropy(),
        optimizer=recipe.optimizer(),
        epochs=5,
        batch_size=recipe.batch_size,
        progress=False,
    )
    accuracy = cr.evaluate(network, test).accuracy
    assert accuracy is not None
    assert accuracy > 0.9
