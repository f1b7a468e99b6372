"""The data of a training or an evaluation, checked once."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from .._types import Array
from .._validation import imported
from ..nn.losses import Loss, checked_loss, default_loss
from ..nn.network import Sequential, checked_network
from .instance_weights import (
    ClassWeight,
    SampleWeight,
    checked_class_weight,
    checked_sample_weight,
    divided_by_mean,
    require_weighted_loss,
)

# An object with `.images` and `.labels`, or a pair (x, y).
Data: TypeAlias = Any


class TrainingData:
    """Inputs and targets that fit a network and a loss.

    Parameters
    ----------
    operation : str
        The beginning of error messages.
    network : Sequential
    data : object with ``.images`` and ``.labels``, or pair (x, y)
    loss : Loss
        None means the one that the targets suggest. See `chainrule.nn.losses.default_loss`.

    Attributes
    ----------
    x : ndarray (N, *input shape)
    target : ndarray (N,) or (N, *output shape)
        As the loss reads it.
    classes : ndarray of int64 (N,), or None
        The true classes. None if the targets are not classes.
    loss : Loss
    weights : ndarray of float64 (N,), or None
        The weight of each instance. None means 1.
    relative_weights : ndarray (N,), or None
        The weights divided by their mean, of the network's dtype, after `set_divisor`.

    Raises
    ------
    TypeError, ValueError
        If an argument has another type, if shapes do not match, or if there is no instance.
    """

    def __init__(
        self, operation: str, network: Sequential, data: Data, loss: Loss | None = None
    ) -> None:
        checked_network(operation, network)
        x, y = _pair(operation, data)
        if loss is None:
            loss = default_loss(imported(operation, "y", y), network.output_shape)
        checked_loss(operation, loss)
        # `ops.gather` copies any other layout in every step.
        self.x = np.require(network.checked(operation, x), requirements=["C", "A"])
        network.architecture.check_loss(loss, dropout=False)
        self.target = loss.check(y, len(self.x), network.output_shape, network.dtype)
        self.classes = loss.classes(self.target)
        self.loss = loss
        self.weights: Array | None = None
        self.relative_weights: Array | None = None
        if len(self.x) == 0:
            raise ValueError(f"{operation}: data must have at least one instance, got 0")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def nbytes(self) -> int:
        weights = 0 if self.relative_weights is None else self.relative_weights.nbytes
        return int(self.x.nbytes + self.target.nbytes + weights)

    def weigh(
        self, operation: str, sample_weight: SampleWeight, class_weight: ClassWeight, outputs: int
    ) -> Array | None:
        """Set the weights of the instances. Return the weight of each class, or None.

        Raises
        ------
        TypeError, ValueError
            As `checked_sample_weight` and `checked_class_weight`.
        """
        if sample_weight is not None:
            self.weights = checked_sample_weight(operation, sample_weight, len(self))
        if class_weight is None:
            return None
        # One output distinguishes two classes.
        by_class = checked_class_weight(operation, class_weight, self.classes, max(2, outputs))
        self.weigh_classes(by_class)
        return by_class

    def weigh_classes(self, by_class: Array) -> None:
        """Multiply the weight of each instance by that of its class."""
        assert self.classes is not None, "class weights require classes"
        weights = by_class[self.classes]
        self.weights = weights if self.weights is None else self.weights * weights

    def set_divisor(
        self, operation: str, dtype: np.dtype[Any], indices: Array | None = None
    ) -> None:
        """Divide the weights by their mean over the instances at ``indices``. None means all.

        Raises
        ------
        TypeError
            If the loss does not take weights.
        ValueError
            If the weights of these instances are all 0.
        """
        if self.weights is None:
            return
        require_weighted_loss(operation, self.loss)
        used = self.weights if indices is None else self.weights[indices]
        relative = divided_by_mean(operation, used, dtype)
        self.relative_weights = np.zeros(len(self), dtype)
        self.relative_weights[slice(None) if indices is None else indices] = relative

    def subset(self, indices: Array) -> TrainingData:
        """Return a copy of the instances at ``indices``."""
        subset = object.__new__(TrainingData)
        subset.x, subset.target, subset.loss = self.x[indices], self.target[indices], self.loss
        subset.classes = None if self.classes is None else self.classes[indices]
        subset.weights = None if self.weights is None else self.weights[indices]
        subset.relative_weights = None
        return subset


def _pair(operation: str, data: Data) -> tuple[Any, Any]:
    if hasattr(data, "images") and hasattr(data, "labels"):
        return data.images, data.labels
    if isinstance(data, tuple | list) and len(data) == 2:
        return data[0], data[1]
    raise TypeError(
        f"{operation}: data must have .images and .labels, or be a pair (x, y), "
        f"got {type(data).__name__}"
    )
