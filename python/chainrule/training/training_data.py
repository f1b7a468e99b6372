"""The data of a training or an evaluation, checked once."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from .._types import Array
from .._validation import imported
from ..nn.losses import Loss, checked_loss, default_loss
from ..nn.network import Sequential, checked_network

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
        if len(self.x) == 0:
            raise ValueError(f"{operation}: data must have at least one instance, got 0")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def nbytes(self) -> int:
        return int(self.x.nbytes + self.target.nbytes)

    def subset(self, indices: Array) -> TrainingData:
        """Return a copy of the instances at ``indices``."""
        subset = object.__new__(TrainingData)
        subset.x, subset.target, subset.loss = self.x[indices], self.target[indices], self.loss
        subset.classes = None if self.classes is None else self.classes[indices]
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
