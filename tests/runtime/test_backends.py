"""Choice of the backend and of threads, `info`, and process state that stays unchanged."""

from __future__ import annotations

import importlib.metadata
import os
import threading

import numpy as np
import pytest

import chainrule
from cases import normal, seeded, subnormals
from chainrule import ops
from op_contract import raises
from run_subprocess import python_output, run_python

ORDER = ("scalar", "sse2", "avx2", "avx512", "neon")
POSSIBLE = ", ".join(chainrule.backends())


def test_backends_from_worst_to_best() -> None:
    names = chainrule.backends()
    assert isinstance(names, tuple)
    assert names[0] == "scalar"
    assert list(names) == sorted(names, key=ORDER.index)
    assert set(names) <= set(chainrule._core.backends_compiled()) <= set(ORDER)


EMPTY = """
import numpy as np
from chainrule import ops
n = 2**40
x, y, argmax = (np.empty(shape, kind) for shape, kind in
                [((n, 2, 2, 0), "f4"), ((n, 1, 1, 0), "f4"), ((n, 1, 1, 0), "u2")])
weight, rows = np.empty((0, 1, 1, 0), "f4"), x.reshape(n, 0)
for results in (
    ops.max_pool2d(x, 2), ops.max_pool2d_backward(y, argmax, x.shape, 2),
    ops.conv2d(x, weight), ops.conv2d_backward_input(x, weight, x.shape),
    ops.conv2d_backward_weight(x, x, 1), ops.conv2d_pooled(x, weight, window=2),
    ops.conv2d_pooled_backward_input(y, argmax, weight, x.shape, 2),
    ops.conv2d_pooled_backward_input(
        y[:1], argmax[:1], weight, (1, n, 1, 0), window=1, stride=(n, 1)),
    ops.conv2d_pooled_backward_weight(y, argmax, x, 1, 2),
    ops.softmax(rows), ops.log_softmax(rows), ops.softmax_backward(rows, rows),
    ops.softmax(np.empty((0, 2**61 - 1), "f4")),
    ops.relu(rows), ops.gelu(rows), ops.leaky_relu(rows, 0.1), ops.dropout(rows, rate=0.5, seed=1),
    ops.matmul(rows, np.empty((0, 0), "f4")), ops.linear(rows, np.empty((0, 0), "f4")),
    ops.linear_backward(*2 * [np.empty((2**60, 0), "f4")], np.empty((0, 0), "f4")),
    ops.conv2d_backward_weight(*2 * [np.empty((0, 2**20, 2**20, 1), "f4")], (1, 1))[0][:0],
):
    for result in results if isinstance(results, tuple) else (results,):
        assert result.size == 0
print("answered")
"""


def test_empty_rows_take_no_time(backend: str) -> None:
    """Kernels do not loop over 2**40 empty rows, a loop that Ctrl-C could not interrupt."""
    assert python_output(EMPTY, CHAINRULE_BACKEND=backend) == "answered"


def test_all_compiled_for_this_architecture() -> None:
    compiled = set(chainrule._core.backends_compiled())
    assert compiled in ({"scalar", "sse2", "avx2", "avx512"}, {"scalar", "neon"})


def test_the_forced_backend_is_the_active_one(backend: str) -> None:
    assert chainrule.info()["backend"] == backend


def test_backends_are_different_code() -> None:
    """Vector widths differ, and so do orders of sums. Equal bits would mean the same code ran."""
    a, b = normal(seeded(1), (64, 515), np.float32), normal(seeded(2), (515, 64), np.float32)
    before = chainrule.info()["backend"]
    results = {}
    try:
        for name in chainrule.backends():
            chainrule.set_backend(name)
            results[name] = ops.matmul(a, b).tobytes()
            results[name] += ops.softmax(a).tobytes()
    finally:
        chainrule.set_backend(before)
    assert len(results) == 1 or len(set(results.values())) > 1


def test_the_best_backend_is_chosen_at_import() -> None:
    code = "import chainrule; print(chainrule.info()['backend'], chainrule.backends()[-1])"
    chosen, best = python_output(code).split()
    assert chosen == best


@pytest.mark.parametrize("name", chainrule.backends())
def test_the_environment_forces_a_backend(name: str) -> None:
    code = "import chainrule; print(chainrule.info()['backend'])"
    assert python_output(code, CHAINRULE_BACKEND=name) == name


@pytest.mark.parametrize("name", ["foo", "AVX2", "avx2 ", "neon,scalar"])
def test_an_unknown_backend_in_the_environment(name: str) -> None:
    done = run_python("import chainrule", CHAINRULE_BACKEND=name)
    assert done.returncode == 1
    text = f'CHAINRULE_BACKEND: backend must be one of {POSSIBLE}, got "{name}"'
    assert done.stderr.splitlines()[-1] == f"ImportError: {text}"


def test_empty_variable_counts_as_unset() -> None:
    code = "import chainrule; print(chainrule.info()['backend'])"
    unset = python_output(code)
    assert python_output(code, CHAINRULE_BACKEND="", CHAINRULE_NUM_THREADS="") == unset


@pytest.mark.parametrize("name", ["foo", "", "SSE2"])
def test_set_backend_errors(name: str) -> None:
    before = chainrule.info()["backend"]
    text = f'set_backend: backend must be one of {POSSIBLE}, got "{name}"'
    with raises(ValueError, text):
        chainrule.set_backend(name)
    assert chainrule.info()["backend"] == before


def test_set_backend_requires_a_string() -> None:
    with pytest.raises(TypeError):
        chainrule.set_backend(None)


@pytest.mark.usefixtures("threads")
def test_number_of_threads() -> None:
    for n in (1, 3, 2, np.int16(4), 4096):
        chainrule.set_num_threads(n)
        assert chainrule.get_num_threads() == n
        assert chainrule.info()["threads"] == n
    for bad in (0, -1, -(2**63), -(2**70)):
        with raises(ValueError, f"set_num_threads: n must be at least 1, got {bad}"):
            chainrule.set_num_threads(bad)
    for bad in (4097, 2**31, 2**64):
        with raises(ValueError, f"set_num_threads: n must be at most 4096, got {bad}"):
            chainrule.set_num_threads(bad)
    for bad in (1.0, "2", None, True):
        with raises(TypeError, f"set_num_threads: n must be an integer, got {bad!r}"):
            chainrule.set_num_threads(bad)
    assert chainrule.get_num_threads() == 4096


def test_the_environment_sets_the_threads() -> None:
    code = "import chainrule; print(chainrule.get_num_threads())"
    assert python_output(code, CHAINRULE_NUM_THREADS="3") == "3"
    assert 1 <= int(python_output(code)) <= (os.cpu_count() or 1)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "2x", "4097", "99999999999999999999"])
def test_a_bad_number_of_threads_in_the_environment(text: str) -> None:
    done = run_python("import chainrule", CHAINRULE_NUM_THREADS=text)
    assert done.returncode == 1
    wanted = "CHAINRULE_NUM_THREADS: must be an integer in [1, 4096], got"
    assert done.stderr.splitlines()[-1] == f'ImportError: {wanted} "{text}"'


def test_info() -> None:
    info = chainrule.info()
    assert set(info) >= {
        "version",
        "compiler",
        "backends_compiled",
        "backends_runnable",
        "backend",
        "threads",
        "cuda",
    }
    assert info["version"] == chainrule.__version__
    assert info["compiler"].split()[0] in ("gcc", "clang")
    assert tuple(info["backends_runnable"]) == chainrule.backends()
    assert list(info["backends_compiled"]) == chainrule._core.backends_compiled()
    assert info["backend"] in info["backends_runnable"]
    assert info["threads"] == chainrule.get_num_threads()


def test_version_is_the_installed_one() -> None:
    try:
        installed = importlib.metadata.version("chainrule")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("chainrule was built but not installed here: no metadata to compare with")
    assert chainrule.__version__ == installed


def test_info_returns_a_new_dict() -> None:
    chainrule.info()["backend"] = "changed"
    assert chainrule.info()["backend"] != "changed"


SUBNORMALS = """
import numpy as np
def kept():
    smallest = np.array([np.finfo(t).smallest_subnormal for t in ("f4", "f8")])
    tiny = np.float32(2) ** -149, np.float64(2) ** -1074
    return all(t * t.dtype.type(1) != 0 and t + t == 2 * t != 0 for t in tiny)
assert kept()
import chainrule
assert kept()
from chainrule import ops
x = np.full((64, 64), 1e-42, "f4")
assert np.all(ops.relu(x) == x)
for n in (1, 4):
    chainrule.set_num_threads(n)
    for t in ("f4", "f8"):
        a = np.ones((300, 300), t)
        ops.matmul(a, a); ops.softmax(a); ops.dropout(a, .5, seed=1); ops.relu(a)
        ops.conv2d(np.ones((4, 20, 20, 8), t), np.ones((16, 3, 3, 8), t))
        assert kept()
print("kept")
"""


@pytest.mark.parametrize("name", chainrule.backends())
def test_floating_point_mode_is_unchanged(name: str) -> None:
    """Neither import nor use makes the caller's thread flush subnormal numbers to zero."""
    assert python_output(SUBNORMALS, CHAINRULE_BACKEND=name) == "kept"


def test_subnormals_survive_in_every_thread(backend: str) -> None:
    """In the caller's thread after use, and in the kernels."""
    x = subnormals(seeded(0), (100_000,), np.float32)
    x[x == 0] = np.finfo(np.float32).smallest_subnormal
    wrong = []

    def work() -> None:
        if not np.array_equal(ops.leaky_relu(x, 1.0), x) or (x * np.float32(1) == 0).any():
            wrong.append(threading.get_ident())

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_import_loads_no_optional_module() -> None:
    code = """
import sys, chainrule
extras = {"matplotlib", "click", "tqdm", "pooch", "PIL", "torch", "torchvision", "scipy"}
print(sorted(extras & {name.split(".")[0] for name in sys.modules}))
"""
    assert python_output(code) == "[]"


def test_import_changes_no_process_state() -> None:
    """Signal handlers, random state and the number of threads stay the same."""
    code = """
import random, signal, threading
import numpy as np
def look():
    handlers = [signal.getsignal(s) for s in signal.valid_signals()]
    return handlers, random.getstate(), threading.active_count()
before = look()
state = np.random.get_state()[1].tobytes()
import chainrule
assert look() == before
assert np.random.get_state()[1].tobytes() == state
print("same")
"""
    assert python_output(code) == "same"
