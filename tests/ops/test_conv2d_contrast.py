"""Convolutions of images that contain very different numbers.

The bound of each element is the promise of the notes of `ops`. An image with more contrast than
Winograd's algorithm allows must have the errors of the direct sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import chainrule
import reference
from assertions import same_bits
from cases import Conv
from chainrule import ops
from full_step import recorded
from op_contract import Call, check_threads

pytestmark = pytest.mark.usefixtures("backend")

F32 = np.float32
ROUNDING = 2.0**-24
# Of the promise, see csrc/cpu/README.md.
SPREAD = 2.0**-16
MAX_CONTRAST = 96

CASES = [
    Conv(4, 16, 16, 32, 32, 3, 3, padding=1),
    Conv(3, 13, 14, 16, 20, 3, 3, padding=2),
    Conv(6, 10, 10, 33, 17, 3, 3),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)

Fill = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def one_element(ground: float, big: float) -> Fill:
    def fill(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        x = rng.standard_normal(shape) * ground
        x[:, 4, 4, 0] = big
        return x

    return fill


def one_pixel(ground: float, big: float) -> Fill:
    def fill(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        x = rng.standard_normal(shape) * ground
        x[0, 4, 5] *= big / ground
        x[1, 7, 7] *= big / ground
        return x

    return fill


def two_corners(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Large pixels on a diagonal: each row and column of a window's size has one."""
    x = rng.standard_normal(shape)
    x[:, 1::3, 1::3] *= 1e6
    x[:, 1::6, 4::6] *= 1e-6
    x[:, 4::6, 1::6] *= 1e-6
    return x


def graded(axis: int, factor: float) -> Fill:
    def fill(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        scale = factor ** np.arange(shape[axis], dtype=float)
        return rng.standard_normal(shape) * scale.reshape(
            [-1 if i == axis else 1 for i in range(4)]
        )

    return fill


def sparse(density: float) -> Fill:
    def fill(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.maximum(rng.standard_normal(shape), 0) * (rng.random(shape) < density)

    return fill


def delta(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    x = np.zeros(shape)
    x[:, 5, 4, 3] = 1 / 3
    return x


def offset(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return 255 + 1e-3 * rng.standard_normal(shape)


def scaled(fill: Fill, factor: float) -> Fill:
    return lambda rng, shape: fill(rng, shape) * factor


def huge_channel(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    x = rng.standard_normal(shape) * 1e-3
    x[..., 3] *= 1e9
    return x


FILLS: dict[str, Fill] = {
    **{f"element {big:g}": one_element(1, big) for big in (1e2, 1e4, 1e8, 1e20, 1e37)},
    **{f"pixel {big:g}": one_pixel(1, big) for big in (30, 1e2, 1e4, 1e20)},
    "pixel of 255 on 1e-3": one_pixel(1e-3, 255),
    "element of 255 on 1e-3": one_element(1e-3, 255),
    "two corners": two_corners,
    "graded rows": graded(1, 10),
    "graded columns": graded(2, 0.1),
    "steep rows": graded(1, 100),
    "gently graded rows": graded(1, 3),
    "ReLU": sparse(1),
    "sparse": sparse(0.1),
    "very sparse": sparse(0.002),
    "delta": delta,
    "offset": offset,
    "huge channel": huge_channel,
    "tiny": scaled(one_element(1, 1), 1e-30),
    "tiny ground": one_element(1e-30, 1),
    "subnormal ground": one_element(1e-41, 1),
    "subnormal": scaled(sparse(1), 1e-41),
}
fills = pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)


def arrays(case: Conv, fill: Fill) -> tuple[np.ndarray, np.ndarray]:
    """Return images and filters."""
    rng = np.random.default_rng(5)
    weight = rng.standard_normal(case.weight) / np.sqrt(9 * case.c)
    return fill(rng, case.x).astype(F32), weight.astype(F32)


def contrast(x: np.ndarray) -> np.ndarray:
    """Return the contrast of each image: its largest |x|, divided by its level.

    The level is the mean over the pixels, without the largest, of the largest |x| of the channels c
    of one c mod 16. The highest level of the 16 groups counts.
    """
    n, h, w, c = x.shape
    a = np.zeros((n, h * w, -(-c // 16) * 16))
    a[..., :c] = np.abs(x).reshape(n, h * w, c)
    groups = a.reshape(n, h * w, -1, 16).max(axis=2)
    largest = groups.max(axis=1)
    level = ((groups.sum(axis=1) - largest) / (h * w - 1)).max(axis=1)
    return largest.max(axis=1) / np.maximum(level, 1e-200)


def is_even(x: np.ndarray) -> np.ndarray:
    """Return, for each image, whether its contrast allows Winograd."""
    found = contrast(x)
    assert (np.abs(found / MAX_CONTRAST - 1) > 1e-3).all(), "too close to the bound"
    return found < MAX_CONTRAST


def tile_maxima(x: np.ndarray, padding: int, rows: int, columns: int) -> np.ndarray:
    """Return the largest |x| of the 6 x 6 pixels under the 4 x 4 tile of each output."""
    n, h, w, _ = x.shape
    padded = np.zeros((n, rows + 8, columns + 8))
    padded[:, padding : padding + h, padding : padding + w] = np.abs(x).max(axis=3)
    result = np.zeros((n, rows, columns, 1))
    for i in range(0, rows, 4):
        for j in range(0, columns, 4):
            largest = padded[:, i : i + 6, j : j + 6].max(axis=(1, 2))
            result[:, i : i + 4, j : j + 4] = largest.reshape(-1, 1, 1, 1)
    return result


def bound_of(x: np.ndarray, weight: np.ndarray, padding: int) -> np.ndarray:
    """Return the promised bound of the error of each output, plus its rounding to subnormals."""
    sums = reference.conv2d(np.abs(x), np.abs(weight), padding=padding)
    norms = np.sqrt(np.square(weight.astype(float)).sum(axis=(1, 2, 3)))
    terms = 9 * weight.shape[3]
    largest = tile_maxima(x, padding, *sums.shape[1:3])
    winograd = np.where(is_even(x).reshape(-1, 1, 1, 1), SPREAD * largest * norms, 0)
    return terms * ROUNDING * sums + winograd + terms * np.finfo(F32).smallest_subnormal


def transposed(weight: np.ndarray) -> np.ndarray:
    """Return the filters of the convolution that is the backward pass to the input."""
    return np.ascontiguousarray(weight[:, ::-1, ::-1].transpose(3, 1, 2, 0))


def pads(case: Conv) -> int:
    assert isinstance(case.padding, int)
    return case.padding


def assert_within(got: np.ndarray, want: np.ndarray, bound: np.ndarray) -> None:
    assert np.isfinite(got).all()
    excess = np.abs(got - want) / bound
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    assert excess[worst] <= 1, f"{worst}: {got[worst]}, expected {want[worst]} ± {bound[worst]}"


@cases
@fills
def test_forward_and_backward_input(case: Conv, fill: Fill) -> None:
    x, weight = arrays(case, fill)
    options = {"padding": pads(case)}
    bound = bound_of(x, weight, pads(case))
    want = reference.conv2d(x, weight, **options)
    assert_within(ops.conv2d(x, weight, **options), want, bound)

    # The same convolution, written as a backward pass
    filters = transposed(weight)
    n, p, q, k = want.shape
    dx = ops.conv2d_backward_input(x, filters, (n, p, q, k), padding=2 - pads(case))
    assert_within(dx, want, bound)

    pooled, _ = ops.conv2d_pooled(x, weight, window=2, **options)
    rows, columns = p // 2, q // 2
    windows = (n, rows, 2, columns, 2, k)
    want, bound = (
        a[:, : 2 * rows, : 2 * columns].reshape(windows).max(axis=(2, 4)) for a in (want, bound)
    )
    assert_within(pooled, want, bound)


def test_outputs_beside_a_single_pixel_are_the_bias() -> None:
    case = CASES[0]
    x, weight = arrays(case, delta)
    bias = np.linspace(-1, 1, case.k, dtype=F32)
    y = ops.conv2d(x, weight, bias, padding=1)
    far = reference.conv2d(x != 0, np.ones_like(weight), padding=1)[..., :1] == 0
    assert far.any()
    assert (y == bias)[np.broadcast_to(far, y.shape)].all()


@cases
@fills
def test_backward_weight(case: Conv, fill: Fill) -> None:
    x, _ = arrays(case, fill)
    rng = np.random.default_rng(6)
    options = {"padding": pads(case)}
    shape = (case.n, case.h + 2 * pads(case) - 2, case.w + 2 * pads(case) - 2, case.k)
    plain = rng.standard_normal(shape).astype(F32)
    uneven = fill(rng, shape).astype(F32)
    y = rng.standard_normal(case.x).astype(F32)
    for a, dy in [(x, plain), (y, uneven)]:
        want, of_bias = reference.conv2d_backward_weight(dy, a, 3, **options)
        sums, bias_sums = reference.conv2d_backward_weight(np.abs(dy), np.abs(a), 3, **options)
        got, bias = ops.conv2d_backward_weight(dy, a, 3, **options)
        terms = shape[0] * shape[1] * shape[2]
        largest = np.abs(a).max(axis=(0, 1, 2)).astype(float)
        norms = np.sqrt(np.square(dy.astype(float)).sum(axis=(0, 1, 2)))
        bound = terms * ROUNDING * sums + SPREAD * largest * norms[:, None, None, None]
        subnormal = terms * np.finfo(F32).smallest_subnormal
        assert_within(got, want, bound + subnormal)
        assert_within(bias, of_bias, terms * ROUNDING * bias_sums + subnormal)


@pytest.mark.parametrize("big", [1e4, 1e8, 1e20])
def test_weight_gradient_beside_a_large_number(big: float) -> None:
    """The gradients of the other channels, and taps that miss the number, keep their digits."""
    case = CASES[0]
    rng = np.random.default_rng(7)
    x, dy = (rng.standard_normal(s).astype(F32) for s in (case.x, (4, 16, 16, 32)))
    x[2, 0, 5, 3] = big  # at the border: only two rows of taps read it
    want, _ = reference.conv2d_backward_weight(dy, x, 3, padding=1)
    sums, _ = reference.conv2d_backward_weight(np.abs(dy), np.abs(x), 3, padding=1)
    got, _ = ops.conv2d_backward_weight(dy, x, 3, padding=1)
    assert (np.abs(got - want) <= 1e-5 * sums).all()
    dy[2, 9, 5, 3] = big
    want, _ = reference.conv2d_backward_weight(dy, x, 3, padding=1)
    sums, _ = reference.conv2d_backward_weight(np.abs(dy), np.abs(x), 3, padding=1)
    got, _ = ops.conv2d_backward_weight(dy, x, 3, padding=1)
    assert (np.abs(got - want) <= 1e-5 * sums).all()


@pytest.mark.parametrize("big", [1e2, 1e4, 1e8, 1e20])
def test_element_wise_beside_a_large_number(big: float) -> None:
    """Relative to the products that an output sums, the error is that of roundings."""
    case = CASES[0]
    for fill in (one_element(1, big), one_pixel(1, big)):
        x, weight = arrays(case, fill)
        sums = reference.conv2d(np.abs(x), np.abs(weight), padding=1)
        error = ops.conv2d(x, weight, padding=1) - reference.conv2d(x, weight, padding=1)
        assert (np.abs(error) <= 1e-5 * sums).all()
        # A weight that is as large
        x, weight = arrays(case, one_element(1, 1))
        weight[7, 0, 2, 5] = big
        sums = reference.conv2d(np.abs(x), np.abs(weight), padding=1)
        error = ops.conv2d(x, weight, padding=1) - reference.conv2d(x, weight, padding=1)
        assert (np.abs(error) <= 1e-5 * sums).all()


@pytest.fixture
def highest() -> Iterator[None]:
    chainrule.set_convolution_precision("highest")
    yield
    chainrule.set_convolution_precision("fast")


def at_highest(op: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    chainrule.set_convolution_precision("highest")
    try:
        return op(*arguments, **options)
    finally:
        chainrule.set_convolution_precision("fast")


def test_only_the_image_of_the_large_number_is_direct(backend: str) -> None:
    """It has the bits of the implicit GEMM. The other images keep their bits."""
    case = CASES[0]
    x, weight = arrays(case, one_element(1, 1))
    clean = ops.conv2d(x, weight, padding=1)
    has_winograd = backend not in {"scalar", "cuda"}
    assert same_bits(clean, at_highest(ops.conv2d, x, weight, padding=1)) != has_winograd
    x[2, 5, 9, 4] = 1e4
    got = ops.conv2d(x, weight, padding=1)
    direct = at_highest(ops.conv2d, x, weight, padding=1)
    assert same_bits(got[2], direct[2])
    others = [0, 1, 3]
    assert same_bits(got[others], clean[others])
    assert same_bits(got[others], direct[others]) != has_winograd


def test_the_decision_follows_the_rule(backend: str) -> None:
    """Images around the bound: the kernel must decide as the float64 rule does."""
    case = Conv(24, 12, 12, 20, 16, 3, 3, padding=1)
    x, weight = arrays(case, sparse(1))
    x[:, 3, 3, 17] = 100
    x[:, 3, 3, 17] *= np.linspace(90.5, 101.5, 24) / contrast(x)
    y, direct = ops.conv2d(x, weight, padding=1), at_highest(ops.conv2d, x, weight, padding=1)
    is_direct = (y == direct).all(axis=(1, 2, 3))
    has_winograd = backend not in {"scalar", "cuda"}
    np.testing.assert_array_equal(is_direct, ~is_even(x) if has_winograd else True)
    assert 6 <= np.count_nonzero(is_even(x)) <= 18


def test_sparse_activations_use_winograd(backend: str) -> None:
    if backend in {"scalar", "cuda"}:
        pytest.skip("this backend has no Winograd")
    x, weight = arrays(CASES[0], sparse(0.4))
    got, direct = ops.conv2d(x, weight), at_highest(ops.conv2d, x, weight)
    assert not (got == direct).all(axis=(1, 2, 3)).any()


def test_images_do_not_change_each_other() -> None:
    """The decision is made per image: the order of the images does not change their bits."""
    case = Conv(9, 10, 11, 16, 16, 3, 3, padding=1)
    x, weight = arrays(case, sparse(1))
    x[3, 4, 5, 6], x[7, 0, 0, 0], x[8, 5, 5, 5] = 1e6, np.inf, np.nan
    order = np.random.default_rng(8).permutation(9)
    y = ops.conv2d(x, weight, padding=1)
    assert same_bits(ops.conv2d(x[order], weight, padding=1), y[order])


@pytest.mark.usefixtures("threads")
def test_threads_with_large_numbers() -> None:
    case = Conv(16, 9, 10, 17, 18, 3, 3, padding=1)
    x, weight = arrays(case, sparse(1))
    dy = np.random.default_rng(9).standard_normal((16, 9, 10, 18)).astype(F32)
    for array in (x, dy):
        array[3, 4, 4, 2], array[9, 0, 9, 1], array[11, 8, 8, 0] = 1e7, 1e20, -1e4
    for call in [
        Call("conv2d", {"x": x, "weight": weight}, {"padding": 1}),
        Call("conv2d_pooled", {"x": x, "weight": weight}, {"padding": 1, "window": 2}),
        Call("conv2d_backward_input", {"dy": dy, "weight": weight},
             {"padding": 1, "input_shape": case.x}),
        Call("conv2d_backward_weight", {"dy": dy, "x": x}, {"padding": 1, "kernel_size": 3}),
    ]:  # fmt: skip
        check_threads(call)


@pytest.mark.usefixtures("highest")
@cases
def test_highest_is_the_direct_sum(case: Conv) -> None:
    """Each error is within the rounding of the products that the element sums."""
    x, weight = arrays(case, one_element(1, 1e4))
    options = {"padding": pads(case)}
    want = reference.conv2d(x, weight, **options)
    sums = reference.conv2d(np.abs(x), np.abs(weight), **options)
    assert_within(ops.conv2d(x, weight, **options), want, 9 * case.c * ROUNDING * sums)
    dx = ops.conv2d_backward_input(x, transposed(weight), want.shape, padding=2 - pads(case))
    assert_within(dx, want, 9 * case.c * ROUNDING * sums)
    dy = np.random.default_rng(9).standard_normal(want.shape).astype(F32)
    want, _ = reference.conv2d_backward_weight(dy, x, 3, **options)
    sums, _ = reference.conv2d_backward_weight(np.abs(dy), np.abs(x), 3, **options)
    got, _ = ops.conv2d_backward_weight(dy, x, 3, **options)
    assert_within(got, want, dy[..., 0].size * ROUNDING * sums)


def test_convolution_precision() -> None:
    assert chainrule.get_convolution_precision() == "fast"
    text = 'set_convolution_precision: precision must be "fast" or "highest", got "high"'
    with pytest.raises(ValueError, match=f"^{text}$"):
        chainrule.set_convolution_precision("high")
    assert chainrule.get_convolution_precision() == "fast"


def test_program_keeps_the_precision_of_its_recording(backend: str) -> None:
    if backend == "cuda":
        pytest.skip("convolutions on a GPU do not use Winograd")
    x, weight = arrays(CASES[0], sparse(1))
    fast, highest = ops.conv2d(x, weight), at_highest(ops.conv2d, x, weight)
    y, z = np.empty_like(fast), np.empty_like(fast)

    def both() -> None:
        ops.conv2d(x, weight, out=y)
        at_highest(ops.conv2d, x, weight, out=z)

    program = recorded(both)
    for precision in ("highest", "fast"):
        y[:], z[:] = 0, 0
        chainrule.set_convolution_precision(precision)
        program.run()
        chainrule.set_convolution_precision("fast")
        assert same_bits(y, fast)
        assert same_bits(z, highest)
