"""The weights of instances: ``sample_weight`` and ``class_weight`` of `fit` and `evaluate`.

A weight of 3 has the effect of three copies of the instance. Weights are divided by their mean
once, so the divisor of a step remains its number of instances, and a learning rate means the same
for weights of any scale. The mean of the steps of an epoch is then the gradient of the weighted
mean. If each step divided by its own sum of weights, as in some libraries, it would not be: batches
without an instance of a rare class would count as much as those with one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .._types import Array
from .._validation import imported, integer, number
from ..nn import user_defined
from ..nn.losses import Loss

SampleWeight: TypeAlias = npt.ArrayLike | None
ClassWeight: TypeAlias = Mapping[int, float] | str | None


def checked_sample_weight(operation: str, value: SampleWeight, count: int) -> Array:
    """Return the weights of ``count`` instances in float64.

    Raises
    ------
    TypeError, ValueError
        If they are not finite numbers of at least 0, one per instance.
    """
    weight = imported(operation, "sample_weight", value)
    if weight.dtype.kind not in "fiub":
        raise TypeError(f"{operation}: sample_weight must be numbers, got {weight.dtype}")
    if weight.shape != (count,):
        hint = ": use sample_weight[:, 0]" if weight.shape == (count, 1) else ""
        raise ValueError(
            f"{operation}: sample_weight must have shape ({count},), got {weight.shape}{hint}"
        )
    weight = weight.astype(np.float64)
    wrong = ~((weight >= 0) & (weight < np.inf))
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ValueError(
            f"{operation}: sample_weight must be finite and at least 0, got {weight[index]:g} at "
            f"index {index}"
        )
    return weight


def checked_class_weight(
    operation: str, value: ClassWeight, labels: Array | None, classes: int
) -> Array:
    """Return the weight of each class in float64.

    Parameters
    ----------
    operation : str
        The beginning of error messages.
    value : mapping of class to weight, or "balanced"
        Classes that are missing have weight 1. "balanced" means N / (K · n), with N instances, K
        classes that occur, and n instances of the class: all that occur count as much in all.
    labels : ndarray of int64 (N,), or None
    classes : int

    Raises
    ------
    TypeError, ValueError
        If it is invalid, or if there are no classes.
    """
    if labels is None:
        raise ValueError(
            f"{operation}: class_weight must be None if targets are not classes, got {value!r}: "
            f"use sample_weight"
        )
    if isinstance(value, str):
        if value != "balanced":
            raise ValueError(
                f'{operation}: class_weight must be "balanced" or a dict, got {value!r}'
            )
        counts = np.bincount(labels, minlength=classes)
        occurs = np.count_nonzero(counts)
        return np.where(counts > 0, len(labels) / (occurs * np.maximum(counts, 1)), 1.0)
    if not isinstance(value, Mapping):
        raise TypeError(
            f"{operation}: class_weight must be a dict such as {{0: 1.0, 1: 5.0}}, or "
            f'"balanced", got {type(value).__name__}'
        )
    weights = np.ones(classes)
    for key, weight in value.items():
        index = integer(operation, "a class of class_weight", key, 0, classes - 1)
        weights[index] = number(operation, f"class_weight[{index}]", weight, 0)
    return weights


def require_weighted_loss(operation: str, loss: Loss) -> None:
    """Raise TypeError if ``loss`` does not take weights."""
    if not user_defined.takes_weights(loss):
        raise TypeError(
            f"{operation}: loss must take weights for sample_weight and class_weight, got "
            f"{loss!r}: define its compare with the parameters weight=None and instances=None"
        )


def divided_by_mean(operation: str, weights: Array, dtype: npt.DTypeLike) -> Array:
    """Return weights of mean 1. Raise ValueError if they are all 0."""
    largest = weights.max(initial=0)
    if largest == 0:
        raise ValueError(f"{operation}: weights must not all be 0, got {len(weights)} of 0")
    relative = weights / largest  # their sum does not overflow
    return np.asarray(relative / relative.mean(), dtype)
