"""The reference, checked by central differences, published test vectors and sums by hand."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import reference

# With h = 1e-5 the differences have errors of about h^2 f''' and eps |f| / h. Both are near 1e-10
# for the values of order one used here. A correct gradient must be within 1e-7.
STEP = 1e-5
ACCURACY = 1e-7


def numeric_gradient(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, dy: np.ndarray):
    """Return d(sum of dy · f(x))/dx by central differences."""
    dx = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += STEP
        down[i] -= STEP
        dx[i] = np.sum(dy * (f(up) - f(down))) / (2 * STEP)
    return dx


def assert_gradient(got: np.ndarray, f: Callable[[np.ndarray], np.ndarray], x, dy) -> None:
    want = numeric_gradient(f, x, dy)
    assert got.shape == want.shape
    assert np.any(want != 0)
    np.testing.assert_allclose(got, want, rtol=ACCURACY, atol=ACCURACY * np.abs(want).max())


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


def away_from_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    x = rng.uniform(0.1, 1.0, shape)
    return x * rng.choice([-1.0, 1.0], shape)


def distinct(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return values at least 0.01 apart, so that a step does not change any argmax."""
    count = int(np.prod(shape))
    return (rng.permutation(count).reshape(shape) - count / 2) * 0.01


def test_never_imports_the_package() -> None:
    path = Path(reference.__file__)
    imported = {
        name.split(".")[0]
        for file in (path, path.with_name("reference_images.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
        )
    }
    assert imported == {"__future__", "math", "typing", "numpy", "reference_images"}


def test_matmul_by_hand() -> None:
    a = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    b = np.array([[1.0, -1.0], [0.5, 2.0]])
    want = np.array([[2.0, 3.0], [5.0, 5.0], [8.0, 7.0]])
    np.testing.assert_array_equal(reference.matmul(a, b), want)
    np.testing.assert_array_equal(reference.matmul(a.T, b, transpose_a=True), want)
    np.testing.assert_array_equal(reference.matmul(a, b.T, transpose_b=True), want)
    np.testing.assert_array_equal(
        reference.matmul(a.T, b.T, transpose_a=True, transpose_b=True), want
    )


def test_linear(rng: np.random.Generator) -> None:
    x, w, b = rng.normal(size=(3, 4)), rng.normal(size=(5, 4)), rng.normal(size=5)
    dy = rng.normal(size=(3, 5))
    by_sum = np.array([[sum(x[n] * w[i]) + b[i] for i in range(5)] for n in range(3)])
    np.testing.assert_allclose(reference.linear(x, w, b), by_sum, rtol=ACCURACY)
    np.testing.assert_allclose(reference.linear(x, w), by_sum - b, rtol=ACCURACY)
    np.testing.assert_array_equal(
        reference.linear(x, w, b, activation="relu"), np.maximum(reference.linear(x, w, b), 0)
    )
    dx, dw, db = reference.linear_backward(dy, x, w)
    assert_gradient(dx, lambda t: reference.linear(t, w, b), x, dy)
    assert_gradient(dw, lambda t: reference.linear(x, t, b), w, dy)
    assert_gradient(db, lambda t: reference.linear(x, w, t), b, dy)


def test_relu_and_leaky_relu(rng: np.random.Generator) -> None:
    x, dy = away_from_zero(rng, (4, 7)), rng.normal(size=(4, 7))
    assert_gradient(reference.relu_backward(dy, reference.relu(x)), reference.relu, x, dy)
    assert_gradient(
        reference.leaky_relu_backward(dy, x, 0.1), lambda t: reference.leaky_relu(t, 0.1), x, dy
    )


def test_relu_and_leaky_relu_at_special_values() -> None:
    x = np.array([-np.inf, -1.0, -0.0, 0.0, 2.0, np.inf, np.nan])
    y = reference.relu(x)
    np.testing.assert_array_equal(y, [0.0, 0.0, 0.0, 0.0, 2.0, np.inf, np.nan])
    assert not np.signbit(y[:4]).any()
    dy = np.full(7, 3.0)
    np.testing.assert_array_equal(reference.relu_backward(dy, y), [0, 0, 0, 0, 3, 3, 3])
    np.testing.assert_array_equal(
        reference.leaky_relu_backward(dy, x, 0.5), [1.5, 1.5, 1.5, 1.5, 3, 3, 1.5]
    )


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "gelu"])
def test_smooth_activations(rng: np.random.Generator, name: str) -> None:
    forward, backward = getattr(reference, name), getattr(reference, f"{name}_backward")
    x, dy = 2 * rng.normal(size=(4, 7)), rng.normal(size=(4, 7))
    assert_gradient(backward(dy, x if name == "gelu" else forward(x)), forward, x, dy)


def test_values_of_smooth_activations() -> None:
    x = np.array([-np.inf, -1.0, 0.0, 1.0, np.inf])
    one = 0.8413447460685429  # the normal distribution function at 1
    np.testing.assert_allclose(reference.gelu(x), [0, one - 1, 0, one, np.inf], rtol=1e-14)
    np.testing.assert_array_equal(reference.gelu_backward(np.ones(5), x)[[0, 2, 4]], [0, 0.5, 1])
    y = reference.sigmoid(x)
    np.testing.assert_array_equal(y, y.sum() / 2.5 - y[::-1])
    np.testing.assert_allclose(reference.tanh(x), 2 * reference.sigmoid(2 * x) - 1, rtol=1e-14)


def test_softmax(rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(3, 6)), rng.normal(size=(3, 6))
    y = reference.softmax(x)
    np.testing.assert_allclose(y, np.exp(x) / np.exp(x).sum(1, keepdims=True), rtol=ACCURACY)
    np.testing.assert_allclose(reference.log_softmax(x), np.log(y), rtol=ACCURACY)
    assert_gradient(reference.softmax_backward(dy, y), reference.softmax, x, dy)


def test_softmax_at_special_values() -> None:
    x = np.array([[1e300, 0, -np.inf], [np.nan, 0, 0], [np.inf, 0, 0], [-np.inf] * 3])
    np.testing.assert_array_equal(reference.softmax(x), [[1, 0, 0], *[[np.nan] * 3] * 3])
    np.testing.assert_array_equal(
        reference.log_softmax(x), [[0, -1e300, -np.inf], *[[np.nan] * 3] * 3]
    )


def test_softmax_cross_entropy(rng: np.random.Generator) -> None:
    logits, labels = rng.normal(size=(5, 4)), np.array([0, 3, 1, 1, 2])
    losses, dlogits = reference.softmax_cross_entropy(logits, labels)
    y = reference.softmax(logits)
    np.testing.assert_allclose(losses, [-np.log(y[n, labels[n]]) for n in range(5)], rtol=ACCURACY)
    assert_gradient(
        dlogits,
        lambda t: reference.softmax_cross_entropy(t, labels)[0].mean(),
        logits,
        np.array(1.0),
    )


def test_squared_error(rng: np.random.Generator) -> None:
    prediction, target = rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3, 2))
    losses, dprediction = reference.squared_error(prediction, target)
    np.testing.assert_allclose(
        losses, [np.sum((prediction[n] - target[n]) ** 2) for n in range(4)], rtol=ACCURACY
    )
    assert_gradient(
        dprediction,
        lambda t: reference.squared_error(t, target)[0].mean(),
        prediction,
        np.array(1.0),
    )


def test_binary_cross_entropy(rng: np.random.Generator) -> None:
    logits, target = rng.normal(size=(4, 3, 2)), rng.uniform(size=(4, 3, 2))
    target[0], target[1] = 0, 1
    losses, dlogits = reference.binary_cross_entropy(logits, target)
    probability = 1 / (1 + np.exp(-logits))
    terms = target * np.log(probability) + (1 - target) * np.log(1 - probability)
    np.testing.assert_allclose(losses, -terms.sum(axis=(1, 2)), rtol=ACCURACY)
    assert_gradient(
        dlogits,
        lambda t: reference.binary_cross_entropy(t, target)[0].mean(),
        logits,
        np.array(1.0),
    )


def test_huber(rng: np.random.Generator) -> None:
    prediction, target = 2 * rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3, 2))
    for delta in (0.5, 2.0):
        losses, dprediction = reference.huber(prediction, target, delta)
        want = np.zeros(4)
        for n, i, j in np.ndindex(prediction.shape):
            size = abs(prediction[n, i, j] - target[n, i, j])
            want[n] += size**2 / 2 if size <= delta else delta * (size - delta / 2)
        np.testing.assert_allclose(losses, want, rtol=ACCURACY)
        assert_gradient(
            dprediction,
            lambda t, delta=delta: reference.huber(t, target, delta)[0].mean(),
            prediction,
            np.array(1.0),
        )


def test_weights_of_losses_are_copies(rng: np.random.Generator) -> None:
    prediction, target = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    counts = np.array([3, 1, 0, 2])
    weighted = reference.squared_error(prediction, target, weight=counts)
    copies = [np.repeat(array, counts, axis=0) for array in (prediction, target)]
    losses, gradient = reference.squared_error(*copies)
    assert weighted[0].sum() == pytest.approx(losses.sum(), rel=ACCURACY)
    np.testing.assert_allclose(weighted[1].sum(axis=0), gradient.sum(axis=0), rtol=ACCURACY)
    halved = reference.squared_error(prediction, target, weight=counts, instances=12)
    np.testing.assert_allclose(2 * halved[1], weighted[1], rtol=ACCURACY)


def test_conv2d_by_hand() -> None:
    """The definition, one pixel at a time, without code of the reference."""
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(2, 5, 6, 3)), rng.normal(size=(4, 2, 3, 3)), rng.normal(size=4)
    y = reference.conv2d(x, w, b, stride=(2, 1), padding=(1, 0))
    assert y.shape == (2, 3, 4, 4)
    for n, u, v, k in np.ndindex(y.shape):
        total = b[k]
        for r, s, c in np.ndindex(2, 3, 3):
            row, column = 2 * u + r - 1, v + s
            if 0 <= row < 5 and 0 <= column < 6:
                total += w[k, r, s, c] * x[n, row, column, c]
        assert total == pytest.approx(y[n, u, v, k], rel=ACCURACY)


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 3), (4, 2), (5, 5)])
def test_conv2d_same_keeps_the_size(kernel: tuple[int, int], rng: np.random.Generator) -> None:
    """An even kernel needs an odd number of padding rows. The extra one is at the bottom."""
    x, w = rng.normal(size=(1, 6, 7, 2)), rng.normal(size=(3, *kernel, 2))
    total = [k - 1 for k in kernel]
    padded = np.pad(x, ((0, 0), *((t // 2, t - t // 2) for t in total), (0, 0)))
    y = reference.conv2d(x, w, padding="same")
    assert y.shape == (1, 6, 7, 3)
    np.testing.assert_allclose(y, reference.conv2d(padded, w), rtol=ACCURACY)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((1, 1), 1, 0),
        ((3, 3), 1, "same"),
        ((2, 4), 1, "same"),
        ((3, 2), (2, 1), (1, 0)),
        ((2, 2), 3, 0),  # pixels between the windows get no gradient
        ((2, 3), (1, 2), (4, 3)),  # windows that contain padding only
    ],
)
def test_conv2d_backward(kernel, stride, padding, rng: np.random.Generator) -> None:
    x, w, b = rng.normal(size=(2, 5, 6, 2)), rng.normal(size=(3, *kernel, 2)), rng.normal(size=3)

    def forward(x=x, w=w, b=b):
        return reference.conv2d(x, w, b, stride=stride, padding=padding)

    dy = rng.normal(size=forward().shape)
    dx = reference.conv2d_backward_input(dy, w, x.shape, stride=stride, padding=padding)
    dw, db = reference.conv2d_backward_weight(dy, x, kernel, stride=stride, padding=padding)
    assert_gradient(dx, lambda t: forward(x=t), x, dy)
    assert_gradient(dw, lambda t: forward(w=t), w, dy)
    assert_gradient(db, lambda t: forward(b=t), b, dy)


@pytest.mark.parametrize(
    ("window", "stride"), [(2, None), (3, 1), ((2, 3), (1, 2)), (2, 3), ((1, 4), (2, 1))]
)
def test_max_pool2d(window, stride, rng: np.random.Generator) -> None:
    x = distinct(rng, (2, 6, 7, 3))
    y, argmax = reference.max_pool2d(x, window, stride)
    rows, columns = (window, window) if isinstance(window, int) else window
    down, right = (rows, columns) if stride is None else np.broadcast_to(stride, 2)
    for n, u, v, c in np.ndindex(y.shape):
        part = x[n, u * down : u * down + rows, v * right : v * right + columns, c]
        assert y[n, u, v, c] == part.max()
        assert argmax[n, u, v, c] == part.argmax()
    dy = rng.normal(size=y.shape)
    dx = reference.max_pool2d_backward(dy, argmax, x.shape, window, stride)
    assert_gradient(dx, lambda t: reference.max_pool2d(t, window, stride)[0], x, dy)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "window"),
    [
        ((3, 3), 1, 0, 2),  # 4 x 5 outputs: the last column is in no window
        ((3, 3), 1, "same", (1, 4)),
        ((2, 4), 1, "same", 3),
        ((3, 2), (2, 1), (1, 0), (2, 3)),
        ((2, 2), 2, 2, (5, 5)),  # one window
    ],
)
def test_conv2d_pooled_backward(kernel, stride, padding, window, rng: np.random.Generator) -> None:
    x, w, b = rng.normal(size=(2, 6, 7, 2)), rng.normal(size=(3, *kernel, 2)), rng.normal(size=3)

    def forward(x=x, w=w, b=b):
        z = reference.conv2d(x, w, b, stride=stride, padding=padding)
        return reference.max_pool2d(z, window)

    y, argmax = forward()
    dy = rng.normal(size=y.shape) * (y > np.median(y))
    options = {"stride": stride, "padding": padding}
    dx = reference.conv2d_pooled_backward_input(dy, argmax, w, x.shape, window, **options)
    dw, db = reference.conv2d_pooled_backward_weight(dy, argmax, x, kernel, window, **options)
    assert_gradient(dx, lambda t: forward(x=t)[0], x, dy)
    assert_gradient(dw, lambda t: forward(w=t)[0], w, dy)
    assert_gradient(db, lambda t: forward(b=t)[0], b, dy)


def test_max_pool2d_ties_and_nan() -> None:
    nan = np.nan
    x = np.array([[1.0, 2, 2, 2], [nan, 3, nan, 1], [-np.inf] * 4]).reshape(3, 2, 2, 1)
    y, argmax = reference.max_pool2d(x, 2)
    np.testing.assert_array_equal(y.ravel(), [2, nan, -np.inf])
    np.testing.assert_array_equal(argmax.ravel(), [1, 0, 0])


@pytest.mark.parametrize(
    ("counter", "key", "want"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000",
         "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
         "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
         "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)  # fmt: skip
def test_philox_known_answers(counter: str, key: str, want: str) -> None:
    """The test vectors of Random123 for philox4x32-10."""
    words = [[int(word, 16) for word in text.split()] for text in (counter, key, want)]
    got = reference.philox4x32(words[0], (words[1][0], words[1][1]))
    np.testing.assert_array_equal(got, words[2])


def test_dropout_mask_uses_the_words_in_order() -> None:
    """The key is the seed, the counter is (block, offset), and element e uses word e % 4."""
    seed, offset = 0x299F31D0A4093822, 0x0370734413198A2E
    rate = 0.5
    mask = reference.dropout_mask((2, 5), rate, seed=seed, offset=offset).ravel()
    for element in range(10):
        counter = [element // 4, 0, 0x13198A2E, 0x03707344]
        word = reference.philox4x32(counter, (0xA4093822, 0x299F31D0))[element % 4]
        assert mask[element] == (word >= 2**31)


def test_dropout(rng: np.random.Generator) -> None:
    x, dy = away_from_zero(rng, (5, 8)), rng.normal(size=(5, 8))
    y = reference.dropout(x, 0.25, seed=3)
    kept = y != 0
    np.testing.assert_allclose(y[kept], x[kept] / 0.75)
    assert_gradient(
        reference.dropout_backward(dy, 0.25, seed=3),
        lambda t: reference.dropout(t, 0.25, seed=3),
        x,
        dy,
    )
    share = reference.dropout_mask((100_000,), 0.25, seed=1, offset=7).mean()
    assert abs(share - 0.75) < 5 * np.sqrt(0.25 * 0.75 / 100_000)  # five standard deviations
    np.testing.assert_array_equal(reference.dropout(x, 0, seed=3), x)
    np.testing.assert_array_equal(
        reference.dropout(np.full((5, 8), np.nan), 0.25, seed=3)[~kept], 0.0
    )


def test_sgd_step_by_step() -> None:
    """Two steps by hand: eq. (6), (8), heavy-ball momentum and Nesterov momentum."""
    p, g, rate, momentum, l2 = 1.0, 0.5, 0.1, 0.9, 0.01
    g1 = g + 2 * l2 * p
    p1, v1 = reference.sgd([p], [g], [0.0], learning_rate=rate, momentum=momentum, l2=l2)
    assert (p1[0], v1[0]) == pytest.approx((p - rate * g1, g1))
    g2 = g + 2 * l2 * p1[0]
    p2, v2 = reference.sgd(p1, [g], v1, learning_rate=rate, momentum=momentum, l2=l2)
    assert (p2[0], v2[0]) == pytest.approx(
        (p1[0] - rate * (momentum * g1 + g2), momentum * g1 + g2)
    )
    p2, v2 = reference.sgd(p1, [g], v1, learning_rate=rate, momentum=momentum, nesterov=True, l2=l2)
    v = momentum * g1 + g2
    assert (p2[0], v2[0]) == pytest.approx((p1[0] - rate * (g2 + momentum * v), v))
    plain, _ = reference.sgd([p], [g], None, learning_rate=rate)
    assert plain[0] == pytest.approx(p - rate * g)


def test_adam_step_by_step() -> None:
    """Two steps by hand: Algorithm 1 of Kingma and Ba, with both kinds of decay."""
    p, g, rate, beta1, beta2, eps, l2, decay = 1.0, 0.5, 0.1, 0.8, 0.99, 0.01, 0.02, 0.3
    options: dict[str, float] = {"learning_rate": rate, "beta1": beta1, "beta2": beta2}
    options |= {"eps": eps, "l2": l2, "weight_decay": decay}
    g1 = g + 2 * l2 * p
    p1, m1, v1 = reference.adam([p], [g], [0.0], [0.0], step=1, **options)
    # Bias correction makes the first moments the gradient and its square.
    assert (m1[0], v1[0]) == pytest.approx((0.2 * g1, 0.01 * g1**2))
    assert p1[0] == pytest.approx(p - rate * decay * p - rate * g1 / (g1 + eps))
    g2 = g + 2 * l2 * p1[0]
    p2, m2, v2 = reference.adam(p1, [g], m1, v1, step=2, **options)
    m, v = (0.16 * g1 + 0.2 * g2) / 0.36, (0.0099 * g1**2 + 0.01 * g2**2) / 0.0199
    assert (m2[0], v2[0]) == pytest.approx((0.36 * m, 0.0199 * v))
    want = p1[0] - rate * decay * p1[0] - rate * m / (v**0.5 + eps)
    assert p2[0] == pytest.approx(want)
    plain, _, _ = reference.adam([p], [g], [0.0], [0.0], learning_rate=rate, step=1)
    assert plain[0] == pytest.approx(p - rate)
