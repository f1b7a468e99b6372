"""The three networks of the golden traces, in NumPy only.

``golden/make_traces.py`` builds them in PyTorch and ``test_golden.py`` in chainrule. Both libraries
number the layers of a ``Sequential`` alike, so ``"0.weight"`` is the same tensor in both. Layouts
are chainrule's: images (N, H, W, C), linear weights (out, in), convolution weights (K, R, S, C),
and a flattened image has the order (H, W, C). There is no dropout, because a trace must not depend
on a random stream. The SHA-256 in ``traces.json`` includes the names of the classes and fields.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

TRACES = Path(__file__).resolve().parents[1] / "golden" / "traces.json"
STEPS = 20
INPUT_SHAPE = (28, 28, 1)
PIXEL_MAX = 255

Float64Array = npt.NDArray[np.float64]
ByteArray = npt.NDArray[np.uint8]


class Layer(NamedTuple):
    """A layer. ``size`` is the number of filters or units, or the window, depending on the kind."""

    kind: Literal["conv2d", "relu", "max_pool2d", "flatten", "linear"]
    size: int = 0
    kernel: int = 0
    padding: Literal[0, "same"] = 0


RELU = Layer("relu")
FLATTEN = Layer("flatten")


@dataclass(frozen=True)
class Network:
    """A network, the seed of its weights, and its training.

    The optimizers differ, so that plain momentum, the L2 term and Nesterov momentum each affect a
    trace. The seeds avoid near-ties that float32 rounding could decide (see ``make_traces.py``).
    ``l2`` is lambda of eq. (40). PyTorch's ``weight_decay`` is twice that, on weights only.
    """

    layers: tuple[Layer, ...]
    seed: int
    batch: int
    learning_rate: float = 0.05
    momentum: float = 0.9
    nesterov: bool = False
    l2: float = 0.0


NETWORKS = {
    "cnn": Network(
        layers=(
            Layer("conv2d", 32, kernel=3), RELU,
            Layer("conv2d", 64, kernel=3), RELU, Layer("max_pool2d", 2),
            FLATTEN, Layer("linear", 128), RELU, Layer("linear", 10),
        ),
        # Half the batch size of the others, because the scalar backend also trains it in float64.
        seed=11, batch=32,
    ),
    "lenet": Network(
        layers=(
            Layer("conv2d", 6, kernel=5, padding="same"), RELU, Layer("max_pool2d", 2),
            Layer("conv2d", 16, kernel=5), RELU, Layer("max_pool2d", 2),
            FLATTEN, Layer("linear", 120), RELU, Layer("linear", 84), RELU, Layer("linear", 10),
        ),
        seed=8, batch=64, l2=1e-4,
    ),
    "mlp": Network(
        layers=(FLATTEN, Layer("linear", 128), RELU, Layer("linear", 10)),
        seed=3, batch=64, nesterov=True,
    ),
}  # fmt: skip


def output_shapes(network: Network) -> list[tuple[int, ...]]:
    """Return the shape of an instance after each layer."""
    shape: tuple[int, ...] = INPUT_SHAPE
    shapes = []
    for layer in network.layers:
        if layer.kind == "conv2d":
            shrink = 0 if layer.padding == "same" else layer.kernel - 1
            shape = (shape[0] - shrink, shape[1] - shrink, layer.size)
        elif layer.kind == "max_pool2d":
            shape = (shape[0] // layer.size, shape[1] // layer.size, shape[2])
        elif layer.kind == "flatten":
            shape = (int(np.prod(shape)),)
        elif layer.kind == "linear":
            shape = (layer.size,)
        shapes.append(shape)
    return shapes


def initial_parameters(network: Network) -> dict[str, Float64Array]:
    """Return He-initialized weights and small nonzero biases. A missing bias changes the trace.

    NumPy guarantees the stream of RandomState. Values are rounded to multiples of 2**-20. A
    last-bit difference in the ``log`` of a C library then has no effect. float32 represents these
    values exactly, so both dtypes start from the same network.
    """
    random = np.random.RandomState(network.seed)

    def draw(std: float, shape: tuple[int, ...]) -> Float64Array:
        values: Float64Array = np.round(random.standard_normal(shape) * (std * 2**20)) / 2**20
        return values

    parameters = {}
    before: tuple[int, ...] = INPUT_SHAPE
    for index, (layer, after) in enumerate(
        zip(network.layers, output_shapes(network), strict=True)
    ):
        if layer.kind in ("conv2d", "linear"):
            kernel = (layer.kernel, layer.kernel) if layer.kind == "conv2d" else ()
            inputs = (*kernel, before[-1])
            he = float(np.sqrt(2 / np.prod(inputs)))
            parameters[f"{index}.weight"] = draw(he, (layer.size, *inputs))
            parameters[f"{index}.bias"] = draw(0.05, (layer.size,))
        before = after
    return parameters


def batches(
    network: Network, images: ByteArray, labels: ByteArray
) -> Iterator[tuple[Float64Array, npt.NDArray[np.int64]]]:
    """Yield the first ``STEPS`` batches in file order: images scaled to [0, 1], and labels."""
    for step in range(STEPS):
        rows = slice(step * network.batch, (step + 1) * network.batch)
        yield images[rows].astype(np.float64) / PIXEL_MAX, labels[rows].astype(np.int64)


def fingerprint(network: Network, images: ByteArray, labels: ByteArray) -> str:
    """Return the SHA-256 of a trace's inputs: network, weights, images and labels."""
    digest = hashlib.sha256(repr(network).encode())
    for name, values in initial_parameters(network).items():
        digest.update(name.encode())
        digest.update(values.astype("<f8").tobytes())
    used = slice(STEPS * network.batch)
    digest.update(np.ascontiguousarray(images[used], dtype=np.uint8).tobytes())
    digest.update(np.ascontiguousarray(labels[used], dtype=np.uint8).tobytes())
    return digest.hexdigest()


def load_traces() -> dict[str, Any]:
    """Return the content of ``traces.json``, written by ``make_traces.py``."""
    traces: dict[str, Any] = json.loads(TRACES.read_text(encoding="utf-8"))
    return traces
