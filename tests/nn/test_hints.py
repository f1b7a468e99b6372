"""Hints of error messages: following each leads to the right numbers."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.data import one_hot

rng = np.random.default_rng(21)
LABELS = np.array([0, 2, 1, 1, 0])
X = rng.normal(size=(5, 4)).astype(np.float32)
PIXELS = rng.integers(0, 256, (5, 6, 6, 1), np.uint8)
COLORS = rng.integers(0, 256, (5, 6, 5, 3), np.uint8)


def followed(message: str, **names: Any) -> Any:
    """Return the value of the expression that a message says to use."""
    start = re.search(r": .*: (?:.*: )?(?:use|add .* with|a single instance is) (.*)", message)
    assert start, message
    expression = re.split(r", (?:which|or|else) | if ", start[1])[0]
    return eval(expression, {"np": np, "chainrule": cr, **names})


def dense(outputs: int = 3, dtype: str = "float32") -> cr.Sequential:
    return cr.Sequential(cr.Linear(outputs), input_shape=(4,), dtype=dtype)


@pytest.mark.parametrize(
    "labels",
    [
        LABELS[:, None],
        LABELS[None],
        LABELS[:, None, None],
        LABELS.astype(float),
        LABELS.astype(np.float32)[:, None],
        one_hot(LABELS, 3),
        one_hot(LABELS, 3).astype(np.int64),
        one_hot(LABELS, 3).astype(bool),
    ],
)
def test_labels(labels: Any) -> None:
    net = dense()
    with pytest.raises((TypeError, ValueError), match="CrossEntropy: labels must be int") as error:
        net.loss_and_gradient(X, labels, cr.CrossEntropy())
    assert np.array_equal(followed(str(error.value), labels=labels), LABELS)
    with pytest.raises((TypeError, ValueError), match="CrossEntropy: labels must be int") as again:
        cr.evaluate(net, (X, labels), cr.CrossEntropy())
    assert str(again.value) == str(error.value)


def test_two_classes_as_booleans() -> None:
    labels = LABELS > 0
    with pytest.raises(TypeError, match="labels must be integers") as error:
        dense(2).loss_and_gradient(X, labels, cr.CrossEntropy())
    assert followed(str(error.value), labels=labels).tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([[0.2, 0.5, 0.3]] * 5), "reads one class per instance, not one number per class"),
        (LABELS + 0.5, "CrossEntropy reads one class per instance, and SquaredError reads num"),
        (np.array([0.0, np.nan, 1, 2, 0]), "and SquaredError reads numbers"),
        (np.array([0.0, np.inf, 1, 2, 0]), "and SquaredError reads numbers"),
        (LABELS + 1.0, r"got float64 of shape \(5,\)$"),
        (LABELS - 1.0, r"got float64 of shape \(5,\)$"),
        (LABELS[:, None] + 1, r"got int64 of shape \(5, 1\)$"),
        (one_hot(LABELS, 4), "reads one class per instance, not one number per class"),
        (one_hot([1], 5), r"got float32 of shape \(1, 5\)$"),
        (one_hot([1], 5).astype(np.int64)[None], r"got int64 of shape \(1, 1, 5\)$"),
        (np.array(list("abcab")), r"got <U1 of shape \(5,\)$"),
        (one_hot(LABELS, 3)[:4], r"got float32 of shape \(4, 3\)$"),
        (np.array(2), r"got int64 of shape \(\)$"),
    ],
)
def test_labels_without_a_right_conversion_get_no_expression(labels: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as error:
        dense().loss_and_gradient(X, labels, cr.CrossEntropy())
    assert ": use " not in str(error.value)


def test_labels_of_several_classes_need_another_loss() -> None:
    for labels in (np.array([[1, 1, 0]] * 5), np.zeros((5, 3)), np.ones((5, 3), bool)):
        with pytest.raises((TypeError, ValueError), match=r"use BinaryCrossEntropy\(\) if an inst"):
            dense().loss_and_gradient(X, labels, cr.CrossEntropy())


def test_labels_with_two_long_axes_get_no_expression() -> None:
    x = rng.normal(size=(6, 4)).astype(np.float32)
    for labels in (np.array([[0, 1, 2], [2, 1, 0]]), one_hot([0, 2], 3)):
        with pytest.raises((TypeError, ValueError), match=r"of shape \(2, 3\)$"):
            dense().loss_and_gradient(x, labels, cr.CrossEntropy())


def test_hints_for_no_instances() -> None:
    net = cr.Sequential(cr.ReLU(), input_shape=(36,))
    images = np.zeros((0, 6, 6), np.float32)
    with pytest.raises(ValueError, match="x must have shape") as error:
        net.predict(images)
    x = followed(str(error.value), x=images)
    assert net.predict(x).shape == (0, 36)
    with pytest.raises(ValueError, match="target must have shape") as error:
        cr.SquaredError().check(images, 0, (36,), net.dtype)
    assert followed(str(error.value), target=images).shape == (0, 36)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "target", [LABELS, LABELS[:, None], LABELS.astype(np.uint8), LABELS.astype(float)]
)
def test_targets_of_classes(target: Any, dtype: str) -> None:
    net = dense(dtype=dtype)
    with pytest.raises(ValueError, match=r"target must have shape \(N, 3\)") as error:
        net.loss_and_gradient(X.astype(dtype), target, cr.SquaredError())
    value = followed(str(error.value), target=target)
    assert np.array_equal(value, one_hot(LABELS, 3, dtype))
    net.loss_and_gradient(X.astype(dtype), value, cr.SquaredError())


@pytest.mark.parametrize(
    "target", [np.arange(5), np.arange(5.0), np.arange(5, dtype=np.float32), np.arange(5) > 2]
)
def test_targets_of_one_output(target: Any) -> None:
    net = dense(1)
    with pytest.raises(ValueError, match=r"target must have shape \(N, 1\)") as error:
        net.loss_and_gradient(X, target, cr.SquaredError())
    value = followed(str(error.value), target=target)
    assert np.array_equal(value, target.astype(np.float32)[:, None])
    net.loss_and_gradient(X, value, cr.SquaredError())


def test_targets_of_another_dtype_or_layout() -> None:
    net = cr.Sequential(cr.ReLU(), input_shape=(6, 5, 3))
    x = (COLORS / 255).astype(np.float32)
    for target in (
        COLORS / 255,
        np.moveaxis(x, -1, 1),
        np.moveaxis(COLORS / 255, -1, 1),
        x[..., None],
    ):
        with pytest.raises((TypeError, ValueError)) as error:
            net.loss_and_gradient(x, target, cr.SquaredError())
        assert np.array_equal(followed(str(error.value), target=target), x)
    with pytest.raises(TypeError, match=r"got complex64$"):
        net.loss_and_gradient(x, x.astype(np.complex64), cr.SquaredError())
    with pytest.raises(ValueError, match=r"\(N, 3\), got \(5,\)$"):
        dense().loss_and_gradient(X, LABELS + 0.5, cr.SquaredError())
    # Labels outside the classes are no labels.
    with pytest.raises(ValueError, match=r"got integer labels of shape \(5,\)$"):
        dense().loss_and_gradient(X, LABELS + 5, cr.SquaredError())


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16, np.int16])
def test_pixels_of_another_integer_dtype_become_uint8(dtype: Any) -> None:
    net = cr.Sequential(cr.Conv2d(2, 3), input_shape=(6, 6, 1))
    for pixels in (PIXELS, PIXELS // 2):
        x = pixels.astype(dtype)
        with pytest.raises(
            TypeError, match=r'if x are pixels, else x\.astype\("float32"\)$'
        ) as error:
            net.predict(x)
        assert np.array_equal(net.predict(followed(str(error.value), x=x)), net.predict(pixels))


def test_numbers_of_another_dtype() -> None:
    net = dense()
    for x in (X.astype(float), np.arange(20).reshape(5, 4), X > 0, X.astype(np.float16)):
        with pytest.raises(TypeError, match="x must be float32") as error:
            net.predict(x)
        value = followed(str(error.value), x=x)
        assert value.dtype == np.float32
        assert np.array_equal(value, x.astype(np.float32))
    flat = np.array([[0, 255, 3, 4]])
    with pytest.raises(TypeError, match=r"use x\.astype\(.*, which keeps .*, or \(x / 255\)\.ast"):
        net.predict(flat)
    deep = rng.integers(0, 65536, (5, 6, 6, 1)).astype(np.uint16)
    with pytest.raises(TypeError, match=r"if x are pixels of 16 bits$") as error:
        cr.Sequential(cr.Conv2d(2, 3), input_shape=(6, 6, 1)).predict(deep)
    value = followed(str(error.value), x=deep)
    np.testing.assert_allclose(value, deep / 65535, rtol=1e-6)
    overflow = np.full((5, 4), 1e300)
    overflow[0, 0] = np.nan
    for x in (X.astype(np.complex64), np.full((5, 4), 1e300), overflow, X.astype(object)):
        with pytest.raises(TypeError, match=rf"got {x.dtype}$"):
            net.predict(x)


@pytest.mark.parametrize(
    ("images", "x"),
    [
        (PIXELS, PIXELS[..., 0]),
        (PIXELS, PIXELS.reshape(5, 36)),
        (PIXELS, PIXELS[..., None]),
        (PIXELS, np.moveaxis(PIXELS, -1, 1)),
        (COLORS, np.moveaxis(COLORS, -1, 1)),
        (COLORS, COLORS.reshape(5, -1)),
        (PIXELS[:1], PIXELS[0]),
        (PIXELS[:1], PIXELS[0, :, :, 0]),
        (COLORS[:1], COLORS[0]),
        (PIXELS.reshape(5, 36) / np.float32(255), PIXELS / np.float32(255)),
        (COLORS.reshape(5, -1) / np.float32(255), COLORS / np.float32(255)),
        (X, X[..., None]),
        (X[:, :1], X[:, 0]),
    ],
)
def test_shapes_of_inputs(images: Any, x: Any) -> None:
    net = cr.Sequential(cr.ReLU(), input_shape=images.shape[1:])
    with pytest.raises(ValueError, match="x must have shape") as error:
        net.predict(x)
    assert np.array_equal(net.predict(followed(str(error.value), x=x)), net.predict(images))


def test_shapes_without_a_right_conversion_get_no_hint() -> None:
    net = cr.Sequential(cr.ReLU(), input_shape=(6, 5, 3))
    for shape in ((5, 6, 6, 3), (5, 90, 1), (91,), (5, 5, 6, 3)):
        with pytest.raises(ValueError, match=rf"got {re.escape(str(shape))}$"):
            net.predict(np.zeros(shape, np.float32))


def test_the_batch_axis_is_no_part_of_the_input_shape() -> None:
    with pytest.raises(TypeError, match=r"leave out the batch axis, .*: use input_shape=\(28, 28"):
        cr.Sequential(cr.Conv2d(2, 3), input_shape=(None, 28, 28, 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"without the batch axis, use input_shape=\(28, 28, 1\)"):
        cr.Sequential(cr.Conv2d(2, 3), input_shape=(64, 28, 28, 1))
    with pytest.raises(ValueError, match=r"use input_shape=\(28, 20, 1\)"):
        cr.Sequential(cr.Conv2d(2, 3), input_shape=(28, 20))


@pytest.mark.parametrize(
    ("layers", "hint"),
    [
        ((cr.Conv2d(3, 6),), (cr.Flatten(),)),
        ((cr.Conv2d(3, 6), cr.Softmax()), (cr.Flatten(),)),
        ((cr.Conv2d(3, 3),), (cr.Flatten(), cr.Linear(3))),
    ],
)
def test_the_end_of_a_convolutional_network(layers: Any, hint: Any) -> None:
    net = cr.Sequential(*layers, input_shape=(6, 6, 1))
    text = " and ".join(map(repr, hint)).replace("Linear(3)", "Linear(classes)")
    with pytest.raises(ValueError, match=re.escape(f"end it with {text}") + "$"):
        net.loss_and_gradient(PIXELS, LABELS, cr.CrossEntropy())
    ended = cr.Sequential(*layers, *hint, input_shape=(6, 6, 1))
    loss, _ = ended.loss_and_gradient(PIXELS, LABELS, cr.CrossEntropy())
    probabilities = ended.predict_proba(PIXELS)[np.arange(5), LABELS].astype(float)
    assert loss == pytest.approx(-np.log(probabilities).mean(), rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uint8_is_pixels_only_in_images(dtype: str) -> None:
    columns = np.array([[0, 1, 1, 0], [1, 1, 0, 255]], np.uint8)
    net = dense(dtype=dtype)
    x = columns.astype(dtype)
    calls = (
        net.predict,
        net.forward,
        lambda x: net.loss_and_gradient(x, LABELS[:2], cr.CrossEntropy()),
        lambda x: cr.evaluate(net, (x, LABELS[:2])),
        lambda x: cr.calculus.trace(net, x, LABELS[:2], cr.CrossEntropy()),
        lambda x: cr.calculus.jacobian(net, x),
    )
    for call in calls:
        with pytest.raises(TypeError, match=r"unless input_shape is an image .*got uint8") as error:
            call(columns)
        values, scaled = re.split(", or ", str(error.value).partition(": use ")[2])
        kept = eval(values.split(", which")[0], {"x": columns})
        scaled = eval(scaled.split(", which")[0], {"x": columns, "np": np})
        assert kept.dtype == scaled.dtype == dtype
        assert np.array_equal(kept, x)
        np.testing.assert_allclose(scaled, columns / 255, rtol=1e-7)
        call(kept)
    # The way for images, as the message says.
    with pytest.raises(TypeError, match=r"or images \(input_shape=\(6, 6, 1\), Flatten\(\)\)$"):
        cr.Sequential(cr.Linear(3), input_shape=(36,)).predict(PIXELS)
    net = cr.Sequential(cr.Flatten(), cr.Linear(3), input_shape=(6, 6, 1))
    assert np.array_equal(net.predict(PIXELS), net.predict(PIXELS / np.float32(255)))


def test_parameters_and_rows_of_uint8_keep_their_values_in_calculus() -> None:
    weight, bias = np.array([[2, 3]], np.uint8), np.array([1], np.uint8)
    layer, parameters = cr.Linear(1), {"weight": weight, "bias": bias}
    x = np.array([5, 7], np.uint8)
    got = cr.calculus.layer_parameter_jacobian(layer, x, parameters)
    assert got.tolist() == [[1.0, 5.0, 7.0]]
    assert cr.calculus.layer_jacobian(layer, x, parameters).tolist() == [[2.0, 3.0]]


def test_targets_of_uint8_name_both_ways() -> None:
    net = cr.Sequential(cr.LeakyReLU(), input_shape=(6, 6, 1))
    with pytest.raises(TypeError, match="keeps the values, or target / np") as error:
        net.loss_and_gradient(PIXELS, PIXELS, cr.SquaredError())
    values, scaled = re.split(", or ", str(error.value).partition(": use ")[2])
    assert np.array_equal(eval(values.split(", which")[0], {"target": PIXELS}), PIXELS)
    target = eval(scaled.split(", which")[0], {"target": PIXELS, "np": np})
    assert net.loss_and_gradient(PIXELS, target, cr.SquaredError())[0] == 0


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        (np.array([0, 1, 1, 0, 1]), r"use BinaryCrossEntropy\(\), .* or end it with Linear\(2\)$"),
        (LABELS > 0, r"use BinaryCrossEntropy\(\), .* or end it with Linear\(2\)$"),
        (np.array([[0.0], [1], [1], [0], [1]]), r"use BinaryCrossEntropy\(\)"),
        (LABELS, r"end it with Linear\(3\) if labels are classes, or use SquaredError\(\)"),
        (np.array([0.5, 1, 2, 3, 4]), r"use SquaredError\(\), which reads numbers$"),
        (np.array([-1, 1, 1, -1, 1]), r"use SquaredError\(\), which reads numbers$"),
        (np.array(list("abcab")), "at least 2, got 1$"),
    ],
)
def test_cross_entropy_of_one_output_is_refused(labels: Any, hint: str) -> None:
    for net in (dense(1), cr.Sequential(cr.Linear(1), cr.Softmax(), input_shape=(4,))):
        message = f"CrossEntropy: the network must have one output per class.*{hint}"
        with pytest.raises(ValueError, match=message):
            net.loss_and_gradient(X, labels, cr.CrossEntropy())
        with pytest.raises(ValueError, match=message):
            cr.fit(net, (X, labels), loss=cr.CrossEntropy(), optimizer=cr.SGD(0.1), epochs=1)
        with pytest.raises(ValueError, match=message):
            cr.evaluate(net, (X, labels), cr.CrossEntropy())
