"""Train many small networks at once: learning rates and seeds, in parallel processes.

A small network is too small to occupy all CPUs. One process per CPU, each with one thread, trains
as many networks at once. A result depends on the setting alone, not on the number of processes.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import chainrule as cr

Array = npt.NDArray[Any]


class Setting(NamedTuple):
    """One training of the sweep."""

    learning_rate: float
    seed: int


class Result(NamedTuple):
    """A setting, and the validation accuracy that it reached."""

    setting: Setting
    accuracy: float


def two_spirals(count: int = 600, seed: int = 0) -> tuple[Array, Array]:
    """Return points (N, 2) float32 on two spirals, and the spiral of each, int64 (N,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    turn = rng.uniform(0.25, 1, count)
    angle = 2 * np.pi * 1.25 * turn + np.pi * labels
    points = turn[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (points + rng.normal(0, 0.02, points.shape)).astype(np.float32), labels


def train_one(setting: Setting, epochs: int = 40) -> Result:
    """Train one network, and return its validation accuracy."""
    network = cr.Sequential(
        cr.Linear(32), cr.ReLU(), cr.Linear(32), cr.ReLU(), cr.Linear(2), input_shape=(2,),
        seed=setting.seed,
    )  # fmt: skip
    history = cr.fit(
        network, two_spirals(), loss=cr.CrossEntropy(),
        optimizer=cr.SGD(setting.learning_rate, momentum=0.9), batch_size=32, epochs=epochs,
        validation=0.25, progress=False,
    )  # fmt: skip
    accuracy = history.epochs[-1].validation_accuracy
    assert accuracy is not None, "labels have an accuracy"
    return Result(setting, accuracy)


def sweep(
    learning_rates: Iterable[float], seeds: Iterable[int], processes: int | None = None
) -> list[Result]:
    """Train one network per pair of learning rate and seed, the pairs in parallel.

    Parameters
    ----------
    learning_rates : iterable of float
    seeds : iterable of int
    processes : int, at least 1
        None means one per CPU. With 1, no other process is started.

    Returns
    -------
    list of Result
        In the order of the pairs.

    Examples
    --------
    >>> from chainrule.examples.sweep import sweep
    >>> results = sweep([0.1], seeds=[0, 1], processes=1)
    >>> [result.setting.seed for result in results]
    [0, 1]
    """
    settings = [Setting(*pair) for pair in itertools.product(learning_rates, seeds)]
    if processes == 1:
        return [train_one(setting) for setting in settings]
    # A new interpreter per process ("spawn") works on every system. The processes share the CPUs,
    # so each of them uses one thread.
    with ProcessPoolExecutor(
        max_workers=processes or os.cpu_count(),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=cr.set_num_threads,
        initargs=(1,),
    ) as pool:
        return list(pool.map(train_one, settings))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a sweep, and print the mean accuracy per learning rate."""
    parser = argparse.ArgumentParser(prog="python -m chainrule.examples sweep", description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="trainings per learning rate")
    parser.add_argument("--processes", type=int, help="processes at once; one per CPU without")
    given = parser.parse_args(arguments)
    learning_rates = [0.003, 0.01, 0.03, 0.1]
    results = sweep(learning_rates, range(given.seeds), given.processes)
    print("learning rate  mean accuracy  lowest")
    for learning_rate in learning_rates:
        found = [one.accuracy for one in results if one.setting.learning_rate == learning_rate]
        print(f"{learning_rate:13g}  {np.mean(found):13.1%}  {min(found):6.1%}")


if __name__ == "__main__":
    main()
