"""Shapes and parameters of every operation, and generators of normal and special data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import reference

Pair = int | tuple[int, int]

# Vector widths in elements: 4 (sse2, neon float32; avx2 float64), 8, 16 (avx512 float32).
WIDTHS = (4, 8, 16)
# Every remainder of a vector loop, below and above one vector, and primes.
LENGTHS = tuple(
    sorted({0, 1, 2, 3, *(w + d for w in WIDTHS for d in (-1, 0, 1)), 31, 33, 67, 131, 1009})
)


def around(width: int) -> tuple[int, int, int]:
    return width - 1, width, width + 1


# (m, n, k): c (m, n) = a (m, k) b (k, n)
MATMUL = (
    [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)]
    + [(1, 1, 1), (1, 5, 3), (5, 1, 3), (2, 3, 1), (1, 130, 1), (130, 1, 1), (1, 1, 1009)]
    + [(m, n, k) for width in WIDTHS for m, n, k in [around(width), around(width)[::-1]]]
    + [(w, w, w) for w in WIDTHS]
    + [(6, 16, 64), (7, 17, 65), (13, 31, 7), (31, 67, 29), (61, 127, 257), (97, 33, 515)]
)

# (batch, in, out), the last ones as in the mlp, lenet and cnn networks
LINEAR = [
    *[(0, 3, 4), (2, 0, 3), (2, 3, 0)],
    *[(1, 1, 1), (3, 4, 2), (1, 17, 10), (5, 31, 13), (17, 7, 1)],
    *[(8, 15, 16), (15, 16, 17), (17, 33, 9)],
    *[(7, 784, 128), (9, 128, 10), (5, 400, 120), (6, 120, 84), (4, 84, 10), (3, 9216, 128)],
]

# The same for every GEMM algorithm: few rows of many columns; split-K; and a row stride that is a
# power of two, so that rows are packed first
LINEAR_ALGORITHMS = [
    *[(5, 300, 600), (7, 512, 530), (9, 700, 256), (40, 600, 256), (3, 1100, 515)],
    *[(6, 2100, 20), (20, 3000, 70), (6, 2048, 130), (2, 1025, 1), (1100, 30, 9)],
    *[(257, 30, 515), (300, 256, 131), (3, 16385, 4), (257, 1029, 255)],
]

# (rows, columns) of softmax, the losses and other operations on rows
ROWS = (
    [(0, 5), (3, 0), (1, 1), (5, 1), (2, 2), (3, 3)]
    + [(3, n) for width in WIDTHS for n in around(width)]
    + [(17, 10), (10, 31), (2, 67), (3, 131), (2, 1009), (33, 13)]
)

# Shapes with various numbers of axes, for elementwise operations
SHAPES = (
    [(n,) for n in LENGTHS]
    + [(), (0, 3), (3, 5), (1, 7, 1), (2, 3, 5, 7), (2, 0, 3), (3, 26, 26, 6)]
)  # fmt: skip


@dataclass(frozen=True)
class Conv:
    """A convolution of x (n, h, w, c) with weight (k, r, s, c)."""

    n: int
    h: int
    w: int
    c: int
    k: int
    r: int
    s: int
    stride: Pair = 1
    padding: Pair | str = 0

    @property
    def x(self) -> tuple[int, int, int, int]:
        return self.n, self.h, self.w, self.c

    @property
    def weight(self) -> tuple[int, int, int, int]:
        return self.k, self.r, self.s, self.c

    @property
    def options(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding}

    def __str__(self) -> str:
        parts = [
            f"{self.n}x{self.h}x{self.w}x{self.c}",
            f"k{self.k}",
            f"{self.r}x{self.s}",
            f"stride{self.stride}",
            f"pad{self.padding}",
        ]
        return "-".join(parts).replace(", ", "x").replace("(", "").replace(")", "")


CONV = [
    # one pixel, one row, a kernel as large as the image, 1 x 1 kernels (a matrix product)
    Conv(1, 1, 1, 1, 1, 1, 1),
    Conv(2, 1, 9, 3, 4, 1, 3),
    Conv(2, 5, 4, 3, 5, 5, 4),
    Conv(3, 5, 7, 16, 8, 1, 1),
    Conv(2, 6, 5, 33, 17, 1, 1),
    Conv(2, 7, 7, 3, 4, 1, 1, stride=2),
    # channels and filters below, at and above the vector widths
    *(Conv(1, 5, 6, c, k, 3, 3) for c, k in [(1, 3), (3, 1), (6, 16), (16, 6), (3, 32), (32, 33)]),
    Conv(1, 4, 5, 33, 64, 3, 2),
    Conv(1, 5, 4, 64, 3, 2, 3),
    # strides: square, oblong, larger than the kernel
    Conv(2, 9, 8, 3, 6, 3, 3, stride=2),
    Conv(1, 11, 10, 6, 3, 3, 3, stride=3),
    Conv(2, 9, 11, 3, 5, 3, 2, stride=(2, 3)),
    Conv(2, 8, 9, 3, 4, 2, 2, stride=3),
    Conv(1, 10, 9, 2, 3, 1, 2, stride=(3, 4)),
    # rows between the windows, and few channels under few filters
    *(Conv(2, 9, 7, c, 1, 1, s, stride=(2, 1)) for c in (3, 4, 6) for s in (1, 3)),
    Conv(2, 9, 7, 6, 2, 2, 3, stride=(3, 1)),
    # padding: up to the kernel size, beyond it (windows of padding only), on one axis, "same"
    Conv(2, 5, 6, 3, 4, 3, 3, padding=1),
    Conv(2, 5, 6, 3, 4, 3, 3, padding=2),
    Conv(1, 4, 3, 3, 4, 3, 3, padding=3),
    Conv(1, 4, 3, 2, 3, 2, 3, padding=(5, 4)),
    Conv(2, 6, 5, 3, 4, 3, 5, padding=(0, 2)),
    Conv(2, 2, 3, 3, 4, 4, 5, padding=2),
    Conv(2, 6, 7, 3, 5, 3, 3, padding="same"),
    Conv(2, 6, 7, 3, 5, 2, 4, padding="same"),
    Conv(1, 3, 2, 2, 3, 5, 6, padding="same"),
    Conv(2, 7, 8, 3, 4, 3, 3, stride=2, padding=1),
    Conv(2, 7, 8, 3, 4, 2, 2, stride=(3, 2), padding=(1, 0)),
    Conv(1, 6, 6, 5, 7, 4, 4, stride=2, padding=1),
    # of the networks: two of lenet, two of cnn
    Conv(2, 28, 28, 1, 6, 5, 5, padding="same"),
    Conv(2, 14, 14, 6, 16, 5, 5),
    Conv(2, 28, 28, 1, 32, 3, 3),
    Conv(1, 26, 26, 32, 64, 3, 3),
    # more images than parts of a weight gradient's sum, which are not of equal length
    Conv(35, 4, 5, 2, 3, 2, 2),
    # empty arrays
    Conv(0, 5, 5, 3, 4, 3, 3),
    Conv(2, 5, 5, 3, 0, 3, 3),
    Conv(2, 5, 5, 0, 4, 3, 3),
]


@dataclass(frozen=True)
class ConvPool(Conv):
    """A convolution followed by max-pooling with adjacent windows."""

    window: Pair = 2

    def __str__(self) -> str:
        window = str(self.window).replace(", ", "x").strip("()")
        return f"{super().__str__()}-window{window}"


CONV_POOL = [
    # one pixel, one window, one row, 1 x 1 kernels
    ConvPool(1, 1, 1, 1, 1, 1, 1, window=1),
    ConvPool(2, 4, 4, 3, 5, 3, 3),
    ConvPool(2, 1, 12, 3, 4, 1, 3, window=(1, 4)),
    ConvPool(3, 5, 7, 16, 8, 1, 1),
    ConvPool(1, 6, 5, 33, 17, 1, 1, window=(6, 5)),
    # windows of the network, of one pixel, oblong and of the whole image; in most of them no window
    # covers the last rows and columns
    *(ConvPool(2, 9, 10, 3, 6, 3, 3, window=w) for w in (1, 2, 3, (1, 4), (4, 1), (7, 8))),
    # strides and padding: beyond the kernel size, windows of padding only, on one axis
    ConvPool(2, 9, 11, 3, 5, 3, 2, stride=(2, 3)),
    ConvPool(2, 13, 12, 3, 4, 2, 2, stride=3),
    ConvPool(2, 5, 6, 3, 4, 3, 3, padding=2, window=3),
    ConvPool(1, 4, 3, 2, 3, 2, 3, padding=(5, 4)),
    ConvPool(2, 6, 7, 3, 5, 2, 4, padding="same"),
    ConvPool(1, 3, 2, 2, 3, 5, 6, padding="same"),
    ConvPool(2, 7, 8, 3, 4, 3, 3, stride=2, padding=1, window=(1, 4)),
    # of the networks: two of lenet, the second of cnn
    ConvPool(2, 28, 28, 1, 6, 5, 5, padding="same"),
    ConvPool(2, 14, 14, 6, 16, 5, 5),
    ConvPool(1, 26, 26, 32, 64, 3, 3),
    # few channels and more filters than a word of the mask has bits
    ConvPool(2, 8, 9, 3, 70, 3, 3),
    ConvPool(2, 12, 13, 1, 130, 5, 5),
    # more images than parts of a weight gradient's sum, which are not of equal length
    ConvPool(35, 5, 6, 2, 3, 2, 2),
    # empty arrays
    ConvPool(0, 6, 6, 3, 4, 3, 3),
    ConvPool(2, 6, 6, 0, 4, 3, 3),
]


@dataclass(frozen=True)
class Pool:
    """A max-pooling of x (n, h, w, c)."""

    n: int
    h: int
    w: int
    c: int
    window: Pair
    stride: Pair | None = None

    @property
    def x(self) -> tuple[int, int, int, int]:
        return self.n, self.h, self.w, self.c

    def __str__(self) -> str:
        text = f"{self.n}x{self.h}x{self.w}x{self.c}-{self.window}-stride{self.stride}"
        return text.replace(", ", "x").replace("(", "").replace(")", "")


POOL = [
    Pool(1, 1, 1, 1, 1),
    Pool(2, 4, 6, 3, 2),
    Pool(2, 5, 7, 3, 2),
    *(Pool(1, 4, 4, c, 2) for w in WIDTHS for c in around(w)),
    Pool(2, 5, 5, 31, 2),
    # overlapping, oblong, with gaps, one window only
    Pool(2, 6, 7, 3, 3, 1),
    Pool(1, 7, 6, 17, 3, 2),
    Pool(2, 6, 8, 3, (2, 3), (1, 2)),
    Pool(2, 7, 7, 4, 2, 3),
    Pool(2, 5, 4, 5, (5, 4)),
    Pool(1, 3, 40, 2, (1, 4), (2, 3)),
    # of the networks
    Pool(2, 24, 24, 64, 2),
    Pool(2, 28, 28, 6, 2),
    Pool(2, 10, 10, 16, 2),
    # empty arrays
    Pool(0, 4, 4, 3, 2),
    Pool(2, 4, 4, 0, 2),
]


def seeded(*key: Any) -> np.random.Generator:
    """Return a generator seeded by the case, so that cases do not depend on their order."""
    return np.random.default_rng(list(repr(key).encode()))


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.asarray(rng.standard_normal(shape), dtype=dtype)


def positive(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.asarray(rng.uniform(0.5, 1.5, shape), dtype=dtype)


def outliers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return normal values, one in ten of them twenty times as large."""
    large = rng.random(shape) < 0.1
    return np.asarray(rng.standard_normal(shape) * np.where(large, 20.0, 1.0), dtype=dtype)


def ties(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return few different values, with both zeros among them."""
    return np.asarray(rng.choice([-1.0, -0.0, 0.0, 1.0], shape), dtype=dtype)


def subnormals(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return subnormal numbers, which are 0 if the floating-point mode flushes them."""
    steps = np.asarray(rng.integers(-1000, 1000, shape), dtype=dtype)
    return np.asarray(steps * np.finfo(dtype).smallest_subnormal, dtype=dtype)


def _sprinkle(special: tuple[float, ...]) -> Callable[..., np.ndarray]:
    def make(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        x = normal(rng, shape, dtype)
        return np.where(rng.random(shape) < 0.1, rng.choice(special, shape), x).astype(dtype)

    return make


with_nan = _sprinkle((np.nan,))
with_infinities = _sprinkle((np.inf, -np.inf))
with_both = _sprinkle((np.nan, np.inf, -np.inf, 0.0, -0.0))

FINITE = {"normal": normal, "outliers": outliers}
AWKWARD = {
    "ties": ties,
    "subnormals": subnormals,
    "nan": with_nan,
    "infinities": with_infinities,
    "both": with_both,
}
EVERY = FINITE | AWKWARD


# Parameters and rounding of single operations

DROPOUT_RATES = [0.0, 0.25, 0.5, 0.1, 0.9, 1e-12, np.nextafter(1, 0)]

LEAKY_SLOPES = [0.01, 0.0, 1.0, -0.5, 2.5]
# One product with a slope that is rounded to the dtype.
LEAKY_TERMS = 2

# A smooth activation -> the argument of its backward pass besides dy, and the bound of its error in
# units in the last place that its docstring states.
SMOOTH_ACTIVATIONS = {"sigmoid": ("y", 4), "tanh": ("y", 4), "gelu": ("x", 8)}
# Roundings of 0.5 units: the stated bound, and that of the reference.
SMOOTH_TERMS = 20

# Parameters of each kind of step. Without momentum, velocity may be None.
SGD_STEPS: dict[str, dict[str, Any]] = {
    "plain": {"learning_rate": 0.1},
    "l2": {"learning_rate": 0.1, "l2": 0.01},
    "momentum": {"learning_rate": 0.1, "momentum": 0.9},
    "nesterov": {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "l2": 0.01},
    "no step": {"learning_rate": 0.0, "momentum": 0.5},
    "uphill": {"learning_rate": -0.5},
}
# Six products and four sums, of parameters that are rounded to the dtype.
SGD_TERMS = 16

# Parameters of each kind of Adam's step.
ADAM_STEPS: dict[str, dict[str, Any]] = {
    "first": {"learning_rate": 0.1, "step": 1},
    "later": {"learning_rate": 0.1, "step": 1000, "beta1": 0.8, "beta2": 0.99, "eps": 0.5},
    "l2": {"learning_rate": 0.1, "step": 7, "l2": 0.01},
    "decoupled": {"learning_rate": 0.1, "step": 7, "weight_decay": 0.25},
    "no memory": {"learning_rate": 0.1, "step": 3, "beta1": 0.0, "beta2": 0.0},
    "no step": {"learning_rate": 0.0, "step": 2},
    "uphill": {"learning_rate": -0.5, "step": 2},
}
# Rounding of g, both moments, root, quotients and sums, and of parameters.
ADAM_TERMS = 32


def adam_magnitudes(
    arrays: dict[str, np.ndarray], options: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the magnitudes that bound the rounding of Adam's results, in their order.

    The L2 term can cancel in g. Its rounding reaches the step through both moments. A moment that
    is flushed to zero is an error of the smallest normal number.
    """
    information = np.finfo(arrays["gradient"].dtype)
    parameters, gradient, first, second = (
        arrays[name].astype(np.float64)
        for name in ("parameters", "gradient", "first_moment", "second_moment")
    )
    rate, step = abs(options["learning_rate"]), options["step"]
    beta1, beta2 = options.get("beta1", 0.9), options.get("beta2", 0.999)
    l2 = 2 * options.get("l2", 0)
    size = np.abs(gradient) + l2 * np.abs(parameters)
    g = np.abs(gradient + l2 * parameters)
    m = beta1 * np.abs(first) + (1 - beta1) * size
    v = beta2 * second + (1 - beta2) * g**2
    divisor = (1 - beta1**step) * (np.sqrt(v / (1 - beta2**step)) + options.get("eps", 1e-8))
    error = m * (1 - beta2) * g * size / np.where(v > 0, v, 1)
    flushed = float(information.tiny) / float(information.eps)
    decay = 1 + rate * options.get("weight_decay", 0)
    moved = rate * (m + error + flushed) / divisor
    second_size = beta2 * second + (1 - beta2) * size**2
    return decay * np.abs(parameters) + moved, m, second_size


# Rounding of the exponential, the logarithm and the divisions, in addition to the sum over a row.
EXP_TERMS = 8


def distance_to_maximum(x: np.ndarray) -> np.ndarray:
    """Return how far each element is below the maximum of its row."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.abs(x.astype(np.float64) - x.max(axis=-1, keepdims=True, initial=-np.inf))


def conv_output_shape(case: ConvPool) -> tuple[int, ...]:
    """Return the shape of the convolution's output."""
    x, weight = np.zeros((case.n, case.h, case.w, 0)), np.zeros((case.k, case.r, case.s, 0))
    return reference.conv2d(x, weight, **case.options).shape


def mostly_zero(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return data of which three quarters are +0 or -0, as after ReLU and dropout."""
    mask = rng.random(shape) < 0.25
    zero = np.where(rng.random(shape) < 0.5, 0.0, -0.0)
    return np.asarray(np.where(mask, rng.standard_normal(shape), zero), dtype=dtype)
