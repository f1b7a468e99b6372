"""Convolutions that go in tiles: 3 x 3 filters at stride 1 in float32, by Winograd's method.

Each element has a bound of its own: what its tile sums up on the way, by absolute value.
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
    """Bᵀ, G and Aᵀ of F(4, 3), which transform pixels, filters and products; by Toom and Cook."""
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
# Roundings beside those of the sum, on two axes: three of the pixels, four of the filters (whose
# factors are rounded too), four at the end.
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
    """Squares of ``size`` pixels, four apart, (N, down, across, size, size, C); zero outside."""
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
    """What the tiles of a correlation sum up, by absolute value."""
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


def made(case: Conv, make: Any = normal) -> tuple[np.ndarray, ...]:
    """x, weight, bias, dy"""
    rng = seeded(case)
    x, weight, bias = (make(rng, s, F32) for s in (case.x, case.weight, (case.k,)))
    shape = reference.conv2d(x, weight, **case.options).shape
    return x, weight, bias, make(rng, shape, F32)


def turned(weight: np.ndarray) -> np.ndarray:
    return weight[:, ::-1, ::-1, :].transpose(3, 1, 2, 0)


def direct(case: Conv, x: np.ndarray, weight: np.ndarray, **options: Any) -> np.ndarray:
    """Image by image in pieces too small for tiles to pay: the direct method's bits."""
    y = []
    for image in range(case.n):
        one = ops.conv2d(x[image : image + 1], weight, **case.options, **options)
        y.append(one)
    return np.concatenate(y)


@cases
@pytest.mark.parametrize("make", [normal, outliers])
def test_forward_and_backward(case: Conv, make: Any) -> None:
    x, weight, bias, dy = made(case, make)
    rows, columns = dy.shape[1:3]
    size = sizes_of_outputs(x, weight, pads(case), rows, columns) + np.abs(bias)
    y = ops.conv2d(x, weight, bias, **case.options)
    want = reference.conv2d(x, weight, bias, **case.options)
    assert_close(y, want, dtype=F32, terms=case.c + TRANSFORMS, magnitude=size)

    pad = tuple(2 - p for p in pads(case))
    size = sizes_of_outputs(dy, turned(weight), pad, case.h, case.w)
    dx = ops.conv2d_backward_input(dy, weight, case.x, **case.options)
    want = reference.conv2d_backward_input(dy, weight, case.x, **case.options)
    assert_close(dx, want, dtype=F32, terms=case.k + TRANSFORMS, magnitude=size)

    sizes = sizes_of_weights(x, dy, pads(case))
    both = ops.conv2d_backward_weight(dy, x, 3, **case.options)
    wants = reference.conv2d_backward_weight(dy, x, 3, **case.options)
    terms = case.n * rows * columns + TRANSFORMS
    for got, want, size in zip(both, wants, sizes, strict=True):
        assert_close(got, want, dtype=F32, terms=terms, magnitude=size)


def test_tiles_are_what_runs_and_float64_stays_direct(backend: str) -> None:
    """A batch goes in tiles where one image of it is too little; so their bits differ."""
    case = Conv(8, 10, 10, 16, 16, 3, 3)
    x, weight, _, _ = made(case)
    in_tiles = not same_bits(ops.conv2d(x, weight), direct(case, x, weight))
    assert in_tiles == (backend not in {"scalar", "cuda"})
    x, weight = x.astype(float), weight.astype(float)
    assert same_bits(ops.conv2d(x, weight), direct(case, x, weight))


@pytest.mark.parametrize("channels", [16, 32, 64, 256])
def test_error_beside_the_direct_method(channels: int) -> None:
    """What allows tiles of 4 x 4: on the data of a network, root mean square below 2.5 times the
    direct method's, and of no output below 5 times; of filters, 4.5 times.
    """
    case = Conv(8, 10, 10, channels, 32, 3, 3)
    x, weight, _, dy = made(case)
    want = reference.conv2d(x, weight)
    errors = [y - want for y in (ops.conv2d(x, weight), direct(case, x, weight))]
    tiled, directly = (np.sqrt(np.mean(error**2)) for error in errors)
    assert tiled < 2.5 * directly
    tiled, directly = (np.sqrt(np.mean(e**2, axis=(0, 3))).max() for e in errors)
    assert tiled < 5 * directly

    want, _ = reference.conv2d_backward_weight(dy, x, 3)
    in_tiles, _ = ops.conv2d_backward_weight(dy, x, 3)
    pieces = [ops.conv2d_backward_weight(dy[i : i + 1], x[i : i + 1], 3)[0] for i in range(8)]
    tiled, directly = (
        np.sqrt(np.mean((y - want) ** 2)) for y in (in_tiles, np.sum(pieces, axis=0))
    )
    assert tiled < 4.5 * directly


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_reaches_its_windows_only(bad: float) -> None:
    """As if the images concerned had never been in tiles; the others keep their bits."""
    case = Conv(8, 10, 10, 20, 18, 3, 3, padding=1)
    x, weight, bias, dy = made(case)
    weight, bias = np.clip(weight, -0.1, 0.1), bias * 0
    clean = ops.conv2d(x, weight, bias, **case.options)
    for row, column in [(0, 0), (4, 5), (9, 9)]:
        dirty = x.copy()
        dirty[5, row, column, 19] = bad
        got = ops.conv2d(dirty, weight, bias, **case.options)
        alone = direct(case, dirty, weight, bias=bias)
        assert same_bits(got[5], alone[5])
        assert same_bits(got[0], clean[0])
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


def test_large_numbers_that_only_the_transforms_overflow() -> None:
    """Sums of four pixels overflow here where no window's sum does."""
    case = Conv(8, 10, 10, 16, 16, 3, 3)
    x = np.full(case.x, 2e38, F32)
    x[:, ::2] *= -1
    weight = np.zeros(case.weight, F32)
    weight[:, 1, 1, :] = 1e-3
    assert same_bits(ops.conv2d(x, weight), direct(case, x, weight))


def test_relu_is_fused_bit_for_bit() -> None:
    x, weight, bias, _ = made(CASES[1])
    z = ops.conv2d(x, weight, bias, padding=1)
    assert (z < 0).any()
    assert same_bits(ops.conv2d(x, weight, bias, padding=1, activation="relu"), ops.relu(z))


@pytest.mark.parametrize("activation", [None, "relu"])
def test_pooled_at_once(activation: str | None) -> None:
    """A tile is a window of 2 x 2: the same bits as one after the other, odd sizes included."""
    for case in CASES:
        x, weight, bias, _ = made(case)
        x[0, 3, 4, 5] = np.nan
        z = ops.conv2d(x, weight, bias, activation=activation, **case.options)
        got = ops.conv2d_pooled(x, weight, bias, window=2, activation=activation, **case.options)
        for one, other in zip(got, ops.max_pool2d(z, 2), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("threads")
def test_contract_and_threads() -> None:
    case = Conv(16, 9, 10, 17, 18, 3, 3, padding=1)
    x, weight, bias, dy = made(case)
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
    x, _, _, dy = made(CASES[-1])
    check_threads(
        Call("conv2d_backward_weight", {"dy": dy, "x": x}, {"padding": 1, "kernel_size": 3})
    )
