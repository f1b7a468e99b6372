"""Convolutions that go in tiles: 3 x 3 filters at stride 1 in float32, by Winograd's method.

Each element has a bound of its own: what its tile sums up on the way, by absolute value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import reference
from cases import Conv, normal, outliers, seeded
from chainrule import ops
from checks import assert_close, same_bits
from contracts import Call, check_contract, check_threads

pytestmark = pytest.mark.usefixtures("backend")

F32 = np.dtype("float32")
# |Bᵀ|, |G| and |Aᵀ|: the transforms of pixels, filters and products.
B = np.array([[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1]], float)
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0, 0, 1]])
A = np.array([[1, 1, 1, 0], [0, 1, 1, 1]], float)
# Roundings beside those of the sum: two of the pixels, four of the filters, four at the end.
TRANSFORMS = 12

CASES = [
    Conv(4, 13, 11, 16, 16, 3, 3),
    Conv(3, 9, 10, 20, 33, 3, 3, padding=1),
    Conv(2, 14, 15, 64, 16, 3, 3, padding="same"),
    Conv(6, 6, 6, 33, 70, 3, 3, padding=2),
    Conv(1, 15, 14, 17, 130, 3, 3, padding=(0, 1)),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


def tiles(image: np.ndarray, top: int, left: int, rows: int, columns: int, size: int) -> Any:
    """Squares of ``size`` pixels, two apart, (N, down, across, size, size, C); zero outside."""
    n, h, w, c = image.shape
    down, across = -(-rows // 2), -(-columns // 2)
    padded = np.zeros((n, h + 2 * down + 8, w + 2 * across + 8, c))
    padded[:, top : top + h, left : left + w] = image
    return np.stack(
        [
            np.stack([padded[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size] for j in range(across)])
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
    d = tiles(np.abs(x), *pad, rows, columns, 4)
    v = np.einsum("ip,nuvpqc,jq->nuvijc", B, d, B)
    u = np.einsum("ip,kpqc,jq->kijc", G, np.abs(weight), G)
    m = np.einsum("nuvijc,kijc->nuvijk", v, u)
    y = np.einsum("pi,nuvijk,qj->nupvqk", A, m, A)
    n, down, _, across, _, k = y.shape
    return y.reshape(n, 2 * down, 2 * across, k)[:, :rows, :columns]


def sizes_of_weights(x: np.ndarray, dy: np.ndarray, pad: Any) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = dy.shape[1:3]
    v = np.einsum("ip,nuvpqc,jq->nuvijc", B, tiles(np.abs(x), *pad, rows, columns, 4), B)
    z = np.einsum("pi,nuvpqk,qj->nuvijk", A, tiles(np.abs(dy), 0, 0, rows, columns, 2), A)
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


def test_error_beside_the_direct_method() -> None:
    """On the data of a network: root mean square below twice the direct method's."""
    case = Conv(8, 10, 10, 64, 64, 3, 3)
    x, weight, _, _ = made(case)
    want = reference.conv2d(x, weight)
    errors = [
        np.sqrt(np.mean((y - want) ** 2)) for y in (ops.conv2d(x, weight), direct(case, x, weight))
    ]
    assert errors[0] < 2 * errors[1]


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
