"""The fibers that stand in for a GPU: what they compute, and what they refuse. Needs a C++
compiler."""

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
def test_threads_wait_and_exchange(program: Path, order: str) -> None:
    assert run(program, "reversed", 64, order).split() == [str(i) for i in reversed(range(64))]
    sums = [sum(range(32 * warp, 32 * warp + 32)) for warp in range(4)]
    assert run(program, "sums", 128, order).split() == [str(sums[i // 32]) for i in range(128)]


def test_orders_show_a_race(program: Path) -> None:
    assert len({run(program, "race", 64, order) for order in ORDERS}) == len(ORDERS)
    assert run(program, "overtaken", 64, "forward").split() == ["1"] * 32 + ["2"] * 32


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("kernel", "threads", "message"),
    [
        ("barrier_for_some", 64, "wait for each other in vain"),
        ("two_barriers", 64, "wait for each other in vain"),
        ("warp_for_some", 32, "wait for each other in vain"),
        ("absent_lane", 40, "reads from lane"),
        ("unnamed_lane", 32, "its mask does not name the lane that calls it"),
        ("masks_differ", 32, "with different masks"),
        ("past_the_end", 32, "wrote past its dynamic shared memory"),
        ("reversed", 2048, "a block has 1 to 1024 threads, 64 in z, got (2048, 1, 1)"),
    ],
)
def test_misuse_is_an_error(
    program: Path, kernel: str, threads: int, message: str, order: str
) -> None:
    assert message in run(program, kernel, threads, order)


def test_an_error_says_who_waits_where(program: Path) -> None:
    assert run(program, "barrier_for_some", 64).strip() == (
        "kernel: threads of block (0, 0, 0) wait for each other in vain: thread (0, 0, 0) waits in "
        "__syncthreads at misuse.cpp:12, thread (5, 0, 0) has returned"
    )


def test_an_unknown_order_is_refused(program: Path) -> None:
    assert "must be forward, backward or shuffled, got sideways" in run(
        program, "reversed", 64, "sideways"
    )
