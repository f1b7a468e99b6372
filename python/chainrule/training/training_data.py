"""The data of a training or an evaluation, checked once."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from .._random import generator
from .._types import Array
from .._validation import imported
from ..nn.conversion import Conversions
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

# An object with `.images` and `.labels`, a pair (x, y), or x where y is another argument.
Data: TypeAlias = Any


class TrainingData:
    """Inputs and targets that fit a network and a loss.

    Parameters
    ----------
    operation : str
        The beginning of error messages.
    network : Sequential
    data : object with ``.images`` and ``.labels``, pair (x, y), or x
    loss : Loss
        None means the one that the targets suggest. See `chainrule.nn.losses.default_loss`.
    y : array_like
        The targets, if ``data`` is x. x and y are converted as `Conversions` describes.
    conversions : Conversions
        Collects what was rounded. None means that this call warns.

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
        self,
        operation: str,
        network: Sequential,
        data: Data,
        loss: Loss | None = None,
        y: object = None,
        conversions: Conversions | None = None,
    ) -> None:
        checked_network(operation, network)
        x, y = _pair(operation, data, y)
        if loss is None:
            loss = default_loss(imported(operation, "y", y), network.output_shape)
        checked_loss(operation, loss)
        found = Conversions(operation) if conversions is None else conversions
        # `ops.gather` copies any other layout in every step.
        self.x = np.require(
            found.input(operation, network.architecture, x), requirements=["C", "A"]
        )
        network.architecture.check_loss(loss, dropout=False)
        self.target = found.target(loss, y, len(self.x), network.output_shape, network.dtype)
        self.classes = loss.classes(self.target)
        self.loss = loss
        self.weights: Array | None = None
        self.relative_weights: Array | None = None
        if len(self.x) == 0:
            raise ValueError(f"{operation}: data must have at least one instance, got 0")
        if conversions is None:
            found.warn()

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

    def split(self, fraction: float, seed: int) -> tuple[Array, Array]:
        """Return the sorted indices of the instances to train on, and of those held out.

        The held-out instances are the first ones of a seeded permutation. If the targets are
        classes, each class is split in proportion: the numbers held out per class are rounded so
        that their sum is that of all instances (method of the largest remainder). At least one
        instance of each class remains to train on.

        Raises
        ------
        ValueError
            If one of the two parts is empty.
        """
        count = len(self)
        held_out = round(count * fraction)
        order = generator(seed, 3).permutation(count)
        if self.classes is None:
            chosen = order[:held_out]
        else:
            order = order[np.argsort(self.classes[order], kind="stable")]
            _, first, sizes = np.unique(self.classes[order], return_index=True, return_counts=True)
            quotas = _apportioned(sizes, held_out, count)
            rank_in_class = np.arange(count) - np.repeat(first, sizes)
            chosen = order[rank_in_class < np.repeat(quotas, sizes)]
        if not 0 < len(chosen) < count:
            reason = "" if held_out in (0, count) else ": each class has one instance to train on"
            raise ValueError(
                f"fit: validation must leave at least one instance to validate on and one to train "
                f"on, got {len(chosen)} and {count - len(chosen)} with validation={fraction:g} of "
                f"{count}{reason}"
            )
        is_held_out = np.zeros(count, np.bool)
        is_held_out[chosen] = True
        return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def _apportioned(sizes: Array, total: int, count: int) -> Array:
    """Return the number to hold out of each class, at most all but one of its instances."""
    exact = sizes * total  # in units of 1 / count, so that the arithmetic is of integers
    quotas: Array = np.minimum(exact // count, sizes - 1)
    # Classes of equal remainders: the first one.
    for index in np.argsort(-(exact % count), kind="stable"):
        if quotas.sum() >= total:
            break
        quotas[index] += quotas[index] < sizes[index] - 1
    return quotas


def _pair(operation: str, data: Data, y: object) -> tuple[Any, Any]:
    is_table = hasattr(data, "columns")  # which can have columns of these names
    has_labels = hasattr(data, "images") and hasattr(data, "labels") and not is_table
    if y is not None:
        if has_labels:
            raise TypeError(
                f"{operation}: y must be omitted if data has .images and .labels, "
                f"got {type(y).__name__}"
            )
        return data, y
    if has_labels:
        return data.images, data.labels
    if isinstance(data, tuple | list) and len(data) == 2:
        return data[0], data[1]
    is_array = is_table or hasattr(data, "__array__") or isinstance(data, list)
    hint = f": pass y too, as {operation}(network, x, y)" if is_array else ""
    raise TypeError(
        f"{operation}: data must have .images and .labels, or be a pair (x, y), "
        f"got {type(data).__name__}{hint}"
    )
