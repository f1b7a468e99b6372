"""Arguments of other types: accepted as they are meant, or refused with their name."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from assertions import same_bits
from chainrule import ops
from op_contract import raises

# The checks are the same code for the GPU.
CPU_ONLY = True


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


X, W, LABELS = ones(2, 4, 4, 3), ones(5, 2, 2, 3), np.array([0, 1])
Y, ARGMAX = ops.max_pool2d(X, 2)
CONV = ops.conv2d(X, W)
POOLED = ops.conv2d_pooled(X, W, window=2)

# Operation -> its arrays by name. The rest are options.
ARRAYS: dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]] = {
    "matmul": ({"a": ones(2, 3), "b": ones(3, 4)}, {}),
    "linear": ({"x": ones(2, 3), "weight": ones(4, 3), "bias": ones(4)}, {}),
    "linear_backward": ({"dy": ones(2, 4), "x": ones(2, 3), "weight": ones(4, 3)}, {}),
    "relu": ({"x": X}, {}),
    "relu_backward": ({"dy": X, "y": X}, {}),
    "leaky_relu": ({"x": X}, {"slope": 0.5}),
    "leaky_relu_backward": ({"dy": X, "x": X}, {"slope": 0.5}),
    "sigmoid": ({"x": X}, {}),
    "sigmoid_backward": ({"dy": X, "y": X}, {}),
    "tanh": ({"x": X}, {}),
    "tanh_backward": ({"dy": X, "y": X}, {}),
    "gelu": ({"x": X}, {}),
    "gelu_backward": ({"dy": X, "x": X}, {}),
    "softmax": ({"x": X}, {}),
    "log_softmax": ({"x": X}, {}),
    "softmax_backward": ({"dy": X, "y": X}, {}),
    "softmax_cross_entropy": ({"logits": ones(2, 3), "labels": LABELS}, {}),
    "binary_cross_entropy": ({"logits": X, "target": X}, {}),
    "squared_error": ({"prediction": X, "target": X, "weight": ones(2)}, {}),
    "huber": ({"prediction": X, "target": X}, {}),
    "gather": ({"source": X, "indices": LABELS}, {}),
    "dropout": ({"x": X}, {"rate": 0.5, "seed": 1}),
    "dropout_backward": ({"dy": X}, {"rate": 0.5, "seed": 1}),
    "max_pool2d": ({"x": X}, {"window": 2}),
    "max_pool2d_backward": (
        {"dy": Y, "argmax": ARGMAX},
        {"input_shape": X.shape, "window": 2},
    ),
    "conv2d": ({"x": X, "weight": W, "bias": ones(5)}, {}),
    "conv2d_backward_input": ({"dy": CONV, "weight": W}, {"input_shape": X.shape}),
    "conv2d_backward_weight": ({"dy": CONV, "x": X}, {"kernel_size": 2}),
    "conv2d_pooled": ({"x": X, "weight": W, "bias": ones(5)}, {"window": 2}),
    "conv2d_pooled_backward_input": (
        {"dy": POOLED[0], "argmax": POOLED[1], "weight": W},
        {"input_shape": X.shape, "window": 2},
    ),
    "conv2d_pooled_backward_weight": (
        {"dy": POOLED[0], "argmax": POOLED[1], "x": X},
        {"kernel_size": 2, "window": 2},
    ),
    "sgd": ({"parameters": X, "gradient": X, "velocity": X}, {"learning_rate": 0.1}),
    "adam": (
        {"parameters": X, "gradient": X, "first_moment": X, "second_moment": X},
        {"learning_rate": 0.1, "step": 1},
    ),
}
EACH = pytest.mark.parametrize(
    ("op", "name"), [(op, name) for op, (arrays, _) in ARRAYS.items() for name in arrays]
)


def test_every_operation_is_here() -> None:
    assert set(ARRAYS) == set(ops.__all__)


def call_with(op: str, name: str, value: Any) -> Any:
    arrays, options = ARRAYS[op]
    copies = {key: array.copy() for key, array in arrays.items()}
    return getattr(ops, op)(**(copies | {name: value}), **options)


@EACH
def test_masked_arrays(op: str, name: str) -> None:
    """The mask would be lost: masked elements are often invalid values."""
    masked = np.ma.masked_array(ARRAYS[op][0][name].copy())
    masked[0] = np.ma.masked
    with raises(
        TypeError, f"{op}: {name} must have no mask, got a masked array: pass {name}.filled(value)"
    ):
        call_with(op, name, masked)


def test_classes_in_place_of_arrays() -> None:
    with raises(TypeError, "relu: x must be a float32 or float64 array, got the class ndarray"):
        ops.relu(np.ndarray)  # type: ignore[arg-type]


def test_masked_out() -> None:
    masked = np.ma.masked_array(X.copy())
    with raises(
        TypeError, "relu: out must have no mask, got a masked array: pass out.filled(value)"
    ):
        ops.relu(X, out=masked)


class Bfloat16:
    """A tensor whose dtype NumPy lacks, as PyTorch reports it."""

    dtype = "torch.bfloat16"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __dlpack__(self, **options: Any) -> Any:
        raise self.error

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


@EACH
@pytest.mark.parametrize("error", [RuntimeError, BufferError, TypeError, ValueError])
def test_errors_of_another_library(op: str, name: str, error: Any) -> None:
    if name in ("argmax",):  # the array that another operation returned
        pytest.skip("read without DLPack")
    text = "must be readable through DLPack, got Bfloat16 of torch.bfloat16: unsupported dtype"
    with raises(TypeError, f"{op}: {name} {text}"):
        call_with(op, name, Bfloat16(error("unsupported dtype")))


def test_exhausted_memory_of_another_library() -> None:
    with pytest.raises(MemoryError):
        ops.relu(Bfloat16(MemoryError()))
    with pytest.raises(KeyboardInterrupt):
        ops.relu(Bfloat16(KeyboardInterrupt()))  # type: ignore[arg-type]


@EACH
@pytest.mark.parametrize("kind", ["list", "float16", "longdouble", "big-endian", "structured"])
def test_other_types_of_arrays(op: str, name: str, kind: str) -> None:
    array = ARRAYS[op][0][name]
    values: dict[str, Any] = {
        "list": array.tolist(),
        "float16": array.astype(np.float16),
        "longdouble": array.astype(np.longdouble),
        "big-endian": array.astype(array.dtype.newbyteorder(">")),
        "structured": array.astype([("a", array.dtype)]),
    }
    if kind == "big-endian" and name in ("labels", "indices"):  # integers are converted
        assert equal(call_with(op, name, values[kind]), call_with(op, name, array))
        return
    with pytest.raises(TypeError, match=rf"^{op}: ({name} must be|\w+ and {name} must)"):
        call_with(op, name, values[kind])


@EACH
def test_read_only_and_subclasses(op: str, name: str) -> None:
    array = ARRAYS[op][0][name]
    if op not in ("sgd", "adam") or name == "gradient":
        frozen = array.copy()
        frozen.flags.writeable = False
        call_with(op, name, frozen)
    call_with(op, name, array.copy().view(np.recarray))


# Options -> a call, and the value as Python's own type


def adam(**options: Any) -> None:
    arrays = (X.copy(), X, X.copy(), X.copy())
    ops.adam(*arrays, **({"learning_rate": 1, "step": 1} | options))


NUMBERS: dict[str, tuple[Callable[[Any], Any], float]] = {
    "leaky_relu: slope": (lambda v: ops.leaky_relu(-X, v), 0.5),
    "huber: delta": (lambda v: ops.huber(X, X, v), 0.5),
    "dropout: rate": (lambda v: ops.dropout(X, v, seed=1), 0.5),
    "sgd: momentum": (lambda v: ops.sgd(X.copy(), X, X.copy(), learning_rate=1, momentum=v), 0.5),
    "sgd: l2": (lambda v: ops.sgd(X.copy(), X, learning_rate=1, l2=v), 0.5),
    "sgd: learning_rate": (lambda v: ops.sgd(X.copy(), X, learning_rate=v), 0.5),
    **{
        f"adam: {name}": (lambda v, name=name: adam(**{name: v}), 0.5)
        for name in ("learning_rate", "beta1", "beta2", "eps", "l2", "weight_decay")
    },
}
INTEGERS: dict[str, Callable[[Any], Any]] = {
    "adam: step": lambda v: adam(step=v),
    "dropout: seed": lambda v: ops.dropout(X, 0.5, seed=v),
    "dropout: offset": lambda v: ops.dropout(X, 0.5, seed=1, offset=v),
    "conv2d: stride": lambda v: ops.conv2d(X, W, stride=v),
    "conv2d: padding": lambda v: ops.conv2d(X, W, padding=v),
    "max_pool2d: window": lambda v: ops.max_pool2d(X, v),
}
BOOLEANS: dict[str, Callable[[Any], Any]] = {
    "matmul: transpose_a": lambda v: ops.matmul(ones(3, 3), ones(3, 3), transpose_a=v),
    "matmul: transpose_b": lambda v: ops.matmul(ones(3, 3), ones(3, 3), transpose_b=v),
    "linear_backward: need_dx": lambda v: ops.linear_backward(
        ones(2, 4), ones(2, 3), ones(4, 3), need_dx=v
    ),
    "sgd: nesterov": lambda v: ops.sgd(X.copy(), X, X.copy(), learning_rate=1, nesterov=v),
}


def equal(got: Any, want: Any) -> bool:
    if isinstance(got, tuple):
        return all(equal(one, other) for one, other in zip(got, want, strict=True))
    return (got is None and want is None) or same_bits(got, want)


@pytest.mark.parametrize("option", NUMBERS)
@pytest.mark.parametrize(
    "number",
    [np.float16, np.float32, np.float64, np.longdouble, np.array, Fraction],
    ids=lambda kind: kind.__name__,
)
def test_numbers(option: str, number: Any) -> None:
    call, value = NUMBERS[option]
    assert equal(call(number(value)), call(value))


@pytest.mark.parametrize("option", NUMBERS)
@pytest.mark.parametrize(
    "value",
    [True, np.True_, np.array(True), np.complex64(1), 1j, "0.5", np.str_("0.5"), None, ones(1),
     np.ma.masked, np.ma.masked_array(0.5), np.timedelta64(1, "s"), np.datetime64("2000"), float],
    ids=repr,
)  # fmt: skip
def test_no_numbers(option: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{option} must (be a number|have no mask), got "):
        NUMBERS[option][0](value)


@pytest.mark.parametrize("option", INTEGERS)
@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64, np.uint64, np.array])
def test_integers(option: str, kind: Any) -> None:
    assert equal(INTEGERS[option](kind(2)), INTEGERS[option](2))


@pytest.mark.parametrize("option", INTEGERS)
@pytest.mark.parametrize(
    "value",
    [True, np.True_, 2.0, np.float32(2), np.array(2.0), np.array([2, 2]), "2", None, int,
     np.ma.masked, np.ma.masked_array(2), np.timedelta64(1, "s")],
    ids=repr,
)  # fmt: skip
def test_no_integers(option: str, value: Any) -> None:
    # A string is a wrong value of `padding`, which may be "same".
    wrong = ValueError if isinstance(value, str) and option == "conv2d: padding" else TypeError
    with pytest.raises(wrong, match=f"^{option} must (be an integer|have no mask)"):
        INTEGERS[option](value)


@pytest.mark.parametrize("option", BOOLEANS)
def test_booleans(option: str) -> None:
    for value in (True, False):
        assert equal(BOOLEANS[option](np.bool(value)), BOOLEANS[option](value))
    for wrong in (1, 0, None, "yes", ones(1), np.float32(1), bool):
        with pytest.raises(TypeError, match=f"^{option} must be True or False, got "):
            BOOLEANS[option](wrong)
