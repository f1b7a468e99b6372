"""Training memory: predicted before allocation, within 10 %, and an error if it does not fit."""

from __future__ import annotations

import json
import re
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import available_memory
from chainrule.available_memory import OVERRIDE, Available, available, in_bytes, require
from chainrule.nn.architecture import step_extras
from chainrule.nn.plan import Plan
from chainrule.nn.training_memory import training_memory
from run_subprocess import run_child

GIB = 2**30
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="this system has no /proc to be measured by"
)


@pytest.fixture(autouse=True)
def no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OVERRIDE, raising=False)


def giant() -> cr.Sequential:
    """Return a network of 18 exabytes."""
    wide = 2**31 - 1
    return cr.Sequential(
        cr.Linear(wide), cr.ReLU(), cr.Linear(wide), cr.ReLU(), cr.Linear(10), input_shape=(5,)
    )


def middling() -> cr.Sequential:
    """Return a network of 8 MiB."""
    return cr.Sequential(cr.Linear(1024), cr.ReLU(), cr.Linear(10), input_shape=(2048,))


def batch(network: cr.Sequential, count: int = 8) -> tuple[np.ndarray, np.ndarray]:
    return np.ones((count, *network.input_shape), network.dtype), np.zeros(count, np.int64)


def fit(network: cr.Sequential, count: int = 8, **changed: Any) -> cr.History:
    options: dict[str, Any] = {
        "loss": cr.CrossEntropy(), "optimizer": cr.SGD(0.01), "epochs": 1, "progress": False
    }  # fmt: skip
    return cr.fit(network, batch(network, count), **{**options, **changed})


# The prediction


@needs_proc
@pytest.mark.parametrize("kind", ["dense", "conv", "pooled", "squared"])
def test_the_prediction_agrees_with_resident_memory_within_ten_percent(kind: str) -> None:
    """Resident memory is measured in a separate process."""
    measured = json.loads(run_child("resident", kind))
    assert measured["predicted"] > 40 * 2**20
    assert 0.9 < measured["predicted"] / measured["resident"] < 1.1, measured


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("momentum", [0, 0.9])
def test_the_prediction_is_the_size_of_the_arrays(dtype: str, momentum: float) -> None:
    net = cr.Sequential(
        cr.Conv2d(5, 3), cr.ReLU(), cr.MaxPool2d(2), cr.Dropout(0.1), cr.Flatten(), cr.Linear(3),
        cr.Softmax(), input_shape=(9, 7, 2), dtype=dtype,
    )  # fmt: skip
    optimizer = cr.SGD(0.1, momentum=momentum)
    found = net.summary(32, optimizer, cr.CrossEntropy()).memory
    assert not net.storage.weights.allocated
    assert not net.storage.gradients.allocated
    state = optimizer.start(net)
    assert found.parameters == net.vector.nbytes
    assert found.gradients == net.dvector.nbytes
    moving = sum(array.nbytes for array in state.arrays.get("velocity", {}).values())
    assert moving <= found.optimizer_state <= moving + 64 * len(net.parameters)
    arena: list[int] = []
    cr.fit(
        net, (np.ones((32, 9, 7, 2), dtype), np.zeros(32, np.int64)), loss=cr.CrossEntropy(),
        optimizer=optimizer, epochs=1, batch_size=32, progress=False,
        callbacks=lambda *_: arena.extend(plan.arena.size for plan in living_plans(net)),
    )  # fmt: skip
    assert arena == [found.activations]


def living_plans(network: cr.Sequential) -> list[Plan]:
    import gc

    shape = (32, *network.input_shape)
    return [found for found in gc.get_objects() if isinstance(found, Plan)
            and hasattr(found, "mode")  # a plan whose constructor raised has no mode
            and found.mode.backward and found.input.shape == shape]  # fmt: skip


def test_targets_and_momentum_are_included() -> None:
    net = cr.Sequential(cr.Linear(1000), input_shape=(10,))
    plain = net.summary(64)
    assert net.summary(64, loss=cr.CrossEntropy()).memory == plain.memory
    moving = net.summary(64, cr.SGD(0.1, momentum=0.5))
    assert moving.memory.optimizer_state == moving.memory.parameters
    assert moving.nbytes == plain.nbytes + moving.memory.optimizer_state
    squared = net.summary(64, loss=cr.SquaredError()).memory.activations
    assert squared - plain.memory.activations == 64 * (1000 * 4 - 8)


def test_the_workspace_is_that_of_the_largest_kernel() -> None:
    small = cr.Sequential(cr.Linear(64), input_shape=(64,))
    large = cr.Sequential(cr.Linear(64), cr.Linear(4096), input_shape=(64,))
    assert 0 < small.summary(8).memory.workspace < large.summary(8).memory.workspace
    relu = cr.Sequential(cr.ReLU(), input_shape=(64,))
    assert relu.summary(8).memory.workspace == 0
    conv = cr.Sequential(cr.Conv2d(64, 3), cr.ReLU(), cr.MaxPool2d(2), input_shape=(30, 30, 64))
    assert conv.summary(8).memory.workspace > 9 * 64 * 64 * 4


def test_sizes_have_units() -> None:
    assert [in_bytes(n) for n in (0, 1023, 1024, 5 * 2**29, 2**61)] == [
        "0 B", "1023 B", "1.0 KiB", "2.5 GiB", "2.0 EiB"
    ]  # fmt: skip


# A network too large for any memory


def test_a_network_too_large_for_memory_has_a_summary_and_raises() -> None:
    tracemalloc.start()
    net = giant()
    summary = net.summary(128, cr.SGD(0.1, momentum=0.9))
    assert summary.parameters == 5 * (2**31 - 1) + 2**31 - 1 + (2**31 - 1) ** 2 + 2**31 - 1 + (
        10 * 2**31
    )
    assert summary.memory.parameters >= 4 * summary.parameters
    assert "16.0 EiB parameters" in str(summary)
    x, y = batch(net)
    needed = r"Sequential: its parameters need 16\.0 EiB of memory, but "
    for use in (
        lambda: net.parameters,
        lambda: net.predict(x),
        lambda: net.loss_and_gradient(x, y, cr.CrossEntropy()),
    ):
        with pytest.raises(MemoryError, match=needed + r"[\d.]+ \wiB are available \(.+\)\. The"):
            use()
    with pytest.raises(
        MemoryError,
        match=r"fit: training on batches of 8 needs 32\.0 EiB of memory \(16\.0 EiB par",
    ):
        fit(net)
    assert not net.storage.weights.allocated
    assert not net.storage.gradients.allocated
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_convolution_too_large_for_any_kernel_has_a_summary() -> None:
    net = cr.Sequential(cr.Conv2d(2**31 - 1, 9, padding="same"), input_shape=(9, 9, 2**31 - 1))
    assert net.summary().parameters > 2**62


def test_an_override_does_not_make_it_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OVERRIDE, "unlimited")
    with pytest.raises(MemoryError, match=r"parameters need .* of memory: no array is so large"):
        print(giant().vector)


# Errors


def test_training_that_does_not_fit_raises_with_the_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = middling()
    optimizer = cr.SGD(0.01, momentum=0.9)
    predicted = training_memory(
        net.architecture, net.storage, 8, optimizer, True, step_extras((), np.dtype(np.int64))
    )
    monkeypatch.setattr(
        available_memory, "available", lambda: Available(predicted.total - 1, "a test")
    )
    message = (
        rf"^fit: training on batches of 8 needs {in_bytes(predicted.total)} of memory \(8\.0 MiB "
        r"parameters, 8\.0 MiB gradients, 8\.0 MiB optimizer state, .* workspace\), but "
        rf"{in_bytes(predicted.total - 1)} are available \(a test\)\. The environment variable "
        r"CHAINRULE_MEMORY replaces this limit: the most memory of the process, such as "
        r'"64GiB", or "unlimited"$'
    )
    with pytest.raises(MemoryError, match=message):
        fit(net, optimizer=optimizer)
    assert not net.storage.weights.allocated
    monkeypatch.setattr(available_memory, "available", lambda: Available(predicted.total, "a test"))
    fit(net, optimizer=optimizer)
    # Weights and gradients are allocated now. The other parts would be new.
    left = predicted.total - predicted.parameters - predicted.gradients
    monkeypatch.setattr(available_memory, "available", lambda: Available(left - 1, "a test"))
    with pytest.raises(MemoryError, match=rf"needs {in_bytes(left)} of more memory \(8.0 MiB opt"):
        fit(net, optimizer=optimizer)
    monkeypatch.setattr(available_memory, "available", lambda: Available(left, "a test"))
    fit(net, optimizer=optimizer)


def test_copies_of_stopping_rules_are_included(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(available_memory, "available", lambda: Available(0, "a test"))
    rules = [cr.EarlyStopping(1), cr.GradientBelow(1e-3)]
    for stop, copies in ((rules[0], 8), (rules[1], 32), (rules, 40)):
        with pytest.raises(MemoryError, match=rf", {copies}\.\d MiB copies\)"):
            fit(middling(), 8, stop=stop, validation=0.25)


def test_activations_that_do_not_fit_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    net = cr.Sequential(cr.Linear(4), input_shape=(2,))
    print(net.vector)
    monkeypatch.setattr(available_memory, "available", lambda: Available(1000, "a test"))
    with pytest.raises(
        MemoryError, match=r"Sequential: a batch of 500000 needs 2.* but 1000 B are"
    ):
        net.forward(np.ones((500_000, 2), np.float32))
    net.forward(np.ones((100, 2), np.float32))


def test_the_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OVERRIDE, "1GiB")
    there = available()
    assert there is not None
    # The memory that the process holds already is included.
    assert 0 < there.nbytes < GIB
    assert re.fullmatch(
        r"CHAINRULE_MEMORY is 1\.0 GiB, of which this process holds \d+\.\d [MG]iB", there.source
    )
    monkeypatch.setenv(OVERRIDE, "1 MiB")
    there = available()
    assert there is not None
    assert there.nbytes == 0
    # Most likely a number of GiB was meant.
    monkeypatch.setenv(OVERRIDE, "64")
    message = r"but 0 B are available \(CHAINRULE_MEMORY is 64 B, of which this process holds \d"
    with pytest.raises(MemoryError, match=message):
        fit(cr.Sequential(cr.Linear(2), input_shape=(2,)))
    monkeypatch.setenv(OVERRIDE, "unlimited")
    assert available() is None
    fit(cr.Sequential(cr.Linear(2), input_shape=(2,)))


@pytest.mark.parametrize("text", ["", "much", "-1", "64GB", "1e9", "nan", "GiB"])
def test_an_invalid_override_raises(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OVERRIDE, text)
    with pytest.raises(
        ValueError, match="CHAINRULE_MEMORY: must be a number of bytes, a size such"
    ):
        require("this needs", 1)


# Sources of the available memory


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = (
    "MemTotal:       16777216 kB\nMemAvailable:   8388608 kB\n"
    "CommitLimit:     6291456 kB\nCommitted_AS:    2097152 kB\n"
)
MACHINE = {"proc/meminfo": MEMINFO, "proc/sys/vm/overcommit_memory": "0\n"}
STAT = "anon 5\ninactive_file 1073741824\ntotal_inactive_file 2147483648\n"


def group(path: str, limit: str, used: int, stat: str = "") -> dict[str, str]:
    base = f"sys/fs/cgroup/{path}"
    names = (
        ("limit_in_bytes", "usage_in_bytes") if path.startswith("memory") else ("max", "current")
    )
    return {f"{base}memory.{names[0]}": f"{limit}\n", f"{base}memory.{names[1]}": f"{used}\n",
            f"{base}memory.stat": stat}  # fmt: skip


@pytest.mark.parametrize(
    ("files", "gib", "source"),
    [
        ({}, 8, "MemAvailable of /proc/meminfo"),
        ({"proc/sys/vm/overcommit_memory": "2\n"}, 4, "CommitLimit of /proc/meminfo"),
        # A container with its own view, and one that sees the host's path.
        ({"proc/self/cgroup": "0::/\n", **group("", f"{3 * GIB}", GIB)},
         2, "memory.max of the control group"),
        ({"proc/self/cgroup": "0::/docker/abc\n", **group("", f"{3 * GIB}", GIB)},
         2, "memory.max of the control group"),
        # The kernel drops cached files when memory is short.
        ({"proc/self/cgroup": "0::/\n", **group("", f"{3 * GIB}", 2 * GIB, STAT)},
         2, "memory.max of the control group"),
        # The smallest limit of all groups above. "max" is no limit.
        ({"proc/self/cgroup": "0::/a/b\n", **group("a/b/", "max", GIB),
          **group("a/", f"{5 * GIB}", 4 * GIB), **group("", f"{9 * GIB}", 4 * GIB)},
         1, "memory.max of the control group"),
        ({"proc/self/cgroup": "0::/a\n", **group("a/", f"{100 * GIB}", GIB)},
         8, "MemAvailable of /proc/meminfo"),
        ({"proc/self/cgroup": "0::/a\n", **group("a/", f"{GIB}", 2 * GIB)},
         0, "memory.max of the control group"),
        # Version 1, alone and together with an empty version 2.
        ({"proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/a\n0::/\n",
          **group("memory/a/", f"{7 * GIB}", 4 * GIB, STAT)},
         5, "memory.limit_in_bytes of the control group"),
        ({"proc/self/cgroup": "4:memory:/a\n", **group("memory/", "9223372036854771712", GIB)},
         8, "MemAvailable of /proc/meminfo"),
    ],
)  # fmt: skip
def test_the_smallest_limit_is_available(
    files: dict[str, str], gib: int, source: str, tmp_path: Path
) -> None:
    assert available(tree(tmp_path, {**MACHINE, **files})) == (gib * GIB, source)


def test_no_limit_is_known(tmp_path: Path) -> None:
    assert available(tmp_path) is None


@needs_proc
def test_this_machine_has_a_limit() -> None:
    there = available()
    assert there is not None
    assert there.nbytes > 2**20


@needs_proc
def test_the_limit_of_the_address_space(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    held = int(Path("/proc/self/statm").read_text().split()[0])
    limit = held * resource.getpagesize() + 2**20
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    there = available()
    assert there is not None
    assert there.source == "the limit of the address space, ulimit -v"
    assert there.nbytes <= 2**20


# Allocation of weights when first used


def test_predicting_needs_no_gradients() -> None:
    net = middling()
    assert not net.storage.weights.allocated
    net.predict(batch(net)[0])
    assert net.storage.weights.allocated
    assert not net.storage.gradients.allocated


def test_threads_that_start_together_get_the_same_weights() -> None:
    net = middling()
    found: list[Any] = []
    barrier = threading.Barrier(8)

    def look() -> None:
        barrier.wait()
        found.append(net.vector)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(vector) for vector in found}) == 1
    assert np.array_equal(found[0], middling().vector)


def test_an_interrupted_initialization_leaves_no_partly_filled_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = middling()
    whole = middling().vector
    with monkeypatch.context() as patch:
        patch.setattr(np.random, "Philox", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            print(net.vector)
    assert not net.storage.weights.allocated
    assert np.array_equal(net.vector, whole)


def test_workspace_of_sizes_whose_product_overflows_raises() -> None:
    """Also without arrays: no division by a product that wrapped to zero."""
    for sizes in [(2**62, 2**62, 2**62), (0, 2**62, 2**62), (2**31 - 1,) * 3]:
        with pytest.raises(ValueError, match=r"linear: arrays and workspaces must be smaller"):
            cr._core.linear_workspace(*sizes, False, False)
