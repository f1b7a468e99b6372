"""A call of every public function that computes, for tests of leaks and of memory failure.

Each entry of `public_calls` is a function without arguments that gives the same result whenever it
is called: networks are built anew, or not changed.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import calculus, ops
from full_step import FullStep, recorded
from op_contract import Exporter, members
from random_calls import CASES, Draw, Limits, on_cpu

PublicCall = Callable[[], Any]

SMALL = Limits(small=8, large=12, long=20, work=2**12, elements=2**8)
# Results that the C library allocates by mmap
LARGE = Limits(small=200, large=400, long=2000, work=2**23, elements=2**19)
LARGE_RESULT = 2**18  # bytes


def operations(limits: Limits, least: int = 1) -> dict[str, PublicCall]:
    """Return a call of each operation whose results have at least ``least`` bytes."""
    calls: dict[str, PublicCall] = {}
    for make in CASES:
        i = 0
        while True:
            call = make(Draw(limits, np.dtype("float32"), make.__name__, i)).call
            if sum(result.nbytes for result in on_cpu(call)) >= least:
                break
            i += 1
        calls[make.__name__] = lambda call=call: on_cpu(call)
    return calls


def network(units: int = 64) -> cr.Sequential:
    return cr.Sequential(
        *(cr.Conv2d(8, 3), cr.ReLU(), cr.MaxPool2d(2), cr.Dropout(0.25), cr.Flatten()),
        *(cr.Linear(units), cr.LeakyReLU(0.1), cr.Linear(10)),
        input_shape=(12, 12, 1),
        seed=3,
    )


def dense() -> cr.Sequential:
    return cr.Sequential(cr.Linear(6), cr.ReLU(), cr.Linear(3), input_shape=(4,), dtype="float64")


def replayed() -> tuple[np.ndarray, ...]:
    """Record and run a program of every operation."""
    step = FullStep(np.dtype("float32"), batch=2)
    program = recorded(step.step)
    program.run()
    return tuple(step.all_arrays().values())


def fitted(count: int) -> np.ndarray:
    """Train a new network, with validation. Return its parameters."""
    new, data = network(), instances(count)
    optimizer = cr.SGD(0.01, momentum=0.9)
    cr.fit(
        new, data, loss=cr.CrossEntropy(), optimizer=optimizer, batch_size=count // 2 + 1,
        epochs=2, validation=data, progress=False,
    )  # fmt: skip
    return new.parameter_vector


def tested_rates(count: int) -> np.ndarray:
    """Return the losses of a range test of a new network."""
    found = cr.lr_find(
        network(), instances(count), loss=cr.CrossEntropy(), optimizer=cr.SGD(0.01, momentum=0.9),
        batch_size=count // 2 + 1, steps=10,
    )  # fmt: skip
    return np.array(found.losses)


def instances(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, 12, 12, 1), dtype=np.uint8), np.arange(count) % 10


def networks(count: int) -> dict[str, PublicCall]:
    """Return calls of the methods of networks, on ``count`` instances."""
    net, (images, labels), loss = network(), instances(count), cr.CrossEntropy()
    floats = images.astype(np.float32)
    net.loss_and_gradient(floats, labels, loss)  # allocates all memory of the network

    def gradient() -> Any:
        value, gradients = net.loss_and_gradient(images, labels, loss)
        return (value, *gradients.values())

    return {
        "Sequential": lambda: network(16 * count).parameter_vector,
        "forward": lambda: net.forward(floats),
        "predict": lambda: net.predict(images),
        "predict in batches": lambda: net.predict(images, batch_size=count // 3 + 1),
        "predict_proba": lambda: net.predict_proba(floats),
        "loss_and_gradient": gradient,
        "parameter_vector": lambda: net.parameter_vector,
        "gradient_vector": lambda: net.gradient_vector,
        "summary": lambda: str(net.summary(7)),
        "evaluate": lambda: str(cr.evaluate(net, (images, labels), loss=loss)),
        "fit": lambda: fitted(count),
        "lr_find": lambda: tested_rates(count),
        "dead_units": lambda: str(calculus.dead_units(net, images)),
        "prune": lambda: str(calculus.prune(network(16 * count), 0.05)),
        "Program": replayed,
    }


def mathematics() -> dict[str, PublicCall]:
    """Return calls of the functions of ``calculus``."""
    net, x, loss = dense(), np.linspace(-1, 1, 4), cr.CrossEntropy()
    many, label, labels = np.stack([x, -x]), 1, np.array([1, 2])
    net.loss_and_gradient(many, labels, loss)
    return {
        "trace": lambda: str(calculus.trace(net, x, label, loss)),
        "jacobian": lambda: calculus.jacobian(net, x),
        "parameter_jacobian": lambda: calculus.parameter_jacobian(net, x),
        "loss_jacobian": lambda: calculus.loss_jacobian(net, x, label, loss),
        "jacobian_factors": lambda: str(calculus.jacobian_factors(net, x, label, loss)),
        "check_gradient": lambda: str(calculus.check_gradient(net, many, labels, loss)),
        "weight_matrices": lambda: calculus.vec(calculus.weight_matrices(net)),
        "gradient_matrices": lambda: calculus.vec(calculus.gradient_matrices(net)),
    }


def data(folder: Path) -> dict[str, PublicCall]:
    """Return calls of the functions of ``data``. ``folder`` is for files."""
    images, labels = instances(3000)
    header = struct.pack(">HBBIII", 0, 8, 3, *images.shape[:3])
    plain, packed = folder / "images-idx3-ubyte", folder / "packed-idx3-ubyte.gz"
    plain.write_bytes(header + images.tobytes())
    packed.write_bytes(gzip.compress(header + images.tobytes()))
    dataset = cr.data.Dataset(images, labels)
    return {
        "read_idx": lambda: cr.data.read_idx(plain),
        "read_idx of gzip": lambda: cr.data.read_idx(packed),
        "one_hot": lambda: cr.data.one_hot(np.arange(200_000) % 10),
        "Dataset": lambda: dataset[100:2000].images.copy(),
    }


def through_dlpack() -> dict[str, PublicCall]:
    """Return calls whose arrays are exported, or imported, through DLPack."""
    x, y = np.ones((300, 400), np.float32), np.ones((400, 300), np.float32)
    return {
        "import through DLPack": lambda: ops.matmul(Exporter(x), Exporter(y)),
        "export through DLPack": lambda: np.from_dlpack(Exporter(ops.relu(x))),
    }


def same(a: Any, b: Any) -> bool:
    """Return whether two results of a call are equal to the bit."""
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, members(tuple(a)), members(tuple(b))))
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and a.tobytes() == b.tobytes()
    return bool(a == b)
