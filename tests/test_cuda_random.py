"""Every operation on the GPU, at random shapes: what the CPU computes in float64, within the bounds
of the operations' own tests; and the same bits again, wherever the arrays lie.

CHAINRULE_CUDA_SHAPES says how many shapes an operation has in each dtype. Where the kernels run on
the CPU (tests/simt), they are fewer and smaller.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import pytest

from cases import EVERY, Conv, ConvPool, Pool, normal, outliers, seeded
from chainrule import cuda, ops
from checks import DTYPES, assert_close, same_bits
from contracts import Call, members
from test_conv2d_pooled import sparse
from test_dropout import RATES
from test_leaky_relu import TERMS as LEAKY_TERMS
from test_sgd import TERMS as SGD_TERMS
from test_softmax import EXP_TERMS, distance_to_maximum

pytestmark = pytest.mark.skipif(bool(cuda.why_off()), reason=f"no GPU to use: {cuda.why_off()}")

FIBERS = cuda.is_available() and cuda.description().startswith("fibers")
SHAPES = int(os.environ.get("CHAINRULE_CUDA_SHAPES", "3" if FIBERS else "200"))
# Sizes of an axis, most of them up to the first; multiply-adds; elements where there is no sum.
SMALL, LARGE, LONG = (40, 130, 700) if FIBERS else (70, 300, 6000)
MOST_WORK, MOST_ELEMENTS = (2**19, 2**13) if FIBERS else (2**25, 2**21)

Arrays = dict[str, np.ndarray]
Sizes = tuple[Any, ...]


@dataclass
class Case:
    """A call with what bounds the errors of its results; no ``terms``: they are the CPU's bits."""

    call: Call
    terms: tuple[float, ...] = ()
    # From the call in float64 and its results; by default the call of absolute values.
    magnitudes: Callable[[Call, Sizes], Sizes] = lambda call, _: on_cpu(absolute(call))
    underflows: bool = False


# Calls on the CPU and on the GPU


def in_float64(call: Call) -> Call:
    return replace(call, arrays=call.arrays | {n: a.astype("f8") for n, a in call.floats().items()})


def absolute(call: Call) -> Call:
    return replace(call, arrays=call.arrays | {n: np.abs(a) for n, a in call.floats().items()})


def written(arrays: dict[str, Any]) -> tuple[Any, ...]:
    """By ``sgd``."""
    return tuple(arrays[name] for name in ("parameters", "velocity") if name in arrays)


def on_cpu(call: Call) -> tuple[np.ndarray, ...]:
    if call.op != "sgd":
        return members(call())
    copies = {name: a.copy() for name, a in call.arrays.items()}
    call(**copies)
    return written(copies)


def placed(a: np.ndarray, before: int) -> cuda.Array:
    """``a`` on the GPU, ``before`` elements behind an aligned address, where its memory ends."""
    if a.nbytes == 0:
        return cuda.empty(a.shape, a.dtype)
    memory = cuda.empty(before * a.itemsize + a.nbytes, np.uint8)
    part = memory.part(before * a.itemsize, a.shape, a.dtype)
    part.fill(a)
    return part


def poison(like: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if like.dtype.kind == "f":
        return np.full(like.shape, np.nan, dtype)
    return np.full(like.shape, np.iinfo(like.dtype).max, like.dtype)


def on_gpu(call: Call, like: tuple[np.ndarray, ...], dtype: Any, before: Callable[[], int]) -> Any:
    """The results, written over poison; what is only read stays as it was."""
    arrays: dict[str, Any] = {name: placed(a, before()) for name, a in call.arrays.items()}
    if call.op == "sgd":
        call(**arrays)
        results = written(arrays)
    else:
        results = tuple(placed(poison(a, dtype), before()) for a in like)
        call(**arrays, out=results if len(like) > 1 else results[0])
    for name, a in call.arrays.items():
        if not any(arrays[name] is result for result in results):
            assert same_bits(arrays[name].numpy(), a), f"{name} was written to"
    return tuple(a.numpy() for a in results)


def with_one_nan(a: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(a), a.dtype.type(np.nan), a) if a.dtype.kind == "f" else a


def check(case: Case, rng: np.random.Generator) -> int:
    """How many elements of the results are not zero."""
    call = case.call
    dtype = next((a.dtype for a in call.floats().values()), None) or call.options["out"].dtype
    wide = in_float64(call)
    wants = on_cpu(wide) if case.terms else on_cpu(call)
    got = on_gpu(call, wants, dtype, lambda: 0)
    if case.terms:
        sizes = case.magnitudes(wide, wants)
        for g, want, size, terms in zip(got, wants, sizes, case.terms, strict=False):
            options = {"may_vanish": True, "underflows": case.underflows}
            assert_close(g, want, dtype=dtype, terms=terms, magnitude=size, **options)
    else:
        for g, want in zip(got, wants, strict=True):
            assert same_bits(with_one_nan(g), with_one_nan(want)), "other bits than the CPU's"
    again = on_gpu(call, wants, dtype, lambda: int(rng.integers(0, 4)))
    assert same_bits(again, got), "other bits where the arrays lie elsewhere"
    return sum(np.count_nonzero(want) for want in wants)


# Random shapes


def size(rng: np.random.Generator) -> int:
    kind = rng.random()
    if kind < 0.04:
        return 0
    if kind < 0.15:
        return int(rng.integers(SMALL, LARGE if kind < 0.12 else LONG))
    return int(rng.integers(1, SMALL + 1))


def sizes(rng: np.random.Generator, count: int, most: int = MOST_WORK) -> tuple[int, ...]:
    while True:
        drawn = tuple(size(rng) for _ in range(count))
        if prod(max(1, n) for n in drawn) <= most:
            return drawn


def any_shape(rng: np.random.Generator) -> tuple[int, ...]:
    return sizes(rng, int(rng.integers(1, 5)), MOST_ELEMENTS)


def finite(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return (normal if rng.random() < 0.7 else outliers)(rng, shape, dtype)


def every(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return EVERY[str(rng.choice(list(EVERY)))](rng, shape, dtype)


def chance(rng: np.random.Generator) -> bool:
    return bool(rng.random() < 0.5)


def one_of(rng: np.random.Generator, *values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def pair(rng: np.random.Generator, least: int, most: int) -> tuple[int, int]:
    return int(rng.integers(least, most + 1)), int(rng.integers(least, most + 1))


def outputs(case: Conv) -> tuple[int, int, int, int]:
    """Of the convolution; nothing positive where the kernel does not fit."""
    pads = (
        (case.r - 1, case.s - 1) if case.padding == "same" else 2 * np.broadcast_to(case.padding, 2)
    )
    inside = np.array([case.h - case.r, case.w - case.s]) + pads
    rows, columns = inside // np.broadcast_to(case.stride, 2) + 1
    return case.n, int(rows), int(columns), case.k


def convolution(rng: np.random.Generator) -> Conv:
    while True:
        r, s = one_of(rng, (1, 1), (3, 3), (5, 5), (3, 3), pair(rng, 1, 5), pair(rng, 1, 9))
        stride = one_of(rng, 1, 1, 1, 2, 3, pair(rng, 1, 4))
        padding = one_of(rng, 0, 0, 1, "same" if stride == 1 else 2, pair(rng, 0, 3))
        n, (h, w) = int(rng.integers(0, 6)), sizes(rng, 2)
        c = int(rng.integers(1, 5)) if rng.random() < 0.4 else size(rng)
        case = Conv(n, h, w, c, size(rng), r, s, stride, padding)
        _, rows, columns, _ = outputs(case)
        work = max(1, n) * rows * columns * max(1, case.k) * r * s * max(1, c)
        if min(h, w, rows, columns) > 0 and work <= MOST_WORK:
            return case


def pooled_convolution(rng: np.random.Generator) -> ConvPool:
    while True:
        case = ConvPool(**vars(convolution(rng)))
        window = one_of(rng, 2, 2, (1, 4), (4, 1), 3, pair(rng, 1, 6))
        rows, columns = np.broadcast_to(window, 2)
        if rows <= outputs(case)[1] and columns <= outputs(case)[2]:
            return replace(case, window=window)


def pooling(rng: np.random.Generator) -> Pool:
    """Windows side by side, overlapping, and with gaps between them."""
    while True:
        n, (h, w, c) = int(rng.integers(0, 6)), sizes(rng, 3, MOST_ELEMENTS)
        window = one_of(rng, 2, 3, pair(rng, 1, 5))
        rows, columns = np.broadcast_to(window, 2)
        if h >= rows and w >= columns and n * h * w * c <= MOST_ELEMENTS:
            return Pool(n, h, w, c, window, one_of(rng, None, 1, 2, pair(rng, 1, 7)))


# One case of each operation


def matmul(rng: np.random.Generator, dtype: Any) -> Case:
    m, n, k = sizes(rng, 3)
    flags = {"transpose_a": chance(rng), "transpose_b": chance(rng)}
    a = finite(rng, (k, m) if flags["transpose_a"] else (m, k), dtype)
    b = finite(rng, (n, k) if flags["transpose_b"] else (k, n), dtype)
    return Case(Call("matmul", {"a": a, "b": b}, flags), (k,))


def linear(rng: np.random.Generator, dtype: Any) -> Case:
    n, inputs, outputs = sizes(rng, 3)
    shapes = {"x": (n, inputs), "weight": (outputs, inputs), "bias": (outputs,)}
    arrays = {name: finite(rng, shape, dtype) for name, shape in shapes.items()}
    if chance(rng):
        del arrays["bias"]
    return Case(Call("linear", arrays, {"activation": one_of(rng, None, "relu")}), (inputs + 1,))


def linear_backward(rng: np.random.Generator, dtype: Any) -> Case:
    n, inputs, outputs = sizes(rng, 3)
    shapes = {"dy": (n, outputs), "x": (n, inputs), "weight": (outputs, inputs)}
    arrays = {name: finite(rng, shape, dtype) for name, shape in shapes.items()}
    return Case(Call("linear_backward", arrays), (outputs, n, n))


def gather(rng: np.random.Generator, dtype: Any) -> Case:
    rows, columns, count = sizes(rng, 3, MOST_ELEMENTS)
    shape = one_of(rng, (rows + 1,), (rows + 1, columns), (rows + 1, columns, 3))
    arrays = {"indices": rng.integers(0, rows + 1, count)}
    if chance(rng):
        return Case(Call("gather", {"source": every(rng, shape, dtype), **arrays}))
    source = rng.integers(0, 256, shape, dtype=np.uint8)
    out = np.empty((count, *shape[1:]), dtype)
    return Case(Call("gather", {"source": source, **arrays}, {"out": out}))


def relu(rng: np.random.Generator, dtype: Any) -> Case:
    return Case(Call("relu", {"x": every(rng, any_shape(rng), dtype)}))


def relu_backward(rng: np.random.Generator, dtype: Any) -> Case:
    shape = any_shape(rng)
    return Case(Call("relu_backward", {n: every(rng, shape, dtype) for n in ("dy", "y")}))


def leaky_relu(rng: np.random.Generator, dtype: Any) -> Case:
    arrays = {"x": finite(rng, any_shape(rng), dtype)}
    call = Call("leaky_relu", arrays, {"slope": one_of(rng, 0.01, 0.0, -0.5, 2.5)})
    return Case(call, (LEAKY_TERMS,), of_results)


def leaky_relu_backward(rng: np.random.Generator, dtype: Any) -> Case:
    shape = any_shape(rng)
    arrays = {name: finite(rng, shape, dtype) for name in ("dy", "x")}
    call = Call("leaky_relu_backward", arrays, {"slope": one_of(rng, 0.01, 0.0, -0.5, 2.5)})
    return Case(call, (LEAKY_TERMS,), of_results)


def of_results(_: Call, wants: Sizes) -> Sizes:
    return tuple(map(np.abs, wants))


def rows_of(rng: np.random.Generator) -> tuple[int, ...]:
    rows, columns = sizes(rng, 2, MOST_ELEMENTS)
    return one_of(rng, (rows, columns), (columns,), (2, rows, columns))


def softmax(rng: np.random.Generator, dtype: Any) -> Case:
    x = finite(rng, rows_of(rng), dtype)

    def magnitudes(_: Call, wants: Sizes) -> Sizes:
        return (wants[0] * (1 + distance_to_maximum(x)),)

    return Case(Call("softmax", {"x": x}), (x.shape[-1] + EXP_TERMS,), magnitudes, underflows=True)


def log_softmax(rng: np.random.Generator, dtype: Any) -> Case:
    x = finite(rng, rows_of(rng), dtype)

    def magnitudes(*_: Any) -> Sizes:
        return (distance_to_maximum(x) + np.log(max(x.shape[-1], 1)) + 1,)

    return Case(Call("log_softmax", {"x": x}), (x.shape[-1] + EXP_TERMS,), magnitudes)


def softmax_backward(rng: np.random.Generator, dtype: Any) -> Case:
    shape = rows_of(rng)
    dy, x = finite(rng, shape, dtype), finite(rng, shape, dtype)
    y = ops.softmax(x) if chance(rng) else x

    def magnitudes(call: Call, _: Sizes) -> Sizes:
        dy, y = (np.abs(call.arrays[name]) for name in ("dy", "y"))
        return (y * (dy + (dy * y).sum(axis=-1, keepdims=True)),)

    return Case(Call("softmax_backward", {"dy": dy, "y": y}), (shape[-1] + 2,), magnitudes)


def softmax_cross_entropy(rng: np.random.Generator, dtype: Any) -> Case:
    rows, columns = sizes(rng, 2, MOST_ELEMENTS)
    logits, labels = finite(rng, (rows, columns + 1), dtype), rng.integers(0, columns + 1, rows)

    def magnitudes(call: Call, _: Sizes) -> Sizes:
        distance, at = distance_to_maximum(logits), (np.arange(rows), labels)
        size = ops.softmax(call.arrays["logits"]) * (1 + distance)
        size[at] += 1
        return distance[at] + np.log(columns + 1) + 1, size / max(rows, 1)

    terms = (columns + 1 + EXP_TERMS,) * 2
    call = Call("softmax_cross_entropy", {"logits": logits, "labels": labels})
    return Case(call, terms, magnitudes, underflows=True)


def squared_error(rng: np.random.Generator, dtype: Any) -> Case:
    shape = any_shape(rng)
    arrays = {name: finite(rng, shape, dtype) for name in ("prediction", "target")}
    return Case(Call("squared_error", arrays), (prod(shape[1:]) + 2, 3), of_results)


def conv2d(rng: np.random.Generator, dtype: Any) -> Case:
    case = convolution(rng)
    arrays = images(rng, case, dtype)
    options = case.options | {"activation": one_of(rng, None, "relu")}
    return Case(Call("conv2d", arrays, options), (case.r * case.s * case.c + 1,))


def images(rng: np.random.Generator, case: Conv, dtype: Any) -> Arrays:
    shapes = {"x": case.x, "weight": case.weight, "bias": (case.k,)}
    arrays = {name: finite(rng, shape, dtype) for name, shape in shapes.items()}
    if chance(rng):
        del arrays["bias"]
    return arrays


def conv2d_backward_input(rng: np.random.Generator, dtype: Any) -> Case:
    case = convolution(rng)
    shapes = {"dy": outputs(case), "weight": case.weight}
    arrays = {name: finite(rng, shape, dtype) for name, shape in shapes.items()}
    call = Call("conv2d_backward_input", arrays, case.options | {"input_shape": case.x})
    return Case(call, (case.r * case.s * case.k,))


def conv2d_backward_weight(rng: np.random.Generator, dtype: Any) -> Case:
    case = convolution(rng)
    shape = outputs(case)
    arrays = {"dy": finite(rng, shape, dtype), "x": finite(rng, case.x, dtype)}
    options = case.options | {"kernel_size": (case.r, case.s)}
    return Case(Call("conv2d_backward_weight", arrays, options), (prod(shape[:3]),) * 2)


def conv2d_pooled(rng: np.random.Generator, dtype: Any) -> Case:
    """Near ties may fall otherwise than in float64, so `test_pooled_at_once` checks the places."""
    case = pooled_convolution(rng)
    arrays = images(rng, case, dtype)
    options = case.options | {"window": case.window, "activation": one_of(rng, None, "relu")}
    return Case(Call("conv2d_pooled", arrays, options), (case.r * case.s * case.c + 1,))


def pooled_gradient(rng: np.random.Generator, case: ConvPool, dtype: Any) -> Arrays:
    rows, columns = np.broadcast_to(case.window, 2)
    n, height, width, k = outputs(case)
    shape = (n, height // rows, width // columns, k)
    places = rng.integers(0, rows * columns, shape, dtype=np.uint16)
    return {"dy": one_of(rng, finite, sparse)(rng, shape, dtype), "argmax": places}


def conv2d_pooled_backward_input(rng: np.random.Generator, dtype: Any) -> Case:
    case = pooled_convolution(rng)
    arrays = pooled_gradient(rng, case, dtype) | {"weight": finite(rng, case.weight, dtype)}
    options = case.options | {"window": case.window, "input_shape": case.x}
    terms = case.r * case.s * case.k
    return Case(Call("conv2d_pooled_backward_input", arrays, options), (terms,))


def conv2d_pooled_backward_weight(rng: np.random.Generator, dtype: Any) -> Case:
    case = pooled_convolution(rng)
    arrays = pooled_gradient(rng, case, dtype) | {"x": finite(rng, case.x, dtype)}
    options = case.options | {"window": case.window, "kernel_size": (case.r, case.s)}
    terms = prod(arrays["dy"].shape[:3])
    return Case(Call("conv2d_pooled_backward_weight", arrays, options), (terms,) * 2)


def max_pool2d(rng: np.random.Generator, dtype: Any) -> Case:
    case = pooling(rng)
    options = {"window": case.window, "stride": case.stride}
    return Case(Call("max_pool2d", {"x": every(rng, case.x, dtype)}, options))


def max_pool2d_backward(rng: np.random.Generator, dtype: Any) -> Case:
    case = pooling(rng)
    options: dict[str, Any] = {"window": case.window, "stride": case.stride}
    y, argmax = ops.max_pool2d(finite(rng, case.x, dtype), **options)
    options["input_shape"] = case.x
    arrays = {"dy": finite(rng, y.shape, dtype), "argmax": argmax}
    return Case(
        Call("max_pool2d_backward", arrays, options), (prod(np.broadcast_to(case.window, 2)),)
    )


def mask(rng: np.random.Generator) -> dict[str, Any]:
    seed, offset = (int(rng.integers(0, 2**64, dtype=np.uint64)) for _ in range(2))
    return {"rate": one_of(rng, *RATES), "seed": seed, "offset": offset}


def dropout(rng: np.random.Generator, dtype: Any) -> Case:
    return Case(Call("dropout", {"x": every(rng, any_shape(rng), dtype)}, mask(rng)))


def dropout_backward(rng: np.random.Generator, dtype: Any) -> Case:
    return Case(Call("dropout_backward", {"dy": every(rng, any_shape(rng), dtype)}, mask(rng)))


def sgd(rng: np.random.Generator, dtype: Any) -> Case:
    shape = any_shape(rng)
    names = ("parameters", "gradient", "velocity")
    arrays = {name: finite(rng, shape, dtype) for name in names}
    options = {"learning_rate": one_of(rng, 0.1, -0.5), "l2": one_of(rng, 0.0, 0.01)}
    if chance(rng):
        options |= {"momentum": 0.9, "nesterov": chance(rng)}
    elif chance(rng):
        del arrays["velocity"]

    def magnitudes(call: Call, _: Sizes) -> Sizes:
        uphill = {"learning_rate": -abs(call.options["learning_rate"])}
        return on_cpu(absolute(replace(call, options=call.options | uphill)))

    return Case(Call("sgd", arrays, options), (SGD_TERMS,) * 2, magnitudes)


CASES: list[Callable[[np.random.Generator, Any], Case]] = [
    *(matmul, linear, linear_backward, gather, relu, relu_backward),
    *(leaky_relu, leaky_relu_backward, softmax, log_softmax, softmax_backward),
    *(softmax_cross_entropy, squared_error, conv2d, conv2d_backward_input, conv2d_backward_weight),
    *(conv2d_pooled, conv2d_pooled_backward_input, conv2d_pooled_backward_weight),
    *(max_pool2d, max_pool2d_backward, dropout, dropout_backward, sgd),
]


def test_no_operation_is_left_out() -> None:
    assert sorted(case.__name__ for case in CASES) == sorted(ops.__all__)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("made", CASES, ids=lambda case: case.__name__)
def test_as_on_the_cpu(made: Callable[[np.random.Generator, Any], Case], dtype: np.dtype) -> None:
    found = 0
    for i in range(SHAPES):
        rng = seeded(made.__name__, i)
        case = made(rng, dtype)
        try:
            found += check(case, rng)
        except AssertionError as error:
            shapes = {name: a.shape for name, a in case.call.arrays.items()}
            options = {n: o for n, o in case.call.options.items() if n != "out"}
            raise AssertionError(f"shape {i}: {shapes}, {options}: {error}") from None
    assert found or not SHAPES, "every result was zero or empty"


@pytest.mark.parametrize("dtype", DTYPES)
def test_pooled_at_once(dtype: np.dtype) -> None:
    """The places of the maxima, and their bits, are those of the convolution pooled behind it."""
    for i in range(SHAPES):
        rng = seeded("at once", i)
        case = pooled_convolution(rng)
        arrays = {name: cuda.array(a) for name, a in images(rng, case, dtype).items()}
        options = case.options | {"activation": one_of(rng, None, "relu")}
        got = ops.conv2d_pooled(**arrays, **options, window=case.window)
        want = ops.max_pool2d(ops.conv2d(**arrays, **options), case.window)
        for one, other in zip(got, want, strict=True):
            assert same_bits(one.numpy(), other.numpy()), f"shape {i}: {case}"
