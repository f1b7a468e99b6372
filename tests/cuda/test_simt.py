"""The fiber emulation of CUDA in tests/simt: results, scheduling orders and errors.

Needs a C++ compiler.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORDERS = ["forward", "backward", "shuffled"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++")
    if not compiler or not (ROOT / "csrc").is_dir():
        pytest.skip("needs g++ and the sources beside the tests")
    target = tmp_path_factory.mktemp("simt") / "misuse"
    sources = [ROOT / "tests/simt/misuse.cpp", ROOT / "tests/simt/shim.cpp"]
    include = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests'}"]
    subprocess.run([compiler, "-std=c++20", "-O1", *include, *sources, "-o", target], check=True)
    return target


def run(program: Path, kernel: str, threads: int, order: str = "forward") -> str:
    environment = {**os.environ, "CHAINRULE_SIMT_ORDER": order}
    result = subprocess.run(
        [program, kernel, str(threads)], env=environment, capture_output=True, text=True, check=True
    )
    return result.stdout


@pytest.mark.parametrize("order", ORDERS)
def test_barriers_and_shuffles(program: Path, order: str) -> None:
    assert run(program, "reversed", 64, order).split() == [str(i) for i in reversed(range(64))]
    sums = [sum(range(32 * warp, 32 * warp + 32)) for warp in range(4)]
    assert run(program, "sums", 128, order).split() == [str(sums[i // 32]) for i in range(128)]


def test_scheduling_orders_reveal_a_race(program: Path) -> None:
    assert len({run(program, "race", 64, order) for order in ORDERS}) == len(ORDERS)
    assert run(program, "overtaken", 64, "forward").split() == ["1"] * 32 + ["2"] * 32


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("kernel", "threads", "message"),
    [
        ("barrier_for_some", 64, "deadlock"),
        ("two_barriers", 64, "deadlock"),
        ("warp_for_some", 32, "deadlock"),
        ("absent_lane", 40, "source lane must be in the mask"),
        ("unnamed_lane", 32, "mask must include the calling lane"),
        ("masks_differ", 32, "mask must be the same in all lanes of a warp"),
        ("past_the_end", 32, "wrote past its dynamic shared memory"),
        (
            "reversed",
            2048,
            "a block must have 1 to 1024 threads and at most 64 in z, got (2048, 1, 1)",
        ),
    ],
)
def test_invalid_use_raises(
    program: Path, kernel: str, threads: int, message: str, order: str
) -> None:
    assert message in run(program, kernel, threads, order)


def test_deadlock_error_names_threads_and_locations(program: Path) -> None:
    assert run(program, "barrier_for_some", 64).strip() == (
        "kernel: block (0, 0, 0): deadlock: thread (0, 0, 0) waits in "
        "__syncthreads at misuse.cpp:13, thread (5, 0, 0) has returned"
    )


def test_unknown_order_raises(program: Path) -> None:
    assert "must be forward, backward or shuffled, got sideways" in run(
        program, "reversed", 64, "sideways"
    )
