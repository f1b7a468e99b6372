"""Learn from a CSV file: regression and classification on its columns.

The table has one row per house: its area, rooms, age and distance to the center, its price, and how
fast it was sold. One network predicts the price, another one the speed of the sale.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import chainrule as cr

Array = npt.NDArray[Any]

FEATURES = ["area", "rooms", "age", "distance"]
SPEEDS = ["slow", "normal", "fast"]


def write_houses(path: Path, rows: int = 1000, seed: int = 0) -> None:
    """Write a CSV file of invented houses, with noise in the prices.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from chainrule.examples.table import write_houses
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_houses(Path(folder, "houses.csv"), rows=2)
    ...     print(Path(folder, "houses.csv").read_text().splitlines()[0])
    area,rooms,age,distance,price,sold
    """
    rng = np.random.default_rng(seed)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*FEATURES, "price", "sold"])
        for _ in range(rows):
            area, age, distance = rng.uniform(40, 200), rng.uniform(0, 80), rng.uniform(0, 30)
            rooms = max(1, round(area / 30 + rng.normal(0, 0.7)))
            fair = 2000 * area * np.exp(-distance / 20) + 8000 * rooms - 500 * age + 50_000
            price = fair * np.exp(rng.normal(0, 0.05))
            # Houses below their fair price are sold fast.
            sold = SPEEDS[1 + int(price < 0.97 * fair) - int(price > 1.03 * fair)]
            features = f"{area:.1f}", rooms, f"{age:.0f}", f"{distance:.1f}"
            writer.writerow([*features, f"{price:.0f}", sold])


def read_columns(path: Path, names: Sequence[str]) -> Array:
    """Return columns of a CSV file as numbers, float32 (rows, len(names))."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [[float(row[name]) for name in names] for row in csv.DictReader(file)]
    return np.array(rows, np.float32)


def read_classes(path: Path, name: str, classes: Sequence[str]) -> Array:
    """Return a column of a CSV file as class numbers, int64 (rows,)."""
    with open(path, newline="", encoding="utf-8") as file:
        return np.array([classes.index(row[name]) for row in csv.DictReader(file)], np.int64)


def standardize(x: Array, train: Array) -> Array:
    """Return ``x`` with mean 0 and standard deviation 1 per column, measured on rows ``train``."""
    mean, deviation = x[train].mean(axis=0), x[train].std(axis=0)
    return np.asarray((x - mean) / deviation)


def split(rows: int, test: float = 0.2, seed: int = 0) -> tuple[Array, Array]:
    """Return the indices of training rows and of test rows, chosen at random."""
    order = np.random.default_rng(seed).permutation(rows)
    return order[round(rows * test) :], order[: round(rows * test)]


def predict_prices(path: Path, epochs: int = 60, seed: int = 0) -> tuple[float, float]:
    """Train a regression. Return its root mean square error, and that of the mean price.

    Both errors are measured on the test rows, in the unit of the price.
    """
    train, test = split(len(x := read_columns(path, FEATURES)))
    x, price = standardize(x, train), read_columns(path, ["price"])
    # The network learns prices of mean 0 and standard deviation 1. Errors are scaled back.
    mean, deviation = price[train].mean(), price[train].std()
    y = (price - mean) / deviation
    network = cr.Sequential(
        cr.Linear(32), cr.ReLU(), cr.Linear(32), cr.ReLU(), cr.Linear(1),
        input_shape=(len(FEATURES),), seed=seed,
    )  # fmt: skip
    cr.fit(
        network, (x[train], y[train]), loss=cr.SquaredError(),
        optimizer=cr.SGD(cr.OneCycle(0.02), momentum=0.9, l2=1e-4), batch_size=32, epochs=epochs,
        progress=False,
    )  # fmt: skip
    error = network.predict(x[test]) * deviation + mean - price[test]
    baseline = price[test] - mean
    return float(np.sqrt((error**2).mean())), float(np.sqrt((baseline**2).mean()))


def predict_speed(path: Path, epochs: int = 100, seed: int = 0) -> cr.Evaluation:
    """Train a classification of all columns into `SPEEDS`. Return its evaluation on test rows."""
    train, test = split(len(x := read_columns(path, [*FEATURES, "price"])))
    x, labels = standardize(x, train), read_classes(path, "sold", SPEEDS)
    network = cr.Sequential(
        cr.Linear(64), cr.ReLU(), cr.Linear(64), cr.ReLU(), cr.Linear(len(SPEEDS)),
        input_shape=(x.shape[1],), seed=seed,
    )  # fmt: skip
    cr.fit(
        network, (x[train], labels[train]), loss=cr.CrossEntropy(),
        optimizer=cr.SGD(cr.OneCycle(0.1), momentum=0.9), batch_size=32, epochs=epochs,
        progress=False,
    )  # fmt: skip
    return cr.evaluate(network, (x[test], labels[test]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train both networks on a table, and print their errors."""
    parser = argparse.ArgumentParser(prog="python -m chainrule.examples table", description=__doc__)
    parser.add_argument("--rows", type=int, default=1000, help="houses in the table")
    parser.add_argument("--seed", type=int, default=0, help="seed of table and networks")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "houses.csv")
        write_houses(path, given.rows, given.seed)
        error, baseline = predict_prices(path, seed=given.seed)
        print(f"price: root mean square error {error:,.0f}; of the mean price {baseline:,.0f}")
        evaluation = predict_speed(path, seed=given.seed)
        print(f"speed of the sale (0 {SPEEDS[0]}, 1 {SPEEDS[1]}, 2 {SPEEDS[2]}):")
        print(evaluation)


if __name__ == "__main__":
    main()
