"""Arguments of networks, training and data from other libraries: accepted, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from op_contract import raises

X, LABELS, TARGETS = np.ones((4, 3), np.float32), np.arange(4) % 2, np.ones((4, 2), np.float32)


def network() -> cr.Sequential:
    return cr.Sequential(cr.Linear(2), input_shape=(3,))


def fit(x: Any, y: Any, loss: Any) -> None:
    cr.fit(network(), (x, y), loss=loss, optimizer=cr.SGD(0.1), epochs=1, progress=False)


def set_parameters(value: Any) -> None:
    network().parameter_vector = value


def calls(value: Callable[[np.ndarray], Any]) -> dict[str, tuple[Callable[[], Any], str]]:
    """Return calls with one argument replaced -> the beginning of the error."""
    x, labels, targets = value(X), value(LABELS), value(TARGETS)
    entropy, squared = cr.CrossEntropy(), cr.SquaredError()
    return {
        "forward": (lambda: network().forward(x), "forward: x"),
        "predict": (lambda: network().predict(x), "predict: x"),
        "predict_proba": (lambda: network().predict_proba(x), "predict_proba: x"),
        "gradient, x": (
            lambda: network().loss_and_gradient(x, LABELS, entropy), "loss_and_gradient: x"
        ),
        "gradient, labels": (
            lambda: network().loss_and_gradient(X, labels, entropy), "CrossEntropy: labels"
        ),
        "gradient, target": (
            lambda: network().loss_and_gradient(X, targets, squared), "SquaredError: target"
        ),
        "fit, x": (lambda: fit(x, LABELS, entropy), "fit: x"),
        "fit, labels": (lambda: fit(X, labels, entropy), "CrossEntropy: labels"),
        "fit, target": (lambda: fit(X, targets, squared), "SquaredError: target"),
        "evaluate, x": (lambda: cr.evaluate(network(), (x, LABELS)), "evaluate: x"),
        "evaluate, y": (lambda: cr.evaluate(network(), (X, labels)), "evaluate: y"),
        "Dataset, images": (lambda: cr.data.Dataset(x, LABELS), "Dataset: images"),
        "Dataset, labels": (lambda: cr.data.Dataset(X, labels), "Dataset: labels"),
        "one_hot": (lambda: cr.data.one_hot(labels), "one_hot: labels"),
        "from_dataset, image": (
            lambda: cr.data.from_dataset([(x, 0)]), "from_dataset: image 0"
        ),
        "check_gradient": (
            lambda: cr.calculus.check_gradient(network(), x, LABELS, entropy), "check_gradient: x"
        ),
    }  # fmt: skip


NAMES = list(calls(lambda array: array))


@pytest.mark.parametrize("name", NAMES)
def test_masked_arrays(name: str) -> None:
    def masked(array: np.ndarray) -> Any:
        result = np.ma.masked_array(array.copy())
        result[0] = np.ma.masked
        return result

    call, beginning = calls(masked)[name]
    with pytest.raises(TypeError, match=f"^{beginning} must have no mask, got a masked array"):
        call()


def test_masked_parameters() -> None:
    with pytest.raises(TypeError, match=r"^parameter_vector: value must have no mask, "):
        set_parameters(np.ma.masked_array(np.ones(8, np.float32)))


class Tensor:
    """A tensor of bfloat16, as PyTorch refuses its conversion."""

    dtype, shape, ndim = "torch.bfloat16", (4, 3), 2

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        raise TypeError("Got unsupported ScalarType BFloat16")

    def __dlpack__(self, **options: Any) -> Any:
        raise RuntimeError("Unsupported dtype in DLTensor.")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def detach(self) -> Tensor:
        return self

    cpu = detach

    def numpy(self) -> Any:
        return self.__array__()


@pytest.mark.parametrize("name", NAMES)
def test_tensors_that_numpy_cannot_read(name: str) -> None:
    call, beginning = calls(Tensor)[name]
    text = "must be readable by NumPy, got Tensor of torch.bfloat16: "
    with pytest.raises(TypeError, match=f"^{beginning} {text}"):
        call()


def test_labels_of_from_dataset() -> None:
    image = np.zeros((2, 2), np.uint8)
    for label in (2**63, np.uint64(2**63), 2**64 - 1):
        with raises(
            ValueError, f"from_dataset: label 0 must be in [-2**63, 2**63), got {int(label)}"
        ):
            cr.data.from_dataset([(image, label)])
    with pytest.raises(TypeError, match=r"^from_dataset: label 0 must be an integer, got "):
        cr.data.from_dataset([(image, 2**64)])
    with pytest.raises(TypeError, match=r"^from_dataset: label 0 must have no mask, "):
        cr.data.from_dataset([(image, np.ma.masked_array(1))])


def test_numpy_scalars() -> None:
    """They give the same layers as Python's numbers."""
    integer, real = np.int64(2), np.float32(0.5)
    assert cr.Linear(integer) == cr.Linear(2)
    assert cr.Conv2d(integer, integer, stride=integer, padding=integer) == cr.Conv2d(
        2, 2, stride=2, padding=2
    )
    assert cr.Conv2d(2, (integer, np.uint8(3))) == cr.Conv2d(2, (2, 3))
    assert cr.MaxPool2d(integer, (integer, integer)) == cr.MaxPool2d(2, 2)
    assert cr.Dropout(real) == cr.Dropout(0.5)
    assert cr.LeakyReLU(np.array(0.5)) == cr.LeakyReLU(0.5)
    assert cr.SGD(real, momentum=real, nesterov=np.True_) == cr.SGD(
        0.5, momentum=0.5, nesterov=True
    )
    assert cr.EarlyStopping(integer) == cr.EarlyStopping(2)
    assert cr.Cosine(real, final=real, warmup=real) == cr.Cosine(0.5, final=0.5, warmup=0.5)
    net = cr.Sequential(cr.Linear(2), input_shape=(integer,), seed=np.uint64(3), dtype=np.float64)
    assert (net.input_shape, net.seed, net.dtype) == ((2,), 3, np.float64)
    assert type(net.seed) is int
    assert type(cr.Linear(integer).out) is int
    assert type(cr.Dropout(real).rate) is float


@pytest.mark.parametrize(
    "value",
    [True, np.True_, np.complex64(1), np.array([0.5]), np.ma.masked, "0.5", np.str_("0.5"), None],
    ids=repr,
)
def test_no_numbers(value: Any) -> None:
    for owner, name, make in (
        ("Dropout", "rate", cr.Dropout),
        ("LeakyReLU", "slope", cr.LeakyReLU),
        ("GradientBelow", "eps", cr.GradientBelow),
    ):
        with pytest.raises(TypeError, match=f"^{owner}: {name} must (be a number|have no mask), "):
            make(value)


@pytest.mark.parametrize(
    "value", [True, np.True_, 2.0, np.float64(2), np.array([2]), np.ma.masked, "2", None], ids=repr
)
def test_no_integers(value: Any) -> None:
    for owner, name, make in (
        ("Linear", "out", cr.Linear),
        ("Conv2d", "stride", lambda v: cr.Conv2d(2, 2, stride=v)),
        ("MaxPool2d", "window", cr.MaxPool2d),
        ("EarlyStopping", "patience", cr.EarlyStopping),
    ):
        with pytest.raises(TypeError, match=f"^{owner}: {name} must (be an int|have no mask)"):
            make(value)


def test_classes_in_place_of_instances() -> None:
    """The message shows the class, and how to write an instance."""
    with raises(
        TypeError,
        "Sequential: layer 0 must be a layer (Linear, Conv2d, MaxPool2d, ReLU, LeakyReLU, Sigmoid, "
        "Tanh, GELU, Softmax, Dropout, Flatten), got "
        "<class 'chainrule.nn.layers.activations.ReLU'>: write ReLU(...)",
    ):
        cr.Sequential(cr.ReLU, input_shape=(3,))
    with pytest.raises(TypeError, match=r"loss must be .*CrossEntropy\(\).*, got <class "):
        fit(X, LABELS, cr.CrossEntropy)
    with pytest.raises(TypeError, match=r"loss must be .*CrossEntropy\(\).*, got <class "):
        network().loss_and_gradient(X, LABELS, cr.CrossEntropy)
    with pytest.raises(TypeError, match=r"optimizer must be .*SGD\(0.1\), got <class "):
        cr.fit(network(), (X, LABELS), loss=cr.CrossEntropy(), optimizer=cr.SGD, epochs=1)
    with pytest.raises(TypeError, match=r"^predict: x must be an array, got the class ndarray"):
        network().predict(np.ndarray)


def test_settings() -> None:
    for call, name in (
        (cr.set_backend, "name"),
        (cr.set_matmul_precision, "precision"),
        (cr.set_convolution_precision, "precision"),
    ):
        for value in (None, 1, cr.ReLU):
            with pytest.raises(TypeError, match=f"^{call.__name__}: {name} must be a string, got "):
                call(value)
    for wrong in (True, np.True_, 2.0, "2", np.array([2])):
        with pytest.raises(TypeError, match=r"^set_num_threads: n must be an integer, got "):
            cr.set_num_threads(wrong)
