"""Every form of data that `fit`, `evaluate` and `predict` accept, and the errors for others."""

from __future__ import annotations

import types
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from small_training import train

rng = np.random.default_rng(31)
# Multiples of 1/8: float16, float32 and float64 represent them.
X = rng.integers(-40, 40, (30, 3)) / 8
LABELS = (X[:, 0] > X[:, 1]).astype(np.int64)
TARGETS = rng.integers(-40, 40, 30) / 8


def network(outputs: int = 2, dtype: str = "float32") -> cr.Sequential:
    return cr.Sequential(cr.Linear(outputs), input_shape=(3,), dtype=dtype)


def frame(values: Any = X, **columns: Any) -> Any:
    pandas = pytest.importorskip("pandas")
    named = dict(zip("abc", np.asarray(values).T, strict=True))
    return pandas.DataFrame(named | columns)


def series(values: Any, **arguments: Any) -> Any:
    return pytest.importorskip("pandas").Series(values, **arguments)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_form_gives_the_same_training(dtype: str) -> None:
    mixed = frame().astype({"a": "float32", "b": "Float64"})
    exact = X.astype(dtype)
    forms: list[tuple[Any, ...]] = [
        ((exact, LABELS),),
        (exact, LABELS),
        (X, LABELS.tolist()),
        (X.tolist(), LABELS.astype(np.int8)),
        (X.astype(np.float16), series(LABELS)),
        (frame(), series(LABELS.astype(bool))),
        (mixed, series(LABELS, dtype="Int64")),
        ([exact[i] for i in range(30)], tuple(LABELS)),
        (types.SimpleNamespace(images=X, labels=LABELS > 0),),
    ]
    results = []
    for form in forms:
        net = network(dtype=dtype)
        data, y = (*form, None)[:2]
        arguments: Any = {"loss": cr.CrossEntropy(), "optimizer": cr.SGD(0.1), "epochs": 1}
        cr.fit(net, data, y, batch_size=7, progress=False, **arguments)
        assert cr.evaluate(net, data, y).loss == cr.evaluate(net, exact, LABELS).loss
        results.append((net.parameter_vector, net.predict(data if y is not None else exact)))
    for vector, output in results[1:]:
        assert np.array_equal(vector, results[0][0])
        assert np.array_equal(output, results[0][1])


def test_targets_of_one_output() -> None:
    results = []
    for y in (TARGETS[:, None].astype(np.float32), TARGETS, TARGETS.tolist(), series(TARGETS)):
        net = network(1)
        cr.fit(
            net, X, y, loss=cr.SquaredError(), optimizer=cr.SGD(0.01), epochs=2, progress=False,
            validation=(X[:9], y[:9]),
        )  # fmt: skip
        results.append(net.parameter_vector)
        result = cr.evaluate(net, X, y, loss=cr.SquaredError())
        assert result.loss == pytest.approx(np.mean((net.predict(X)[:, 0] - TARGETS) ** 2), 1e-5)
    assert all(np.array_equal(results[0], other) for other in results[1:])
    counts = np.arange(30)
    assert cr.evaluate(network(1), X, counts, cr.SquaredError()).loss > 0


def test_integers_are_converted_if_they_fit() -> None:
    net = network()
    whole = np.array([[2**24, -(2**24), 0], [2**40 + 2**20, 2**62, -(2**63)]])
    assert np.array_equal(net.predict(whole), net.predict(whole.astype(np.float32)))
    for value in (2**24 + 1, -(2**24) - 1, 2**62 + 2**37, 2**63 - 1):
        with pytest.raises(TypeError, match="x must be numbers that float32 represents, got int64"):
            net.predict([[value, 0, 0]])
    assert net.predict(np.array([[True, False, True]])).shape == (1, 2)
    table = frame(np.array([[2**53 + 1, 0, 1]])).astype({"b": float})
    with pytest.raises(TypeError, match="got larger integers in column 'a'"):
        network(dtype="float64").predict(table)


@pytest.fixture
def caught() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found


def test_one_warning_per_call_if_values_are_rounded(caught: list[warnings.WarningMessage]) -> None:
    x, y = X + 0.1, TARGETS + 0.1
    net = network(1)
    net.predict(X)
    network(1, "float64").predict(x)
    network(1, "float64").predict(x.astype(np.float32))
    assert caught == []
    arguments: Any = {"loss": cr.SquaredError(), "optimizer": cr.SGD(0.01), "progress": False}
    cr.fit(net, x, y, epochs=3, validation=(x, y), **arguments)
    cr.evaluate(net, x, TARGETS)
    cr.evaluate(net, (X, y))
    net.predict(x.tolist())
    assert [(w.category, w.filename) for w in caught] == [(cr.ConversionWarning, __file__)] * 4
    texts = [str(w.message) for w in caught]
    assert texts[0].startswith(
        "fit: x (float64) and target (float64) had values that were rounded to f"
    )
    assert [text.split(" had ")[0] for text in texts[1:]] == [
        "evaluate: x (float64)", "evaluate: target (float64)", "predict: x (float64)",
    ]  # fmt: skip


def test_values_out_of_range_and_nan() -> None:
    net = network()
    with pytest.raises(
        ValueError, match=r"predict: x must be in the range of float32, got 1e\+300"
    ):
        net.predict(np.array([[1e300, np.nan, 0]]))
    assert np.isnan(net.predict(np.array([[np.nan, np.inf, 0]]))).all()


class Sparse:
    def toarray(self) -> np.ndarray:
        return X


@pytest.mark.parametrize(
    ("data", "y", "error", "message"),
    [
        (X, None, TypeError, r"got ndarray: pass y too, as fit\(network, x, y\)$"),
        ((X, LABELS), LABELS, TypeError, "x must have|fit: x: .*inhomogeneous"),
        (types.SimpleNamespace(images=X, labels=LABELS), LABELS, TypeError, "y must be omitted"),
        ([["a", "b", "c"]] * 30, LABELS, TypeError, "x must be numbers, got text such as 'a': enc"),
        (np.array([[1, None, 2]] * 30), LABELS, TypeError, "x must have no missing values"),
        (Sparse(), LABELS, TypeError, r"x must be dense, got Sparse: use x\.toarray\(\)"),
        ({1: 2}, LABELS, TypeError, "x must be an array, got dict"),
        (X.tolist(), LABELS[:, None].tolist(), ValueError, r"use np\.asarray\(labels\)\[:, 0\]"),
        (X[:, :2].tolist(), LABELS, ValueError, r"x must have shape \(N, 3\), got \(30, 2\)"),
        ([[1, 2, 3], [4, 5]], [0, 1], ValueError, "fit: x: .*inhomogeneous"),
        (
            X,
            np.where(LABELS, "yes", "no"),
            TypeError,
            r"such as 'no|yes': use classes, labels = np\.un",
        ),
        (X.astype("M8[s]"), LABELS, TypeError, r"x must be numbers, got datetime64\[s\]"),
        (X + 1j, LABELS, TypeError, "x must be float32 .*, got complex128$"),
        (X, [2**70] * 30, TypeError, "labels must be numbers, got integers of more"),
        (X, LABELS[:5], ValueError, "x and labels must have the same length, got 30 and 5"),
    ],
)
def test_other_data_is_refused(data: Any, y: Any, error: Any, message: str) -> None:
    with pytest.raises((error, ValueError) if "|" in message else error, match=message):
        cr.fit(
            network(), data, y, loss=cr.CrossEntropy(), optimizer=cr.SGD(0.1), epochs=1,
            progress=False,
        )  # fmt: skip


def test_hints_for_tables_lead_to_a_right_result() -> None:
    pandas = pytest.importorskip("pandas")
    table = frame(color=["red", "green"] * 15)
    net = cr.Sequential(cr.Linear(2), input_shape=(5,), dtype="float64")
    with pytest.raises(TypeError, match=r"column 'color' of x must be numbers, .*get_dummies\(x\)"):
        net.predict(table)
    assert np.array_equal(
        net.predict(pandas.get_dummies(table)),
        net.predict(np.column_stack([X, np.eye(2)[[1, 0] * 15]])),
    )
    names = series(["no", "yes"] * 15)
    with pytest.raises(TypeError, match=r"got text such as 'no': use classes, labels = np\.unique"):
        cr.evaluate(network(), X, names)
    classes, y = np.unique(names, return_inverse=True)
    assert classes.tolist() == ["no", "yes"]
    assert cr.evaluate(network(), X, y).loss > 0
    with pytest.raises(TypeError, match="column 'd' of x must have no missing values"):
        net.predict(frame(d=series([1, None] * 15, dtype=object)))
    with pytest.raises(TypeError, match="pass y too"):
        cr.evaluate(net, table)


def test_validation_is_stratified() -> None:
    labels = np.repeat([0, 1, 2, 3, 4], [50, 20, 9, 2, 1])
    x = np.arange(82.0)[:, None]
    net = cr.Sequential(cr.Linear(5), input_shape=(1,), dtype="float64")
    data = cr.training.training_data.TrainingData("fit", net, (x, labels))
    for fraction, expected in ((0.1, [5, 2, 1, 0, 0]), (0.5, [25, 10, 5, 1, 0])):
        order, held_out = data.split(fraction, 3)
        assert np.bincount(labels[held_out], minlength=5).tolist() == expected
        assert np.array_equal(np.sort(np.concatenate([order, held_out])), np.arange(82))
        assert np.array_equal(data.split(fraction, 3)[1], held_out)
        assert not np.array_equal(data.split(fraction, 4)[1], held_out)
    _, most = data.split(0.99, 0)
    assert np.bincount(labels[most], minlength=5).tolist() == [49, 19, 8, 1, 0]
    singles = cr.training.training_data.TrainingData("fit", net, (x[:5], np.arange(5)))
    with pytest.raises(
        ValueError, match=r"got 0 and 5 .*: each class has one instance to train on"
    ):
        singles.split(0.4, 0)


def test_a_callback_stops_training() -> None:
    def stop(network: cr.Sequential, history: cr.History) -> None:
        if len(history.epochs) == 2:
            history.stop()

    arguments: Any = {"epochs": 5, "callbacks": stop}
    history = train(network(), (X, LABELS), **arguments)
    assert (len(history.epochs), history.stopped_by) == (2, "callback")
    assert isinstance(history.epochs[0], cr.Epoch)
    assert history == cr.History(history.epochs, "callback")
    again = train(network(), (X, LABELS), stop=cr.GradientBelow(1e9), **arguments)
    assert again.stopped_by == repr(cr.GradientBelow(1e9))
