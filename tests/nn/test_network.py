"""The network: construction, parameters, inputs, prediction, gradients, threads."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.devices import ALIGNMENT

SMALL = (cr.Conv2d(2, 3), cr.ReLU(), cr.MaxPool2d(2), cr.Dropout(0.3), cr.Flatten(), cr.Linear(3))


def small(seed: int = 0, dtype: str = "float32") -> cr.Sequential:
    return cr.Sequential(*SMALL, input_shape=(6, 6, 1), seed=seed, dtype=dtype)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, 6, 6, 1), np.uint8)


def test_attributes() -> None:
    net = small(seed=5)
    assert net.layers == SMALL
    assert (net.input_shape, net.output_shape) == ((6, 6, 1), (3,))
    assert (net.dtype, net.seed) == (np.float32, 5)
    assert list(net.parameters) == ["0.weight", "0.bias", "5.weight", "5.bias"]
    assert net.parameters["0.weight"].shape == (2, 3, 3, 1)
    assert list(net.gradients) == list(net.parameters)
    for array in [*net.parameters.values(), *net.gradients.values()]:
        assert array.flags.c_contiguous
        assert array.ctypes.data % ALIGNMENT == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_repr_reads_as_the_call(dtype: str) -> None:
    layers = [
        cr.Conv2d(32, 3),
        cr.ReLU(),
        cr.Conv2d(64, 3, padding="same"),
        cr.ReLU(),
        cr.MaxPool2d(2),
        cr.Dropout(0.25),
        cr.Flatten(),
        cr.Linear(10),
        cr.Softmax(),
    ]
    net = cr.Sequential(*layers, input_shape=(28, 28, 1), seed=3, dtype=dtype)
    again = eval(repr(net), vars(cr))
    assert repr(again) == repr(net)
    assert (again.layers, again.shapes, again.dtype) == (net.layers, net.shapes, net.dtype)
    assert np.array_equal(again.parameter_vector, net.parameter_vector)
    assert repr(small()).splitlines() == [
        "Sequential(",
        "    Conv2d(2, 3), ReLU(), MaxPool2d(2), Dropout(0.3), Flatten(), Linear(3),",
        "    input_shape=(6, 6, 1), seed=0)",
    ]


@pytest.mark.parametrize(
    ("layers", "arguments", "error", "message"),
    [
        ([], {}, ValueError, "Sequential: layers must have at least one layer, got 0"),
        ([cr.ReLU], {}, TypeError, r"layer 0 must be a layer .*: write ReLU\(\.\.\.\)"),
        (["relu"], {}, TypeError, r"layer 0 must be a layer \(Linear, Conv2d, .*\), got 'relu'"),
        (
            [cr.Conv2d(2, 3), cr.Linear(3)],
            {},
            ValueError,
            r"layer 1, Linear\(3\): input must be flat \(features,\), got \(4, 4, 2\): put F",
        ),
        (
            [cr.Flatten(), cr.Conv2d(2, 3)],
            {},
            ValueError,
            r"layer 1, Conv2d\(2, 3\): input must be images \(rows, columns, channels\), got \(36",
        ),
        (
            [cr.Conv2d(2, 3)],
            {"input_shape": (6, 6)},
            ValueError,
            r"layer 0, .* got \(6, 6\): use input_shape=\(6, 6, 1\)",
        ),
        (
            [cr.Conv2d(2, 9, padding=1)],
            {},
            ValueError,
            r"conv2d: kernel must fit in the padded input \(8, 8\), got \(9, 9\)",
        ),
        (
            [cr.MaxPool2d(7)],
            {},
            ValueError,
            r"max_pool2d: window must fit in the input \(6, 6\), got \(7, 7\)",
        ),
        (
            [cr.Flatten()],
            {"input_shape": (2**20, 2**20)},
            ValueError,
            "layer 0, .* output axes must be at most 2147483647, got",
        ),
        (
            [cr.Flatten()],
            {"input_shape": 36},
            TypeError,
            r"input_shape must be a tuple such as \(28, 28, 1\), got 36",
        ),
        ([cr.Flatten()], {"input_shape": ()}, TypeError, "input_shape must be a tuple"),
        (
            [cr.Flatten()],
            {"input_shape": (2.0, 3)},
            TypeError,
            r"Sequential: input_shape must contain integers, got \(2.0, 3\)",
        ),
        (
            [[cr.Flatten()]],
            {},
            TypeError,
            r"got \[Flatten\(\)\]: write Sequential\(\*layers, ...\)",
        ),
        (
            [cr.Flatten()],
            {"input_shape": (0, 2)},
            ValueError,
            "input_shape must be at least 1, got 0",
        ),
        (
            [cr.Flatten()],
            {"input_shape": (1,) * 9},
            ValueError,
            "input_shape must have at most 8 dimensions, got 9",
        ),
        ([cr.Flatten()], {"seed": -1}, ValueError, "Sequential: seed must be at least 0, got -1"),
        (
            [cr.Flatten()],
            {"dtype": "int8"},
            TypeError,
            """dtype must be "float32" or "float64", got 'int8'""",
        ),
        ([cr.Flatten()], {"dtype": None}, TypeError, "dtype must be .*, got None"),
    ],
)
def test_invalid_construction_raises(
    layers: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        cr.Sequential(*layers, **{"input_shape": (6, 6, 1), **arguments})


def test_initial_weights_follow_he_and_the_seed() -> None:
    net = cr.Sequential(cr.Linear(400), cr.ReLU(), cr.Linear(300), input_shape=(200,), seed=1)
    for index, fan_in in ((0, 200), (2, 400)):
        weight = net.parameters[f"{index}.weight"]
        assert weight.std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.02)
        assert abs(weight.mean()) < 0.02 * weight.std()
        assert not net.parameters[f"{index}.bias"].any()
    same = cr.Sequential(*net.layers, input_shape=(200,), seed=1)
    other = cr.Sequential(*net.layers, input_shape=(200,), seed=2)
    assert np.array_equal(same.parameter_vector, net.parameter_vector)
    assert not np.array_equal(other.parameter_vector, net.parameter_vector)
    # Layers without weights do not change other weights. Rounding float64 weights gives these.
    more = cr.Sequential(
        cr.Linear(400),
        cr.Dropout(0.5),
        cr.LeakyReLU(),
        cr.Linear(300),
        input_shape=(200,),
        seed=1,
        dtype="float64",
    )
    assert np.array_equal(more.parameter_vector.astype(np.float32), net.parameter_vector)


def test_parameter_vector_has_the_tutorials_order() -> None:
    net = cr.Sequential(cr.Linear(2), cr.ReLU(), cr.Linear(1), input_shape=(2,), dtype="float64")
    # The three-unit network: w10, w11, w12, w20, w21, w22 of layer 1, then those of layer 2.
    net.parameter_vector = np.arange(9.0)
    assert net.parameters["0.bias"].tolist() == [0, 3]
    assert net.parameters["0.weight"].tolist() == [[1, 2], [4, 5]]
    assert net.parameters["2.bias"].tolist() == [6]
    assert net.parameters["2.weight"].tolist() == [[7, 8]]
    assert net.parameter_vector.tolist() == list(range(9))
    copied = net.parameter_vector
    copied[:] = 0
    assert net.parameter_vector.tolist() == list(range(9))
    _, gradients = net.loss_and_gradient(np.ones((1, 2)), np.zeros((1, 1)), cr.SquaredError())
    assert net.gradient_vector[0] == gradients["0.bias"][0]
    assert net.gradient_vector[1:3].tolist() == gradients["0.weight"][0].tolist()
    assert net.gradient_vector[6] == gradients["2.bias"][0]
    convolution = small()
    convolution.parameter_vector = np.arange(convolution.parameter_vector.size, dtype=np.float32)
    assert convolution.parameters["0.bias"].tolist() == [0, 10]
    assert convolution.parameters["0.weight"][1].ravel().tolist() == list(range(11, 20))


def test_invalid_parameter_vectors_raise() -> None:
    net = small()
    with pytest.raises(ValueError, match=r"parameter_vector: must have shape \(47,\), got \(46,\)"):
        net.parameter_vector = np.zeros(46, np.float32)
    with pytest.raises(TypeError, match="parameter_vector: must be a float32 array, got float64"):
        net.parameter_vector = np.zeros(47)
    with pytest.raises(TypeError, match="does not support item assignment"):
        net.parameters["0.bias"] = np.zeros(2, np.float32)  # type: ignore[index]


@pytest.mark.usefixtures("backend")
def test_uint8_means_fractions_of_255() -> None:
    net, x = small(), images(3)
    assert np.array_equal(net.forward(x), net.forward((x / 255).astype(np.float32)))
    double = small(dtype="float64")
    assert np.array_equal(double.forward(x), double.forward(x / 255))


@pytest.mark.parametrize("call", ["forward", "predict", "predict_proba"])
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1.0]], TypeError, "x must be an array, got list"),
        (
            np.zeros((1, 6, 6, 1)),
            TypeError,
            r"x must be float32 as the network is, or uint8 .*, got float64: use x\."
            r'astype\("float32"\)',
        ),
        (np.zeros((1, 6, 6, 1), int), TypeError, "got int64"),
        (
            np.zeros((6, 6, 1), np.uint8),
            ValueError,
            r"x must have shape \(N, 6, 6, 1\), got \(6, 6, 1\): a single instance is x\[None\]",
        ),
        (np.zeros((5, 6, 6), np.uint8), ValueError, r"add the channel axis with x\[\.\.\., None\]"),
        (np.zeros((2, 36), np.uint8), ValueError, r"\(2, 36\): use x\.reshape\(-1, 6, 6, 1\)$"),
        (np.zeros((), np.uint8), ValueError, r"got \(\)"),
    ],
)
def test_invalid_inputs_raise(call: str, x: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"{call}: .*{message}"):
        getattr(small(), call)(x)


def test_invalid_arguments_of_loss_and_gradient_raise() -> None:
    net = small()
    with pytest.raises(TypeError, match=r"loss must be a loss such as CrossEntropy\(\), .*, got"):
        net.loss_and_gradient(images(1), np.zeros(1, int), "mse")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x must have at least one instance, got 0"):
        net.loss_and_gradient(images(0), np.zeros(0, int), cr.CrossEntropy())
    with pytest.raises(ValueError, match=r"predict: batch_size must be at least 1, got 0"):
        net.predict(images(1), batch_size=0)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("count", [0, 1, 2, 7, 33])
def test_results_do_not_depend_on_batching(count: int) -> None:
    net, x = small(), images(count)
    whole = net.forward(x)
    assert whole.shape == (count, 3)
    assert whole.dtype == np.float32
    for size in (None, 1, 2, 5, 100):
        # Kernels may sum in another order for another batch size.
        np.testing.assert_allclose(net.predict(x, size), whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(net.predict(x[::-1]), net.predict(x[::-1].copy()))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("count", [0, 1, 7])
def test_predict_proba_is_the_softmax_of_the_logits(count: int) -> None:
    net, x = small(), images(count)
    probabilities = net.predict_proba(x, batch_size=2)
    assert probabilities.shape == (count, 3)
    assert np.array_equal(probabilities, cr.ops.softmax(net.predict(x, batch_size=2)))
    ending = cr.Sequential(*SMALL, cr.Softmax(), input_shape=(6, 6, 1))
    assert np.array_equal(ending.predict_proba(x), ending.predict(x))


def test_results_are_copies() -> None:
    net, x = small(), images(4)
    first = net.forward(x)
    kept = first.copy()
    net.forward(images(4)[::-1])
    assert np.array_equal(first, kept)
    _, gradients = net.loss_and_gradient(x, np.zeros(4, int), cr.CrossEntropy())
    kept = gradients["0.weight"].copy()
    net.loss_and_gradient(x, np.ones(4, int), cr.CrossEntropy())
    assert np.array_equal(gradients["0.weight"], kept)
    assert not np.array_equal(net.gradients["0.weight"], kept)
    flat = cr.Sequential(cr.Flatten(), input_shape=(2, 2))
    ones = np.ones((1, 2, 2), np.float32)
    assert not np.shares_memory(flat.forward(ones), ones)


@pytest.mark.usefixtures("backend")
def test_eight_threads_agree() -> None:
    net, x = small(), images(64)
    want = net.predict(x)
    # Labels differ per thread, so one thread's gradient is wrong in another.
    labels = [np.full(64, number % 3) for number in range(8)]
    wanted = [net.loss_and_gradient(x, y, cr.CrossEntropy()) for y in labels]
    wrong: list[str] = []
    gate = threading.Barrier(8)

    def work(number: int) -> None:
        gate.wait(30)
        for _ in range(20):
            if not np.array_equal(net.predict(x), want):
                wrong.append(f"predict in thread {number}")
            loss, gradients = net.loss_and_gradient(x, labels[number], cr.CrossEntropy())
            right, of_right = wanted[number]
            same = all(np.array_equal(gradients[name], of_right[name]) for name in of_right)
            if loss != right or not same:
                wrong.append(f"gradient in thread {number}")

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_arrays_of_other_libraries_are_accepted() -> None:
    class Foreign:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __dlpack__(self, **arguments: Any) -> Any:
            return self.array.__dlpack__(**arguments)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    net, x = small(), np.random.default_rng(0).normal(size=(2, 6, 6, 1)).astype(np.float32)
    assert np.array_equal(net.forward(Foreign(x)), net.forward(x))  # type: ignore[arg-type]


def test_deep_and_wide_networks_run() -> None:
    layers = [layer for _ in range(200) for layer in (cr.Linear(8), cr.ReLU())]
    deep = cr.Sequential(*layers, cr.Linear(2), input_shape=(8,))
    loss, gradients = deep.loss_and_gradient(
        np.ones((3, 8), np.float32), np.zeros(3, int), cr.CrossEntropy()
    )
    assert np.isfinite(loss)
    assert len(gradients) == 402
    wide = cr.Sequential(cr.Linear(5000), cr.ReLU(), cr.Linear(2), input_shape=(30,))
    assert wide.predict(np.ones((1, 30), np.float32)).shape == (1, 2)


def test_a_network_without_parameters_runs() -> None:
    net = cr.Sequential(cr.MaxPool2d(2), cr.Flatten(), input_shape=(4, 4, 1))
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    assert net.forward(x).tolist() == [[5, 7, 13, 15]]
    loss, gradients = net.loss_and_gradient(x, np.zeros((1, 4), np.float32), cr.SquaredError())
    assert (loss, gradients) == (25 + 49 + 169 + 225, {})
    assert net.parameter_vector.size == net.gradient_vector.size == 0
