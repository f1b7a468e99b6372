"""Same seed, same bits, for any number of threads. The thread pool works after forks and races."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from run_subprocess import run_child
from subprocess_tasks import NETWORKS, conv_network, fit_steps, trained_bits

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def switch_often() -> Iterator[None]:
    """Make Python switch threads as often as possible, to expose races."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def run_threads(targets: list[Callable[[], Any]], seconds: float = 120) -> list[Any]:
    """Run ``targets`` at the same time, one thread each. Return results or raise the first error.

    The threads are daemons: a deadlock fails the test instead of blocking the test run.
    """
    results: list[Any] = [None] * len(targets)
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(targets))

    def call(slot: int) -> None:
        try:
            barrier.wait(seconds)
            results[slot] = targets[slot]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(i,), daemon=True) for i in range(len(targets))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
        assert not thread.is_alive(), f"a thread hung for {seconds} s"
    if errors:
        raise errors[0]
    return results


def test_fresh_processes_end_in_the_same_bits_for_any_threads() -> None:
    # OpenBLAS starts a pool, too. With one thread for it, the counted workers are the library's.
    reports = [
        json.loads(run_child("train", CHAINRULE_NUM_THREADS=str(n), OPENBLAS_NUM_THREADS="1"))
        for n in (1, 2, 3, 4)
    ]
    assert [report["threads"] for report in reports] == [1, 2, 3, 4]
    for name in NETWORKS:
        assert len({report[name] for report in reports}) == 1, name
    if sys.platform == "linux":
        # Otherwise each process used one thread, and the comparison above would be vacuous.
        assert reports[0]["workers"] == 0
        assert reports[3]["workers"] >= 1


@pytest.mark.parametrize("name", NETWORKS)
def test_one_process_ends_in_the_same_bits_for_any_threads(
    backend: str, name: str, threads: None
) -> None:
    found = set()
    for n in (1, 2, 3, 4):
        cr.set_num_threads(n)
        assert cr.get_num_threads() == n
        found.add(trained_bits(name, steps=10))
    assert len(found) == 1


@pytest.mark.parametrize("name", NETWORKS)
def test_the_seed_decides_the_bits(name: str) -> None:
    first = trained_bits(name, steps=5)
    assert trained_bits(name, steps=5) == first
    assert trained_bits(name, steps=5, seed=12) != first


@needs_fork
def test_hundred_forked_children_answer_after_use() -> None:
    run_child("fork_after_use", "100", CHAINRULE_NUM_THREADS="4", OPENBLAS_NUM_THREADS="1")


@needs_fork
def test_children_forked_while_a_kernel_runs_answer() -> None:
    run_child("fork_during_kernel", "30", CHAINRULE_NUM_THREADS="4", OPENBLAS_NUM_THREADS="1")


@needs_fork
def test_children_forked_during_a_training_predict() -> None:
    run_child("fork_during_training", "60", seconds=300, CHAINRULE_NUM_THREADS="4")


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_threads_that_memory_lacked_for_are_created_later() -> None:
    # One thread for OpenBLAS, so that the counted threads are the library's.
    run_child("threads_after_short_memory", OPENBLAS_NUM_THREADS="1")


def test_changing_the_threads_while_kernels_run_is_safe() -> None:
    run_child("resize_during_kernels", "200")


def test_changing_the_threads_while_programs_run_is_safe() -> None:
    run_child("replay_during_resize", "40")


def test_the_interpreter_exits_while_the_pool_is_busy() -> None:
    run_child("exit_while_busy", seconds=60, CHAINRULE_NUM_THREADS="4")


@pytest.mark.usefixtures("switch_often", "threads")
def test_eight_threads_predict_what_one_does() -> None:
    cr.set_num_threads(2)
    network = conv_network()
    images = cr.data.digits()[1].images
    parts = [images[slot * 37 : slot * 37 + 20 + slot] for slot in range(8)]
    serial = [network.predict(part) for part in parts]

    def predictor(slot: int) -> Callable[[], list[np.ndarray[Any, Any]]]:
        return lambda: [network.predict(parts[slot]) for _ in range(20)]

    for slot, answers in enumerate(run_threads([predictor(slot) for slot in range(8)])):
        for answer in answers:
            np.testing.assert_array_equal(answer, serial[slot], strict=True)


@pytest.mark.usefixtures("switch_often", "threads")
def test_eight_threads_train_their_own_networks_as_one_does() -> None:
    cr.set_num_threads(2)
    serial = trained_bits("mlp", steps=4)
    assert set(run_threads([lambda: trained_bits("mlp", steps=4)] * 8)) == {serial}


def test_second_fit_during_training_is_an_error() -> None:
    network = cr.recipes.mlp(7)
    begun, release = threading.Event(), threading.Event()

    def hold(*_: Any) -> None:
        begun.set()
        assert release.wait(60)

    train = cr.data.digits()[0][:240]

    def first_fit() -> cr.History:
        return cr.fit(
            network, train, loss=cr.CrossEntropy(), optimizer=cr.SGD(learning_rate=0.05),
            batch_size=120, epochs=1, callbacks=[hold], progress=False,
        )  # fmt: skip

    def second_fit() -> None:
        assert begun.wait(60)
        try:
            with pytest.raises(RuntimeError, match="already training"):
                fit_steps(network, 1)
        finally:
            release.set()

    history, _ = run_threads([first_fit, second_fit])
    assert len(history.epochs) == 1
    fit_steps(network, 1)
