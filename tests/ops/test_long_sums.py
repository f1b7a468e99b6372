"""Sums of any length: the error grows with the logarithm of the number of terms at most.

Added one by one, 2^24 float32 ones stall, and equal numbers such as 0.1 round the same way at every
step. A million of them are 1 % off. The bound is that of the docstring of `chainrule.ops`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import reference
from assertions import assert_close
from cases import normal, seeded
from chainrule import ops

pytestmark = pytest.mark.usefixtures("backend")

FLOAT32 = np.dtype(np.float32)
VALUE = float(np.float32(0.1))


def assert_sum(got: np.ndarray, want: Any, terms: int, magnitude: Any = None) -> None:
    """Assert an error of at most ``(4096 + log2 terms) · eps`` times the sum of magnitudes."""
    counted = min(terms, 4096 + math.ceil(math.log2(terms)))
    assert_close(
        got, np.broadcast_to(want, got.shape), dtype=FLOAT32, terms=counted, magnitude=magnitude,
        may_vanish=True,
    )  # fmt: skip


def full(*shape: int, value: float = VALUE) -> np.ndarray:
    return np.full(shape, value, np.float32)


def shorter_on_gpu(backend: str, length: int, gpu_length: int) -> int:
    """Return the length of a product's sum. Without a GPU the kernels run thread by thread."""
    return gpu_length if backend == "cuda" else length


@pytest.mark.parametrize("length", [2**14 + 1, 2**20 + 5])
def test_rows(length: int) -> None:
    """The sums of the softmax family and of squared error."""
    logits = full(1, length, value=math.log(0.1))
    logits[0, 7] = 0.0
    total = 1 + (length - 1) * math.exp(np.float64(logits[0, 0]))
    probabilities = np.exp(logits, dtype=np.float64) / total
    assert_sum(ops.softmax(logits), probabilities, length)
    log_total = math.log(total)  # to which an error of `total` is added
    got = ops.log_softmax(logits)
    assert_sum(got, logits - np.float64(log_total), length, magnitude=log_total)
    losses, dlogits = ops.softmax_cross_entropy(logits, np.array([7]))
    assert_sum(losses, log_total, length)
    probabilities[0, 7] -= 1
    assert_sum(dlogits, probabilities, length)

    dy, y = full(1, length), full(1, length, value=1 / length)
    dy[0, ::10] *= -1
    inner = (length - 2 * len(dy[0, ::10])) * VALUE * np.float64(y[0, 0])
    want = y * (dy - inner)
    assert_sum(ops.softmax_backward(dy, y), want, length, y * 2 * VALUE)

    losses, _ = ops.squared_error(dy, np.zeros((1, length), np.float32))
    assert_sum(losses, length * VALUE**2, length)


@pytest.mark.parametrize(
    ("rows", "columns"), [(2**21 + 3, 1), (2**19 + 1, 3), (2**18, 17), (2**17 + 1, 130)]
)
def test_bias_gradient_of_a_dense_layer(rows: int, columns: int, backend: str) -> None:
    """One column, few columns, full vectors, and blocks of vectors."""
    rows = shorter_on_gpu(backend, rows, 2**13 + 1)
    dy = full(rows, columns) * np.arange(1, columns + 1, dtype=np.float32)
    one = full(rows, 1, value=1.0)
    _, dweight, dbias = ops.linear_backward(dy, one, full(columns, 1), need_dx=False)
    want = rows * np.float64(dy[0])
    assert_sum(dbias, want, rows)
    assert_sum(dweight, want[:, None], rows)


def test_bias_gradient_with_random_signs(backend: str) -> None:
    dy = normal(seeded(3), (shorter_on_gpu(backend, 2**18 + 1, 2**13), 5), FLOAT32)
    _, _, dbias = ops.linear_backward(
        dy, np.zeros((len(dy), 1), np.float32), full(5, 1), need_dx=False
    )
    assert_sum(dbias, dy.sum(0, dtype=np.float64), len(dy), np.abs(dy).sum(0, dtype=np.float64))


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (1, 450), (70, 40)])
def test_product(shape: tuple[int, int], backend: str) -> None:
    """Splits of the depth, with each layout of the operands."""
    m, n = shape if backend == "avx512" else (shape[0], min(shape[1], 130))  # 8 panels
    depth = shorter_on_gpu(backend, 2**21 // (m * n) + 65_537, 2**13 + 7)
    a, b = full(m, depth), full(depth, n, value=1.0)
    a *= np.arange(1, m + 1, dtype=np.float32)[:, None]
    want = depth * np.float64(a[:, :1])
    assert_sum(ops.matmul(a, b), want, depth)
    assert_sum(ops.matmul(a.T.copy(), b, transpose_a=True), want, depth)
    assert_sum(ops.matmul(a, b.reshape(n, depth), transpose_b=True), want, depth)  # all are 1


def test_product_in_parts(backend: str) -> None:
    """A result too large for splits: parts of the depth, then bias and ReLU."""
    if backend in ("scalar", "sse2", "cuda"):
        pytest.skip("4 · 10^9 multiply-adds; the code is that of the other backends")
    m, n, depth = 130, 505, 2**16 + 3
    rng = seeded(1)
    x, weight = full(m, depth), full(n, depth, value=1.0)
    signs = rng.choice(np.array([-1, 1], np.float32), n)
    weight *= signs[:, None]
    bias = normal(rng, (n,), FLOAT32)
    z = depth * VALUE * signs + np.float64(bias)
    magnitude = depth * VALUE + np.abs(bias)
    assert_sum(ops.linear(x, weight, bias, activation="relu"), z.clip(0), depth, magnitude)


@pytest.mark.parametrize("depth", [65_536, 65_537])
def test_sparse_product(depth: int, backend: str) -> None:
    """At most 45 % of x is nonzero: the longest sum of the sparse product, and the next."""
    depth = shorter_on_gpu(backend, depth, 2**13)
    x = full(8, depth)
    x[:, np.arange(depth) % 10 >= 4] = 0
    weight = full(9, depth, value=1.0)
    want = np.count_nonzero(x[0]) * VALUE
    assert_sum(ops.linear(x, weight), want, depth)
    _, dweight, dbias = ops.linear_backward(x.T.copy(), weight.T.copy(), full(8, 9))
    assert_sum(dweight, want, depth)
    assert_sum(dbias, want, depth)


IMAGES = {
    "one wide image": (1, 1, 2**20 + 3, 1),
    "one large image": (1, 1024, 1021, 1),
    "many images": (2**15, 6, 6, 1),
    "few channels": (2**12, 8, 8, 3),
}


@pytest.mark.parametrize("shape", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("filters", [1, 5])
def test_weight_gradient(shape: tuple[int, int, int, int], filters: int, backend: str) -> None:
    if backend == "cuda":
        shape = (min(shape[0], 2**10), shape[1], min(shape[2], 2**14), shape[3])
    pixels = math.prod(shape[:3])
    dy = full(*shape[:3], filters) * np.arange(1, filters + 1, dtype=np.float32)
    dweight, dbias = ops.conv2d_backward_weight(dy, full(*shape, value=1.0), 1)
    want = pixels * np.float64(dy[0, 0, 0])
    assert_sum(dbias, want, pixels)
    assert_sum(dweight, want[:, None, None, None], pixels)


def test_weight_gradient_of_winograd(backend: str) -> None:
    """3 x 3 filters and 16 channels: 24 tiles per step, and 18 tasks."""
    batch = 2500 if backend not in ("scalar", "cuda") else 20  # scalar has no Winograd
    dy, x = full(batch, 12, 12, 16), full(batch, 12, 12, 16, value=1.0)
    dweight, dbias = ops.conv2d_backward_weight(dy, x, 3, padding="same")
    assert_sum(dbias, batch * 144 * VALUE, batch * 144)
    rows = np.array([11, 12, 11])  # the outputs whose window is inside the image there
    assert_sum(dweight, batch * VALUE * (rows[:, None] * rows)[None, :, :, None], batch * 144)


def pool_corners(*pooled: int) -> np.ndarray:
    """Return an argmax: the first position of every window."""
    return np.zeros(pooled, np.uint16)


@pytest.mark.parametrize("shape", [(1, 2, 2**19 + 6, 1), (2**18, 4, 8, 1)])
def test_weight_gradient_of_a_pooled_convolution(
    shape: tuple[int, int, int, int], backend: str
) -> None:
    if backend == "cuda":
        shape = (min(shape[0], 2**9), shape[1], min(shape[2], 2**14), shape[3])
    pooled = (shape[0], shape[1] // 2, shape[2] // 2, 3)
    windows = math.prod(pooled[:3])
    dy = full(*pooled) * np.arange(1, 4, dtype=np.float32)
    dweight, dbias = ops.conv2d_pooled_backward_weight(
        dy, pool_corners(*pooled), full(*shape, value=1.0), 1, 2
    )
    want = windows * np.float64(dy[0, 0, 0])
    assert_sum(dbias, want, windows)
    assert_sum(dweight, want[:, None, None, None], windows)


@pytest.mark.parametrize("channels", [1, 2, 16])
def test_input_gradient(channels: int, backend: str) -> None:
    """A sum over filters: with few channels by rows, with 16 as a product."""
    filters = shorter_on_gpu(backend, 2**21 // (2 * channels) + 1, 2**13 + 1)
    dy, weight = full(1, 1, 2, filters), full(filters, 1, 1, channels, value=1.0)
    dx = ops.conv2d_backward_input(dy, weight, (1, 1, 2, channels))
    assert_sum(dx, filters * VALUE, filters)
    pooled = ops.conv2d_pooled_backward_input(
        dy, pool_corners(*dy.shape), weight, (1, 2, 4, channels), 2
    )
    want = np.zeros((1, 2, 4, channels))
    want[:, 0, ::2] = filters * VALUE
    assert_sum(pooled, want, filters)


@pytest.mark.parametrize("side", [3, 46])
def test_input_gradient_with_more_terms_than_a_pass(side: int, backend: str) -> None:
    """Some filters per pass (9 terms each), or some windows of one filter (2116 terms each)."""
    filters = 300 if side == 3 else 2
    height, width = side + shorter_on_gpu(backend, 50, 3), side + shorter_on_gpu(backend, 94, 5)
    rng = seeded((side,))
    weight = normal(rng, (filters, side, side, 1), FLOAT32)
    out = (1, height - side + 1, width - side + 1, filters)
    dy = normal(rng, out, FLOAT32) if side == 3 else full(*out)
    if side == 3:
        got = ops.conv2d_backward_input(dy, weight, (1, height, width, 1))
        want = reference.conv2d_backward_input(dy, weight, (1, height, width, 1))
        magnitude = reference.conv2d_backward_input(abs(dy), abs(weight), (1, height, width, 1))
        assert_sum(got, want, filters * side**2, magnitude)
    pooled = (1, out[1] // 2, out[2] // 2, filters)
    dy = normal(rng, pooled, FLOAT32)
    argmax = rng.integers(0, 4, pooled).astype(np.uint16)
    shape = (1, height, width, 1)
    want = reference.conv2d_pooled_backward_input(dy, argmax, weight, shape, 2)
    magnitude = reference.conv2d_pooled_backward_input(abs(dy), argmax, abs(weight), shape, 2)
    got = ops.conv2d_pooled_backward_input(dy, argmax, weight, shape, 2)
    assert_sum(got, want, filters * side**2, magnitude)


@pytest.mark.parametrize(
    ("kernel", "channels"), [((1, 1), 3 * 2**20 + 1), ((1, 2**19), 2), ((2**10, 3), 700)]
)
def test_large_window(kernel: tuple[int, int], channels: int, backend: str) -> None:
    """Windows of more than a million terms: long pixels, long rows, many rows."""
    if backend == "cuda":
        kernel, channels = (min(kernel[0], 5), min(kernel[1], 64)), min(channels, 1000)
    terms = math.prod(kernel) * channels
    y = ops.conv2d(
        full(1, *kernel, channels), full(1, *kernel, channels, value=1.0),
        np.array([-1], np.float32),
    )  # fmt: skip
    assert_sum(y, terms * VALUE - 1, terms, terms * VALUE + 1)


def test_large_window_of_few_channels(backend: str) -> None:
    """Filters that would be repeated in a vector, were the window small."""
    kernel = (200, 201) if backend != "cuda" else (30, 31)
    x = full(1, kernel[0] + 1, kernel[1] + 2, 1)
    y = ops.conv2d(x, full(2, *kernel, 1, value=1.0))
    assert_sum(y, math.prod(kernel) * VALUE, math.prod(kernel))


def test_large_pooling_windows() -> None:
    """Many windows that overlap share their maximum."""
    rng = seeded(5)
    shape, window, stride = (2, 60, 70, 3), (35, 40), (1, 2)
    x = normal(rng, shape, FLOAT32)
    _, argmax = ops.max_pool2d(x, window, stride)
    dy = normal(rng, argmax.shape, FLOAT32)
    want = reference.max_pool2d_backward(dy, argmax, shape, window, stride)
    magnitude = reference.max_pool2d_backward(abs(dy), argmax, shape, window, stride)
    got = ops.max_pool2d_backward(dy, argmax, shape, window, stride)
    assert_sum(got, want, dy[0, ..., 0].size, magnitude)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_threads_do_not_change_the_bits(count: int, threads: None) -> None:
    import chainrule

    dy = normal(seeded(7), (2**17, 7), FLOAT32)
    images = normal(seeded(8), (2**12, 6, 6, 2), FLOAT32)
    results = []
    for number in (1, count):
        chainrule.set_num_threads(number)
        results.append(
            [
                *ops.linear_backward(dy, dy[:, :3].copy(), full(7, 3), need_dx=False)[1:],
                *ops.conv2d_backward_weight(images, images, 3, padding="same"),
                ops.softmax(dy.reshape(1, -1)),
            ]
        )
    for first, second in zip(*results, strict=True):
        assert first.tobytes() == second.tobytes()
