"""Random calls of every operation, with the error bounds of their results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from cases import (
    ADAM_STEPS,
    ADAM_TERMS,
    DROPOUT_RATES,
    EVERY,
    EXP_TERMS,
    LEAKY_SLOPES,
    LEAKY_TERMS,
    SGD_STEPS,
    SGD_TERMS,
    SMOOTH_ACTIVATIONS,
    SMOOTH_TERMS,
    Conv,
    ConvPool,
    Pool,
    adam_magnitudes,
    distance_to_maximum,
    mostly_zero,
    normal,
    outliers,
    seeded,
)
from chainrule import ops
from op_contract import Call, members

Arrays = dict[str, np.ndarray]
Results = tuple[np.ndarray, ...]
Shape = tuple[int, ...]


# Calls and their bounds


def absolute(call: Call) -> Call:
    return replace(call, arrays=call.arrays | {n: np.abs(a) for n, a in call.floats().items()})


# Arrays that an operation changes, in the order of the reference's results.
UPDATED = {
    "sgd": ("parameters", "velocity"),
    "adam": ("parameters", "first_moment", "second_moment"),
}


def written(call: Call, arrays: dict[str, Any]) -> tuple[Any, ...]:
    """Return the arrays that the call changes."""
    return tuple(arrays[name] for name in UPDATED.get(call.op, ()) if name in arrays)


def on_cpu(call: Call) -> Results:
    """Return the results on the CPU, or the written arrays, on copies."""
    copies = {name: a.copy() for name, a in call.arrays.items()}
    result = call(**copies)
    return written(call, copies) or members(result)


@dataclass
class Case:
    """A call and its error bound. Without ``terms`` nothing is summed, and bits equal the CPU's.

    ``magnitudes`` are computed from the call and its results, both in float64.
    """

    call: Call
    terms: tuple[float, ...] = ()
    magnitudes: Callable[[Call, Results], Results] = lambda call, _: on_cpu(absolute(call))
    underflows: bool = False


def of_results(_: Call, results: Results) -> Results:
    """Return the magnitudes of results without cancellation."""
    return tuple(map(np.abs, results))


# Random arguments


@dataclass
class Limits:
    """Largest axes: of most, some and few calls; of multiply-adds, and of elements without them."""

    small: int
    large: int
    long: int
    work: int
    elements: int


class Draw:
    """Random sizes, arrays and choices from a seed."""

    def __init__(self, limits: Limits, dtype: Any, *key: Any) -> None:
        self.limits, self.dtype, self.rng = limits, dtype, seeded(*key)

    def integer(self, least: int, most: int) -> int:
        return int(self.rng.integers(least, most + 1))

    def pair(self, least: int, most: int) -> tuple[int, int]:
        return self.integer(least, most), self.integer(least, most)

    def one_of(self, *values: Any) -> Any:
        return values[self.integer(0, len(values) - 1)]

    def size(self) -> int:
        kind = self.rng.random()
        if kind < 0.04:
            return 0
        if kind < 0.12:
            return self.integer(self.limits.small, self.limits.large)
        if kind < 0.15:
            return self.integer(self.limits.large, self.limits.long)
        if kind < 0.4:
            return 4 * self.integer(1, self.limits.small // 4)  # sizes that allow loads of 16 bytes
        return self.integer(1, self.limits.small)

    def sizes(self, count: int, most: int) -> Shape:
        while True:
            drawn = tuple(self.size() for _ in range(count))
            if prod(max(1, n) for n in drawn) <= most:
                return drawn

    def shape(self) -> Shape:
        return self.sizes(self.integer(1, 4), self.limits.elements)

    def images(self) -> tuple[int, int, int]:
        """Return batch, rows and columns: few images, or many small ones."""
        if self.integer(1, 8) == 1:
            return self.integer(50, 500), *self.pair(1, 9)
        batch = 0 if self.rng.random() < 0.04 else self.integer(1, 5)
        return batch, *self.sizes(2, self.limits.elements)

    def finite(self, shape: Shape) -> np.ndarray:
        return self.one_of(normal, normal, outliers)(self.rng, shape, self.dtype)

    def every(self, shape: Shape) -> np.ndarray:
        return self.one_of(*EVERY.values())(self.rng, shape, self.dtype)

    def arrays(self, **shapes: Shape) -> Arrays:
        return {name: self.finite(shape) for name, shape in shapes.items()}

    def without(self, name: str, arrays: Arrays) -> Arrays:
        """Omit an argument in half of the calls."""
        return {n: a for n, a in arrays.items() if n != name or self.one_of(False, True)}


def outputs(case: Conv) -> tuple[int, int, int, int]:
    """Return the output sizes of a convolution; not positive if the filter does not fit."""
    filters, steps = (case.r, case.s), np.broadcast_to(case.stride, 2)
    same = case.padding == "same"
    pads = np.subtract(filters, 1) if same else 2 * np.broadcast_to(case.padding, 2)
    rows, columns = (np.subtract((case.h, case.w), filters) + pads) // steps + 1
    return case.n, int(rows), int(columns), case.k


def convolution(draw: Draw) -> Conv:
    """Return a random convolution, as often with few channels as with many."""
    while True:
        r, s = draw.one_of((1, 1), (3, 3), (3, 3), (5, 5), draw.pair(1, 5), draw.pair(1, 9))
        stride = draw.one_of(1, 1, 1, 2, 3, draw.pair(1, 4))
        padding = draw.one_of(0, 0, 1, 2, draw.pair(0, 3), "same" if stride == 1 else 0)
        n, h, w = draw.images()
        c, k = draw.one_of(draw.integer(1, 4), draw.size()), draw.size()
        case = Conv(n, h, w, c, k, r, s, stride, padding)
        _, rows, columns, _ = outputs(case)
        work = prod(max(1, a) for a in (n, rows, columns, k, r, s, c))
        if min(h, w, rows, columns) > 0 and work <= draw.limits.work:
            return case


def pooled_convolution(draw: Draw) -> ConvPool:
    while True:
        case = ConvPool(**vars(convolution(draw)))
        window = draw.one_of(2, 2, 3, (1, 4), (4, 1), draw.pair(1, 6))
        if np.all(np.less_equal(window, outputs(case)[1:3])):
            return replace(case, window=window)


def pooling(draw: Draw) -> Pool:
    """Return a random pooling: adjacent windows, overlapping ones, and ones with gaps."""
    while True:
        (n, h, w), c = draw.images(), draw.size()
        window = draw.one_of(2, 3, draw.pair(1, 5))
        if n * h * w * c <= draw.limits.elements and np.all(np.less_equal(window, (h, w))):
            return Pool(n, h, w, c, window, draw.one_of(None, 1, 2, draw.pair(1, 7)))


# A case of each operation


def matmul(draw: Draw) -> Case:
    m, n, k = draw.sizes(3, draw.limits.work)
    a, b = draw.one_of((m, k), (k, m)), draw.one_of((k, n), (n, k))
    flags = {"transpose_a": a != (m, k), "transpose_b": b != (k, n)}
    return Case(Call("matmul", draw.arrays(a=a, b=b), flags), (k,))


def linear(draw: Draw) -> Case:
    n, inputs, units = draw.sizes(3, draw.limits.work)
    arrays = draw.arrays(x=(n, inputs), weight=(units, inputs), bias=(units,))
    options = {"activation": draw.one_of(None, "relu")}
    return Case(Call("linear", draw.without("bias", arrays), options), (inputs + 1,))


def linear_backward(draw: Draw) -> Case:
    n, inputs, units = draw.sizes(3, draw.limits.work)
    arrays = draw.arrays(dy=(n, units), x=(n, inputs), weight=(units, inputs))
    return Case(Call("linear_backward", arrays), (units, n, n))


def gather(draw: Draw) -> Case:
    rows, columns, count = draw.sizes(3, draw.limits.elements)
    rows += 1
    shape = draw.one_of((rows,), (rows, columns), (rows, columns, 3))
    indices = draw.rng.integers(0, rows, count)
    if draw.one_of(False, True):
        return Case(Call("gather", {"source": draw.every(shape), "indices": indices}))
    source = draw.rng.integers(0, 256, shape, dtype=np.uint8)
    out = np.empty((count, *shape[1:]), draw.dtype)
    return Case(Call("gather", {"source": source, "indices": indices}, {"out": out}))


def relu(draw: Draw) -> Case:
    return Case(Call("relu", {"x": draw.every(draw.shape())}))


def relu_backward(draw: Draw) -> Case:
    shape = draw.shape()
    return Case(Call("relu_backward", {"dy": draw.every(shape), "y": draw.every(shape)}))


def leaky_relu(draw: Draw) -> Case:
    call = Call("leaky_relu", draw.arrays(x=draw.shape()), {"slope": draw.one_of(*LEAKY_SLOPES)})
    return Case(call, (LEAKY_TERMS,), of_results)


def leaky_relu_backward(draw: Draw) -> Case:
    shape = draw.shape()
    options = {"slope": draw.one_of(*LEAKY_SLOPES)}
    call = Call("leaky_relu_backward", draw.arrays(dy=shape, x=shape), options)
    return Case(call, (LEAKY_TERMS,), of_results)


def smooth_activation(op: str) -> list[Callable[[Draw], Case]]:
    """Return the cases of a smooth activation and of its backward pass."""

    def forward(draw: Draw) -> Case:
        return Case(Call(op, draw.arrays(x=draw.shape())), (SMOOTH_TERMS,), of_results)

    def backward(draw: Draw) -> Case:
        def magnitudes(call: Call, _: Results) -> Results:
            return (np.abs(call.arrays["dy"]) * (1 + np.abs(call.arrays[saved])) ** 2,)

        shape, (saved, _) = draw.shape(), SMOOTH_ACTIVATIONS[op]
        arrays = draw.arrays(**{"dy": shape, saved: shape})
        return Case(Call(f"{op}_backward", arrays), (SMOOTH_TERMS,), magnitudes)

    forward.__name__, backward.__name__ = op, f"{op}_backward"
    return [forward, backward]


def rows_of(draw: Draw) -> Shape:
    """Return random rows, some of them too long for the registers of a block."""
    if draw.integer(1, 8) == 1:
        return draw.integer(1, 3), draw.integer(8000, 40000)
    rows, columns = draw.sizes(2, draw.limits.elements)
    return draw.one_of((rows, columns), (columns,), (2, rows, columns))


def softmax(draw: Draw) -> Case:
    def magnitudes(call: Call, results: Results) -> Results:
        return (results[0] * (1 + distance_to_maximum(call.arrays["x"])),)

    shape = rows_of(draw)
    call = Call("softmax", draw.arrays(x=shape))
    return Case(call, (shape[-1] + EXP_TERMS,), magnitudes, underflows=True)


def log_softmax(draw: Draw) -> Case:
    def magnitudes(call: Call, _: Results) -> Results:
        return (distance_to_maximum(call.arrays["x"]) + np.log(max(shape[-1], 1)) + 1,)

    shape = rows_of(draw)
    return Case(Call("log_softmax", draw.arrays(x=shape)), (shape[-1] + EXP_TERMS,), magnitudes)


def softmax_backward(draw: Draw) -> Case:
    def magnitudes(call: Call, _: Results) -> Results:
        dy, y = (np.abs(call.arrays[name]) for name in ("dy", "y"))
        return (y * (dy + (dy * y).sum(axis=-1, keepdims=True)),)

    shape = rows_of(draw)
    arrays = draw.arrays(dy=shape, y=shape)
    if draw.one_of(False, True):
        arrays["y"] = ops.softmax(arrays["y"])
    return Case(Call("softmax_backward", arrays), (shape[-1] + 2,), magnitudes)


def softmax_cross_entropy(draw: Draw) -> Case:
    def magnitudes(call: Call, _: Results) -> Results:
        logits = call.arrays["logits"]
        distance, at = distance_to_maximum(logits), (np.arange(rows), labels)
        size = ops.softmax(logits) * (1 + distance)
        size[at] += 1
        weight = np.abs(call.arrays.get("weight", np.ones(rows)))
        size *= weight[:, None] / call.options.get("instances", max(rows, 1))
        return weight * (distance[at] + np.log(columns) + 1), size

    *batch, columns = rows_of(draw)
    rows, columns = prod(batch), columns + 1
    labels = draw.rng.integers(0, columns, rows)
    call = Call("softmax_cross_entropy", draw.arrays(logits=(rows, columns)) | {"labels": labels})
    call = weighted(draw, call, rows)
    return Case(call, (columns + EXP_TERMS,) * 2, magnitudes, underflows=True)


def weighted(draw: Draw, call: Call, rows: int) -> Call:
    """Return a call of a loss with weights and a divisor, or without."""
    if draw.one_of(False, True):
        return call
    arrays = call.arrays | draw.arrays(weight=(rows,))
    return replace(call, arrays=arrays, options=call.options | {"instances": draw.one_of(1, 7.5)})


def squared_error(draw: Draw) -> Case:
    shape = draw.one_of(draw.shape(), rows_of(draw))
    call = Call("squared_error", draw.arrays(prediction=shape, target=shape))
    return Case(weighted(draw, call, shape[0]), (prod(shape[1:]) + 4, 5), of_results)


def huber(draw: Draw) -> Case:
    shape, delta = draw.one_of(draw.shape(), rows_of(draw)), draw.one_of(0.25, 1.0, 10.0)
    call = Call("huber", draw.arrays(prediction=shape, target=shape), {"delta": delta})
    return Case(weighted(draw, call, shape[0]), (prod(shape[1:]) + 6, 5), of_results)


def binary_cross_entropy(draw: Draw) -> Case:
    def magnitudes(call: Call, _: Results) -> Results:
        z, t = np.abs(call.arrays["logits"]), call.arrays["target"]
        weight = np.abs(call.arrays.get("weight", np.ones(len(z))))
        size = 1 + np.abs(t) + (1 + np.abs(t)) * z
        each = weight.reshape(-1, *[1] * (z.ndim - 1)) * size
        divisor = call.options.get("instances", max(len(z), 1))
        return each.reshape(len(z), -1).sum(axis=1) if each.size else weight, each / divisor

    shape = draw.one_of(draw.shape(), rows_of(draw))
    call = Call("binary_cross_entropy", draw.arrays(logits=shape, target=shape))
    terms = (prod(shape[1:]) + EXP_TERMS, EXP_TERMS)
    return Case(weighted(draw, call, shape[0]), terms, magnitudes, underflows=True)


def filtered(draw: Draw, case: Conv) -> Call:
    arrays = draw.arrays(x=case.x, weight=case.weight, bias=(case.k,))
    options = case.options | {"activation": draw.one_of(None, "relu")}
    return Call("conv2d", draw.without("bias", arrays), options)


def conv2d(draw: Draw) -> Case:
    case = convolution(draw)
    return Case(filtered(draw, case), (case.r * case.s * case.c + 1,))


def conv2d_backward_input(draw: Draw) -> Case:
    case = convolution(draw)
    options = case.options | {"input_shape": case.x}
    arrays = draw.arrays(dy=outputs(case), weight=case.weight)
    return Case(Call("conv2d_backward_input", arrays, options), (case.r * case.s * case.k,))


def conv2d_backward_weight(draw: Draw) -> Case:
    case = convolution(draw)
    options = case.options | {"kernel_size": (case.r, case.s)}
    arrays = draw.arrays(dy=outputs(case), x=case.x)
    terms = prod(outputs(case)[:3])
    return Case(Call("conv2d_backward_weight", arrays, options), (terms, terms))


def conv2d_pooled(draw: Draw) -> Case:
    """argmax is not compared: of two nearly equal elements either may be the largest."""
    case = pooled_convolution(draw)
    call = filtered(draw, case)
    pooled = Call("conv2d_pooled", call.arrays, call.options | {"window": case.window})
    return Case(pooled, (case.r * case.s * case.c + 1,))


def pooled_gradient(draw: Draw, case: ConvPool) -> Arrays:
    rows, columns = np.broadcast_to(case.window, 2)
    n, height, width, k = outputs(case)
    shape = (n, height // rows, width // columns, k)
    places = draw.rng.integers(0, rows * columns, shape, dtype=np.uint16)
    dy = draw.one_of(draw.finite(shape), mostly_zero(draw.rng, shape, draw.dtype))
    return {"dy": dy, "argmax": places}


def conv2d_pooled_backward_input(draw: Draw) -> Case:
    case = pooled_convolution(draw)
    options = case.options | {"window": case.window, "input_shape": case.x}
    arrays = pooled_gradient(draw, case) | draw.arrays(weight=case.weight)
    return Case(Call("conv2d_pooled_backward_input", arrays, options), (case.r * case.s * case.k,))


def conv2d_pooled_backward_weight(draw: Draw) -> Case:
    case = pooled_convolution(draw)
    options = case.options | {"window": case.window, "kernel_size": (case.r, case.s)}
    arrays = pooled_gradient(draw, case) | draw.arrays(x=case.x)
    terms = prod(arrays["dy"].shape[:3])
    return Case(Call("conv2d_pooled_backward_weight", arrays, options), (terms, terms))


def max_pool2d(draw: Draw) -> Case:
    case = pooling(draw)
    options = {"window": case.window, "stride": case.stride}
    return Case(Call("max_pool2d", {"x": draw.every(case.x)}, options))


def max_pool2d_backward(draw: Draw) -> Case:
    case = pooling(draw)
    y, argmax = ops.max_pool2d(draw.finite(case.x), case.window, case.stride)
    options = {"window": case.window, "stride": case.stride, "input_shape": case.x}
    call = Call("max_pool2d_backward", draw.arrays(dy=y.shape) | {"argmax": argmax}, options)
    return Case(call, (prod(np.broadcast_to(case.window, 2)),))


def mask(draw: Draw) -> dict[str, Any]:
    seed, offset = (int(word) for word in draw.rng.integers(0, 2**64, 2, dtype=np.uint64))
    return {"rate": draw.one_of(*DROPOUT_RATES), "seed": seed, "offset": offset}


def dropout(draw: Draw) -> Case:
    return Case(Call("dropout", {"x": draw.every(draw.shape())}, mask(draw)))


def dropout_backward(draw: Draw) -> Case:
    return Case(Call("dropout_backward", {"dy": draw.every(draw.shape())}, mask(draw)))


def sgd(draw: Draw) -> Case:
    def magnitudes(call: Call, _: Results) -> Results:
        uphill = {"learning_rate": -abs(call.options["learning_rate"])}
        return on_cpu(absolute(replace(call, options=call.options | uphill)))

    shape, options = draw.shape(), draw.one_of(*SGD_STEPS.values())
    arrays = draw.arrays(parameters=shape, gradient=shape, velocity=shape)
    if not options.get("momentum"):
        arrays = draw.without("velocity", arrays)
    return Case(Call("sgd", arrays, options), (SGD_TERMS, SGD_TERMS), magnitudes)


def adam(draw: Draw) -> Case:
    shape, options = draw.shape(), draw.one_of(*ADAM_STEPS.values())
    arrays = draw.arrays(parameters=shape, gradient=shape, first_moment=shape, second_moment=shape)
    arrays["second_moment"] = np.abs(arrays["second_moment"])
    return Case(
        Call("adam", arrays, options),
        (ADAM_TERMS, ADAM_TERMS, ADAM_TERMS),
        lambda call, _: adam_magnitudes(call.arrays, call.options),
    )


CASES: list[Callable[[Draw], Case]] = [
    *(matmul, linear, linear_backward, gather, relu, relu_backward),
    *(case for op in SMOOTH_ACTIVATIONS for case in smooth_activation(op)),
    *(leaky_relu, leaky_relu_backward, softmax, log_softmax, softmax_backward),
    *(softmax_cross_entropy, binary_cross_entropy, squared_error, huber),
    *(conv2d, conv2d_backward_input, conv2d_backward_weight),
    *(conv2d_pooled, conv2d_pooled_backward_input, conv2d_pooled_backward_weight),
    *(max_pool2d, max_pool2d_backward, dropout, dropout_backward, sgd, adam),
]
