"""Initial weights: He's rule to the bit, and the properties of the looks-linear rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule._random import generator
from chainrule.nn import initialization
from chainrule.nn.initialization import he, rotation
from chainrule.nn.layers import Layer

DTYPES = ["float32", "float64"]


def whole_rotation(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    whole = np.zeros((rows, columns))
    for first, part in rotation(generator(seed), rows, columns):
        whole[:, first : first + part.shape[1]] = part
    return whole


def dense(depth: int, width: int, activation: Layer, inputs: int, **options: Any) -> cr.Sequential:
    """Return ``depth`` layers with weights, from ``inputs`` values to the same number."""
    hidden = [layer for _ in range(depth - 1) for layer in (cr.Linear(width), activation)]
    return cr.Sequential(
        *hidden, cr.Linear(inputs), input_shape=(inputs,), init="looks_linear", **options
    )


# He's rule


@pytest.mark.parametrize("dtype", DTYPES)
def test_he_drawn_in_pieces_equals_one_draw(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.zeros((7, 11), dtype)
    monkeypatch.setattr(initialization, "PIECE", 10)
    he(generator(5, 0, 1), weight, 11)
    expected = generator(5, 0, 1).normal(scale=math.sqrt(2 / 11), size=(7, 11))
    assert np.array_equal(weight, expected.astype(dtype))


def test_each_layer_with_weights_has_its_own_random_stream() -> None:
    net = cr.Sequential(cr.ReLU(), cr.Linear(3), cr.ReLU(), cr.Linear(2), input_shape=(4,), seed=9)
    for stream, (index, fan_in, shape) in enumerate([(1, 4, (3, 4)), (3, 3, (2, 3))]):
        expected = generator(9, 0, stream).normal(scale=math.sqrt(2 / fan_in), size=shape)
        assert np.array_equal(net.parameters[f"{index}.weight"], expected.astype(np.float32))
        assert not net.parameters[f"{index}.bias"].any()


# Rotations


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(1, 1), (2, 2), (3, 3), (64, 64), (65, 65), (130, 131), (200, 7), (5, 200)],
)
def test_rows_or_columns_are_orthonormal(rows: int, columns: int) -> None:
    q = whole_rotation(rows, columns)
    products = q @ q.T if rows <= columns else q.T @ q
    # A few rounds of rotations, each with a relative error of eps.
    np.testing.assert_allclose(products, np.eye(len(products)), rtol=0, atol=1e-13)


def test_rotations_contain_no_trace_of_the_identity() -> None:
    """Elements are distributed as in a random direction, on the diagonal too. Half are negative."""
    size = 128
    q = whole_rotation(size, size)
    # Elements of a direction are nearly normal with variance 1/n. Hardly any of n² exceeds 5.5.
    assert np.abs(q).max() < 5.5 / math.sqrt(size)
    assert 0.6 < size * np.mean(np.diag(q) ** 2) < 1.4
    assert 0.48 < np.mean(q > 0) < 0.52
    assert 2.8 < size**2 * np.mean(q**4) < 3.2
    assert not np.array_equal(q, whole_rotation(size, size, seed=1))


# Properties of the looks-linear rule


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [cr.ReLU(), cr.LeakyReLU(0.1), cr.LeakyReLU(-0.5)], ids=repr)
@pytest.mark.parametrize("width", [64, 33])
@pytest.mark.usefixtures("backend")
def test_the_initial_network_is_linear(dtype: str, activation: Layer, width: int) -> None:
    depth, inputs = 20, 24
    net = dense(depth, width, activation, inputs, dtype=dtype)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 10, inputs)).astype(dtype)
    fx, fy = net.forward(x), net.forward(y)
    # Each layer rounds sums of `width` products. Negative slopes make the pairs larger.
    bound = 10 * depth * width * np.finfo(dtype).eps * np.abs([fx, fy]).max()
    assert np.abs(fx).max() > 0.1
    np.testing.assert_allclose(net.forward(-x), -fx, rtol=0, atol=bound)
    np.testing.assert_allclose(net.forward(x + y), fx + fy, rtol=0, atol=2 * bound)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("depth", [2, 200, 500])
@pytest.mark.usefixtures("backend")
def test_lengths_are_preserved_forward_and_backward_at_any_depth(dtype: str, depth: int) -> None:
    """The map is a rotation. The gradients of all layers' weights have the same norm."""
    size = 32
    net = dense(depth, 2 * size, cr.ReLU(), size, dtype=dtype)
    random = np.random.default_rng(1)
    x, target = random.normal(size=(2, 1, size)).astype(dtype)
    tolerance = float(4 * depth * size * np.finfo(dtype).eps)
    output = net.forward(x)
    assert np.linalg.norm(output) == pytest.approx(np.linalg.norm(x), rel=tolerance)
    _, gradients = net.loss_and_gradient(x, target, cr.SquaredError())
    # In every layer, ||a|| is ||x||, and ||delta|| is the norm of the loss's derivative.
    expected = np.linalg.norm(x) * 2 * np.linalg.norm(output - target)
    for name, gradient in gradients.items():
        if name.endswith("weight"):
            assert np.linalg.norm(gradient) == pytest.approx(expected, rel=4 * tolerance), name


def test_angles_are_preserved_unlike_with_he() -> None:
    """After 200 layers initialized by He's rule, two random inputs have the same direction."""
    x = np.random.default_rng(2).normal(size=(2, 32)).astype(np.float32)

    def cosine(net: cr.Sequential) -> float:
        a, b = net.forward(x).astype(np.float64)
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    before = float(x[0] @ x[1] / np.linalg.norm(x[0]) / np.linalg.norm(x[1]))
    assert abs(before) < 0.5
    kept = dense(200, 64, cr.ReLU(), 32)
    lost = cr.Sequential(*kept.layers, input_shape=(32,))
    assert cosine(kept) == pytest.approx(before, abs=1e-3)
    assert cosine(lost) > 0.99


def test_inputs_of_any_shape_dropout_and_softmax_are_allowed() -> None:
    net = cr.Sequential(
        cr.Flatten(), cr.Dropout(0.1), cr.Linear(10), cr.ReLU(), cr.Dropout(0.5), cr.Linear(7),
        cr.Linear(4), cr.Softmax(), input_shape=(3, 2, 1), init="looks_linear", dtype="float64",
    )  # fmt: skip
    logits = cr.Sequential(*net.layers[:-1], input_shape=(3, 2, 1), init="looks_linear",
                           dtype="float64")  # fmt: skip
    x = np.random.default_rng(3).normal(size=(5, 3, 2, 1))
    np.testing.assert_allclose(logits.forward(-x), -logits.forward(x), rtol=0, atol=1e-14)
    np.testing.assert_allclose(net.forward(x).sum(axis=1), 1)


def test_seeds_and_representation() -> None:
    first, again, other = (dense(3, 8, cr.ReLU(), 4, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.vector, again.vector)
    assert not np.array_equal(first.vector, other.vector)
    assert repr(first).endswith('input_shape=(4,), seed=1, init="looks_linear")')
    assert np.array_equal(eval(repr(first), vars(cr)).vector, first.vector)
    biases = [array for name, array in first.parameters.items() if name.endswith("bias")]
    assert not any(bias.any() for bias in biases)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([cr.ReLU(), cr.Linear(2)], r"at the end, got ReLU\(\) as layer 0"),
        ([cr.Linear(4), cr.ReLU(), cr.ReLU(), cr.Linear(2)], r"got ReLU\(\) as layer 2"),
        ([cr.Linear(4), cr.LeakyReLU(-1), cr.Linear(2)], r"got LeakyReLU\(slope=-1.0\) as layer 1"),
        ([cr.Linear(4), cr.Softmax(), cr.Linear(2)], r"got Softmax\(\) as layer 1"),
        ([cr.Linear(1), cr.ReLU(), cr.Linear(2)], r"at least 2 neurons, got Linear\(1\) as"),
    ],
)  # fmt: skip
def test_layers_for_which_looks_linear_raises(layers: list[Layer], message: str) -> None:
    with pytest.raises(ValueError, match=r'^Sequential: with init="looks_linear", .*' + message):
        cr.Sequential(*layers, input_shape=(3,), init="looks_linear")


def test_looks_linear_raises_for_convolutions_and_unknown_rules_raise() -> None:
    with pytest.raises(
        ValueError, match=r"layers must be Linear, .* got Conv2d\(2, 3\) as layer 0"
    ):
        cr.Sequential(cr.Conv2d(2, 3), input_shape=(5, 5, 1), init="looks_linear")
    with pytest.raises(ValueError, match='init must be "he" or "looks_linear", got \'xavier\''):
        cr.Sequential(cr.Linear(2), input_shape=(5,), init="xavier")
