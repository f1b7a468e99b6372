"""Convolutions by Winograd's algorithm F(4x4, 3x3): 3 x 3 filters at stride 1 in float32.

Each element has its own error bound: the sums of absolute values over its tile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import reference
from assertions import assert_close, same_bits
from cases import Conv, normal, outliers, seeded
from chainrule import ops
from op_contract import Call, check_contract, check_threads

pytestmark = pytest.mark.usefixtures("backend")

F32 = np.dtype("float32")
POINTS = np.array([0, 5 / 8, -5 / 8, 3 / 2, -3 / 2])


def transforms() -> tuple[np.ndarray, ...]:
    """Return Bᵀ, G and Aᵀ of F(4, 3), which transform pixels, filters and products (Toom-Cook)."""
    b, g, a = np.zeros((6, 6)), np.zeros((6, 3)), np.zeros((4, 6))
    for i, point in enumerate(POINTS):
        others = np.delete(POINTS, i)
        b[i, :5] = np.polynomial.polynomial.polyfromroots(others)
        g[i] = point ** np.arange(3) / np.prod(point - others)
        a[:, i] = point ** np.arange(4)
    b[5] = np.polynomial.polynomial.polyfromroots(POINTS)
    g[5, 2] = a[3, 5] = 1
    return b, g, a


B, G, A = (np.abs(matrix) for matrix in transforms())
# Roundings in addition to those of the sum, on each of two axes: three for pixels, four for filters
# (whose factors are rounded, too), four for outputs.
TRANSFORMS = 22

CASES = [
    Conv(4, 13, 11, 16, 16, 3, 3),
    Conv(3, 9, 10, 20, 33, 3, 3, padding=1),
    Conv(2, 14, 15, 64, 16, 3, 3, padding="same"),
    Conv(6, 6, 6, 33, 70, 3, 3, padding=2),
    Conv(1, 23, 19, 17, 130, 3, 3, padding=(0, 1)),
    Conv(2, 14, 14, 130, 130, 3, 3, padding=1),
    Conv(12, 13, 13, 64, 80, 3, 3, padding=1),  # weights: several chunks in several groups
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


def tiles(image: np.ndarray, top: int, left: int, rows: int, columns: int, size: int) -> Any:
    """Return square tiles at stride 4, (N, rows, columns, size, size, C), 0 outside the image."""
    n, h, w, c = image.shape
    down, across = -(-rows // 4), -(-columns // 4)
    padded = np.zeros((n, h + 4 * down + 8, w + 4 * across + 8, c))
    padded[:, top : top + h, left : left + w] = image
    return np.stack(
        [
            np.stack([padded[:, 4 * i : 4 * i + size, 4 * j : 4 * j + size] for j in range(across)])
            for i in range(down)
        ]
    ).transpose(2, 0, 1, 3, 4, 5)


def pads(case: Conv) -> tuple[int, int]:
    if case.padding == "same":
        return 1, 1
    rows, columns = np.broadcast_to(case.padding, 2)
    return int(rows), int(columns)


def sizes_of_outputs(x: np.ndarray, weight: np.ndarray, pad: Any, rows: int, columns: int) -> Any:
    """Return the sums of absolute values over the tiles of a convolution."""
    d = tiles(np.abs(x), *pad, rows, columns, 6)
    v = np.einsum("ip,nuvpqc,jq->nuvijc", B, d, B)
    u = np.einsum("ip,kpqc,jq->kijc", G, np.abs(weight), G)
    m = np.einsum("nuvijc,kijc->nuvijk", v, u)
    y = np.einsum("pi,nuvijk,qj->nupvqk", A, m, A)
    n, down, _, across, _, k = y.shape
    return y.reshape(n, 4 * down, 4 * across, k)[:, :rows, :columns]


def sizes_of_weights(x: np.ndarray, dy: np.ndarray, pad: Any) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = dy.shape[1:3]
    v = np.einsum("ip,nuvpqc,jq->nuvijc", B, tiles(np.abs(x), *pad, rows, columns, 6), B)
    z = np.einsum("pi,nuvpqk,qj->nuvijk", A, tiles(np.abs(dy), 0, 0, rows, columns, 4), A)
    u = np.einsum("nuvijc,nuvijk->kijc", v, z)
    return np.einsum("ip,kijc,jq->kpqc", G, u, G), np.abs(dy).sum(axis=(0, 1, 2))


def make_inputs(case: Conv, make: Any = normal) -> tuple[np.ndarray, ...]:
    """Return x, weight, bias and dy."""
    rng = seeded(case)
    x, weight, bias = (make(rng, s, F32) for s in (case.x, case.weight, (case.k,)))
    shape = reference.conv2d(x, weight, **case.options).shape
    return x, weight, bias, make(rng, shape, F32)


def rotated_180(weight: np.ndarray) -> np.ndarray:
    return weight[:, ::-1, ::-1, :].transpose(3, 1, 2, 0)


def implicit_gemm(case: Conv, x: np.ndarray, weight: np.ndarray, **options: Any) -> np.ndarray:
    """Return the result of the implicit GEMM: pieces of one image are too small for Winograd."""
    y = []
    for image in range(case.n):
        one = ops.conv2d(x[image : image + 1], weight, **case.options, **options)
        y.append(one)
    return np.concatenate(y)


@cases
@pytest.mark.parametrize("make", [normal, outliers])
def test_forward_and_backward(case: Conv, make: Any) -> None:
    x, weight, bias, dy = make_inputs(case, make)
    rows, columns = dy.shape[1:3]
    size = sizes_of_outputs(x, weight, pads(case), rows, columns) + np.abs(bias)
    y = ops.conv2d(x, weight, bias, **case.options)
    want = reference.conv2d(x, weight, bias, **case.options)
    assert_close(y, want, dtype=F32, terms=case.c + TRANSFORMS, magnitude=size)

    pad = tuple(2 - p for p in pads(case))
    size = sizes_of_outputs(dy, rotated_180(weight), pad, case.h, case.w)
    dx = ops.conv2d_backward_input(dy, weight, case.x, **case.options)
    want = reference.conv2d_backward_input(dy, weight, case.x, **case.options)
    assert_close(dx, want, dtype=F32, terms=case.k + TRANSFORMS, magnitude=size)

    sizes = sizes_of_weights(x, dy, pads(case))
    both = ops.conv2d_backward_weight(dy, x, 3, **case.options)
    expected = reference.conv2d_backward_weight(dy, x, 3, **case.options)
    terms = case.n * rows * columns + TRANSFORMS
    for got, want, size in zip(both, expected, sizes, strict=True):
        assert_close(got, want, dtype=F32, terms=terms, magnitude=size)


def test_winograd_runs_for_float32_but_not_for_float64(backend: str) -> None:
    """A batch uses Winograd and one of its images does not, so their bits differ."""
    case = Conv(8, 10, 10, 16, 16, 3, 3)
    x, weight, _, _ = make_inputs(case)
    by_winograd = not same_bits(ops.conv2d(x, weight), implicit_gemm(case, x, weight))
    assert by_winograd == (backend not in {"scalar", "cuda"})
    x, weight = x.astype(float), weight.astype(float)
    assert same_bits(ops.conv2d(x, weight), implicit_gemm(case, x, weight))


@pytest.mark.parametrize("channels", [16, 32, 64, 256])
def test_error_relative_to_the_implicit_gemm(channels: int) -> None:
    """On network data the RMS error is below 2.5 times that of the implicit GEMM.

    This bound justifies 4 x 4 tiles. At no output position is it above 5 times, and for the weight
    gradient it is below 4.5 times.
    """
    case = Conv(8, 10, 10, channels, 32, 3, 3)
    x, weight, _, dy = make_inputs(case)
    want = reference.conv2d(x, weight)
    errors = [y - want for y in (ops.conv2d(x, weight), implicit_gemm(case, x, weight))]
    winograd, gemm = (np.sqrt(np.mean(error**2)) for error in errors)
    assert winograd < 2.5 * gemm
    winograd, gemm = (np.sqrt(np.mean(e**2, axis=(0, 3))).max() for e in errors)
    assert winograd < 5 * gemm

    want, _ = reference.conv2d_backward_weight(dy, x, 3)
    by_winograd, _ = ops.conv2d_backward_weight(dy, x, 3)
    pieces = [ops.conv2d_backward_weight(dy[i : i + 1], x[i : i + 1], 3)[0] for i in range(8)]
    winograd, gemm = (
        np.sqrt(np.mean((y - want) ** 2)) for y in (by_winograd, np.sum(pieces, axis=0))
    )
    assert winograd < 4.5 * gemm


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_pixel_reaches_its_windows_only(bad: float) -> None:
    """Affected images equal the implicit GEMM. The other images keep their bits."""
    case = Conv(8, 10, 10, 20, 18, 3, 3, padding=1)
    x, weight, bias, dy = make_inputs(case)
    weight, bias = np.clip(weight, -0.1, 0.1), bias * 0
    clean = ops.conv2d(x, weight, bias, **case.options)
    for row, column in [(0, 0), (4, 5), (9, 9)]:
        dirty = x.copy()
        dirty[5, row, column, 19] = bad
        got = ops.conv2d(dirty, weight, bias, **case.options)
        alone = implicit_gemm(case, dirty, weight, bias=bias)
        assert same_bits(got[5], alone[5])
        assert same_bits(np.delete(got, 5, axis=0), np.delete(clean, 5, axis=0))
        under = reference.conv2d(dirty != x, np.ones_like(weight), **case.options) != 0
        np.testing.assert_array_equal(~np.isfinite(got), under)
        of_weight, of_bias = ops.conv2d_backward_weight(dy * np.float32(0.01), dirty, 3, padding=1)
        assert np.isfinite(of_bias).all()
        assert np.isfinite(of_weight[..., :19]).all()
        assert not np.isfinite(of_weight[:, 1, 1, 19]).any()
        dirty_dy = dy.copy()
        dirty_dy[5, row, column, 17] = bad
        dx = ops.conv2d_backward_input(dirty_dy, weight, case.x, padding=1)
        assert np.isfinite(dx[:5]).all()
        near = np.zeros((10, 10), bool)
        near[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
        assert np.isfinite(dx[5][~near]).all()


def test_numbers_that_overflow_only_in_the_transforms() -> None:
    """Here sums of four pixels overflow, but the sum of no window does."""
    case = Conv(8, 10, 10, 16, 16, 3, 3)
    x = np.full(case.x, 2e38, F32)
    x[:, ::2] *= -1
    weight = np.zeros(case.weight, F32)
    weight[:, 1, 1, :] = 1e-3
    assert same_bits(ops.conv2d(x, weight), implicit_gemm(case, x, weight))


def test_relu_is_fused_bit_for_bit() -> None:
    x, weight, bias, _ = make_inputs(CASES[1])
    z = ops.conv2d(x, weight, bias, padding=1)
    assert (z < 0).any()
    assert same_bits(ops.conv2d(x, weight, bias, padding=1, activation="relu"), ops.relu(z))


@pytest.mark.parametrize("activation", [None, "relu"])
def test_pooled_in_one_kernel(activation: str | None) -> None:
    """Tiles cover whole 2 x 2 windows, so bits equal those of separate calls, even at odd sizes."""
    for case in CASES:
        x, weight, bias, _ = make_inputs(case)
        x[0, 3, 4, 5] = np.nan
        z = ops.conv2d(x, weight, bias, activation=activation, **case.options)
        got = ops.conv2d_pooled(x, weight, bias, window=2, activation=activation, **case.options)
        for one, other in zip(got, ops.max_pool2d(z, 2), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("threads")
def test_contract_and_threads() -> None:
    case = Conv(16, 9, 10, 17, 18, 3, 3, padding=1)
    x, weight, bias, dy = make_inputs(case)
    calls = [
        Call("conv2d", {"x": x, "weight": weight, "bias": bias}, case.options),
        Call("conv2d_backward_input", {"dy": dy, "weight": weight},
             case.options | {"input_shape": case.x}),
        Call("conv2d_backward_weight", {"dy": dy, "x": x}, case.options | {"kernel_size": (3, 3)}),
        Call("conv2d_pooled", {"x": x, "weight": weight, "bias": bias},
             case.options | {"window": 2}),
    ]  # fmt: skip
    for call in calls:
        check_threads(call)
        check_contract(call)
    x, _, _, dy = make_inputs(CASES[-1])
    check_threads(
        Call("conv2d_backward_weight", {"dy": dy, "x": x}, {"padding": 1, "kernel_size": 3})
    )
