"""Training on tables in chainrule and in scikit-learn: the same network, optimizer and rule.

Both have ReLU, Adam with its default decay rates, the same L2 term, and the rule of scikit-learn:
stop if the training loss has not fallen by `TOLERANCE` below its lowest value in more than
`PATIENCE` epochs. Three differences remain. chainrule starts from the initialization of
He with biases of 0, scikit-learn from that of Glorot. For two classes chainrule has two logits,
scikit-learn has one. The order of the instances is random in both, but not the same.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.harness.case import Array

TOLERANCE, PATIENCE = 1e-4, 10


@dataclass(frozen=True)
class Table:
    """A table and its training. ``alpha`` is scikit-learn's strength of the L2 term."""

    description: str
    layers: tuple[int, ...]
    batch_size: int
    learning_rate: float
    alpha: float
    epochs: int
    is_regression: bool = False


TABLES = {
    "diabetes": Table("442 x 10, regression, R²", (32,), 32, 1e-3, 1.0, 500, True),
    "breast-cancer": Table("569 x 30, 2 classes, accuracy", (32,), 32, 1e-3, 0.1, 300),
    # Covertype has this shape, but must be downloaded. scikit-learn contains no table of this size.
    "generated": Table("50,000 x 54, 7 classes, accuracy", (128, 64), 256, 1e-3, 1e-4, 30),
}


@dataclass(frozen=True)
class Split:
    """The standardized training and test data of one seed, in float32."""

    x: Array
    y: Array
    test_x: Array
    test_y: Array


def load(name: str, seed: int, small: bool) -> Split:
    """Return 80 % of a table to train on and 20 % to test on, chosen by the seed."""
    from sklearn import datasets, model_selection

    table = TABLES[name]
    if name == "diabetes":
        x, y = datasets.load_diabetes(return_X_y=True)
    elif name == "breast-cancer":
        x, y = datasets.load_breast_cancer(return_X_y=True)
    else:
        x, y = datasets.make_classification(
            n_samples=2000 if small else 50_000,
            n_features=54,
            n_informative=20,
            n_redundant=10,
            n_classes=7,
            flip_y=0.02,
            random_state=0,
        )
    x, test_x, y, test_y = model_selection.train_test_split(
        x, y, test_size=0.2, random_state=seed, stratify=None if table.is_regression else y
    )
    mean, scale = x.mean(axis=0), x.std(axis=0)
    x, test_x = ((part - mean) / scale for part in (x, test_x))
    if table.is_regression:
        mean, scale = y.mean(), y.std()
        y, test_y = (((part - mean) / scale).astype(np.float32) for part in (y, test_y))
    return Split(
        np.ascontiguousarray(x, np.float32),
        y,
        np.ascontiguousarray(test_x, np.float32),
        test_y,
    )


def train(library: str, name: str, seed: int, small: bool) -> dict[str, Any]:
    """Train on a table. Return the score on the test data, the epochs and the seconds."""
    table, data = TABLES[name], load(name, seed, small)
    if small:
        table = replace(table, epochs=3)
    run = _train_chainrule if library == "chainrule" else _train_sklearn
    # Imports what is imported at the first use, outside the measured time.
    first = Split(*(part[: 2 * table.batch_size] for part in vars(data).values()))
    run(replace(table, epochs=1), first, seed)
    return run(table, data, seed)


def _train_sklearn(table: Table, data: Split, seed: int) -> dict[str, Any]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    model = (MLPRegressor if table.is_regression else MLPClassifier)(
        hidden_layer_sizes=table.layers,
        solver="adam",
        alpha=table.alpha,
        batch_size=min(table.batch_size, len(data.x)),
        learning_rate_init=table.learning_rate,
        max_iter=table.epochs,
        tol=TOLERANCE,
        n_iter_no_change=PATIENCE,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        started = time.perf_counter()
        model.fit(data.x, data.y)
        seconds = time.perf_counter() - started
    score = float(model.score(data.test_x, data.test_y))
    return {"score": score, "epochs": int(model.n_iter_), "seconds": seconds}


def _train_chainrule(table: Table, data: Split, seed: int) -> dict[str, Any]:
    import chainrule as cr
    from chainrule.training.stopping import StoppingRule, StoppingState

    class Plateau(StoppingRule):
        """The rule of scikit-learn, on the training loss with its L2 term."""

        def start(self, network: Any, optimizer: Any, has_validation: bool) -> StoppingState:
            return PlateauState(network)

    class PlateauState(StoppingState):
        def __init__(self, network: Any) -> None:
            self.network, self.lowest, self.epochs_without = network, np.inf, 0

        def after_epoch(self, record: Any) -> bool:
            weights = [w for name, w in self.network.parameters.items() if name.endswith("weight")]
            squares = sum(float(np.square(weight).sum()) for weight in weights)
            # scikit-learn's loss of a regression is half of the squared error.
            loss = record.train_loss * (0.5 if table.is_regression else 1.0)
            loss += 0.5 * table.alpha * squares / table.batch_size
            # As scikit-learn does: a small decrease counts as none, but is the new lowest value.
            is_lower = loss <= self.lowest - TOLERANCE
            self.epochs_without = 0 if is_lower else self.epochs_without + 1
            self.lowest = min(self.lowest, loss)
            return self.epochs_without > PATIENCE

    outputs = 1 if table.is_regression else int(data.y.max()) + 1
    hidden = [layer for units in table.layers for layer in (cr.Linear(units), cr.ReLU())]
    network = cr.Sequential(*hidden, cr.Linear(outputs), input_shape=data.x.shape[1:], seed=seed)
    # scikit-learn divides alpha by the batch size, and its gradient has no factor 2.
    l2 = table.alpha / (2 * table.batch_size) * (2 if table.is_regression else 1)
    loss = cr.SquaredError() if table.is_regression else cr.CrossEntropy()
    y = data.y[:, None] if table.is_regression else data.y
    started = time.perf_counter()
    history = cr.fit(
        network,
        (data.x, y),
        loss=loss,
        optimizer=cr.Adam(table.learning_rate, l2=l2),
        batch_size=table.batch_size,
        epochs=table.epochs,
        stop=Plateau(),
        progress=False,
    )
    seconds = time.perf_counter() - started
    output = network.predict(data.test_x)
    if table.is_regression:
        error = float(np.square(output[:, 0] - data.test_y).sum())
        score = 1 - error / float(np.square(data.test_y - data.test_y.mean()).sum())
    else:
        score = float((output.argmax(axis=1) == data.test_y).mean())
    return {"score": score, "epochs": len(history.epochs), "seconds": seconds}
