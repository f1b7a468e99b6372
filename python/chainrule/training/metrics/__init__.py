"""Metrics: numbers that `evaluate` and `fit` measure on predictions.

The definitions are those of scikit-learn. A metric reads the predictions batch by batch, in one
pass, and keeps only sums or counts. `RocAuc` also keeps one score per instance. All sums are
float64.
"""

from ..base_metric import Metric, Predictions, Task
from .classification import F1, Accuracy, ClassCounts, Precision, Recall, RocAuc, TopK
from .regression import MAE, R2, RMSE
from .selection import MetricLike, Metrics

__all__ = [
    "F1",
    "MAE",
    "R2",
    "RMSE",
    "Accuracy",
    "ClassCounts",
    "Metric",
    "MetricLike",
    "Metrics",
    "Precision",
    "Predictions",
    "Recall",
    "RocAuc",
    "Task",
    "TopK",
]
