"""Losses: values by their definitions, logits and final softmax, and all errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr

rng = np.random.default_rng(5)
X = rng.normal(size=(4, 3))
LABELS = np.array([0, 2, 1, 1])


def linear(*tail: Any, dtype: str = "float64") -> cr.Sequential:
    return cr.Sequential(cr.Linear(3), *tail, input_shape=(3,), seed=2, dtype=dtype)


@pytest.mark.usefixtures("backend")
def test_cross_entropy_is_minus_the_log_of_the_true_class_probability() -> None:
    net = linear(cr.Softmax())
    probabilities = net.predict(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-14)
    loss, _ = net.loss_and_gradient(X, LABELS, cr.CrossEntropy())
    assert loss == pytest.approx(-np.log(probabilities[np.arange(4), LABELS]).mean(), rel=1e-13)


@pytest.mark.usefixtures("backend")
def test_cross_entropy_of_logits_and_of_a_final_softmax_agree_to_the_bit() -> None:
    plain, ending = linear(), linear(cr.Softmax())
    of_logits = plain.loss_and_gradient(X, LABELS, cr.CrossEntropy())
    of_softmax = ending.loss_and_gradient(X, LABELS, cr.CrossEntropy())
    assert of_logits[0] == of_softmax[0]
    assert np.array_equal(plain.gradient_vector, ending.gradient_vector)
    first, second = (cr.evaluate(net, (X, LABELS)) for net in (plain, ending))
    assert first.loss == second.loss == pytest.approx(of_logits[0], rel=1e-14)
    assert np.array_equal(first.confusion, second.confusion)


def test_cross_entropy_after_a_softmax_is_finite_for_huge_logits() -> None:
    net = linear(cr.Softmax())
    net.parameters["0.weight"][...] = 1e4 * np.eye(3)
    loss, gradients = net.loss_and_gradient(np.eye(3), np.array([1, 2, 0]), cr.CrossEntropy())
    assert loss == pytest.approx(1e4)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.usefixtures("backend")
def test_squared_error_sums_over_outputs_and_averages_over_instances() -> None:
    net = linear()
    target = rng.normal(size=(4, 3))
    loss, gradients = net.loss_and_gradient(X, target, cr.SquaredError())
    error = net.predict(X) - target
    assert loss == pytest.approx((error**2).sum(axis=1).mean(), rel=1e-13)
    np.testing.assert_allclose(gradients["0.bias"], 2 * error.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(gradients["0.weight"], 2 * error.T @ X / 4, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64, np.int32])
def test_labels_of_any_integer_dtype(dtype: Any) -> None:
    net = linear()
    want = net.loss_and_gradient(X, LABELS, cr.CrossEntropy())[0]
    assert net.loss_and_gradient(X, LABELS.astype(dtype), cr.CrossEntropy())[0] == want


@pytest.mark.parametrize(
    ("loss", "target", "error", "message"),
    [
        (
            cr.CrossEntropy(),
            np.array([0, 1, 2, 3]),
            ValueError,
            r"CrossEntropy: labels must be in \[0, 3\), got 3 at index 3",
        ),
        (
            cr.CrossEntropy(),
            np.array([0, -1, 2, 3]),
            ValueError,
            r"CrossEntropy: labels must be in \[0, 3\), got -1 at index 1",
        ),
        (
            cr.CrossEntropy(),
            LABELS[:3],
            ValueError,
            "CrossEntropy: x and labels must have the same length, got 4 and 3",
        ),
        (
            cr.CrossEntropy(),
            LABELS.astype(float),
            TypeError,
            r"CrossEntropy: labels must be integers of shape \(N,\), got float64 of shape \(4,\)",
        ),
        (
            cr.CrossEntropy(),
            np.eye(3)[LABELS],
            TypeError,
            r"got float64 of shape \(4, 3\): use labels.argmax\(axis=1\)",
        ),
        (cr.CrossEntropy(), LABELS[:, None], ValueError, r"got int64 of shape \(4, 1\)"),
        (
            cr.SquaredError(),
            LABELS,
            ValueError,
            r"SquaredError: target must have shape \(N, 3\), got integer labels of shape \(4,\): "
            r"use chainrule\.data\.one_hot\(target, 3, \"float64\"\)",
        ),
        (
            cr.SquaredError(),
            X[:, :2],
            ValueError,
            r"SquaredError: target must have shape \(N, 3\), got \(4, 2\)",
        ),
        (
            cr.SquaredError(),
            X[:2],
            ValueError,
            "SquaredError: x and target must have the same length, got 4 and 2",
        ),
    ],
)
def test_invalid_targets_raise(
    loss: Any, target: Any, error: type[Exception], message: str
) -> None:
    net = linear()
    with pytest.raises(error, match=message):
        net.loss_and_gradient(X, target, loss)
    with pytest.raises(error, match=message):
        cr.fit(net, (X, target), loss=loss, optimizer=cr.SGD(0.1), epochs=1, progress=False)
    with pytest.raises(error, match=message):
        cr.evaluate(net, (X, target), loss=loss)


def test_loss_and_gradient_does_not_convert_targets() -> None:
    with pytest.raises(TypeError, match=r"SquaredError: target must be float64 .*: use target\.as"):
        linear().loss_and_gradient(X, X.astype(np.float32), cr.SquaredError())


def test_cross_entropy_requires_one_logit_per_class() -> None:
    net = cr.Sequential(cr.Conv2d(2, 3), input_shape=(5, 5, 1))
    with pytest.raises(
        ValueError, match=r"output must have shape \(classes,\), got \(3, 3, 2\): end it with Fla"
    ):
        net.loss_and_gradient(
            np.zeros((1, 5, 5, 1), np.float32), np.zeros(1, int), cr.CrossEntropy()
        )
