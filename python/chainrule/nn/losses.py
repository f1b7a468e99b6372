"""The losses: a mean over instances, and its gradient by the network's output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import ops
from .._types import Array, Shape


@dataclass(frozen=True)
class Loss(ABC):
    """Base of the losses: the distance of eq. (1), summed over the data."""

    # A final Softmax layer is left out in training: the loss takes what goes into it.
    takes_logits: ClassVar[bool] = False

    @abstractmethod
    def check(self, target: object, count: int, output_shape: Shape, dtype: np.dtype[Any]) -> Array:
        """Return ``target`` as the kernel wants it; TypeError or ValueError if it does not fit."""

    @abstractmethod
    def compare(self, output: Array, target: Array, losses: Array, doutput: Array) -> None:
        """Fill the loss of each instance, and the gradient of their mean by ``output``."""

    @abstractmethod
    def classes(self, target: Array) -> Array | None:
        """Return the class of each instance, int64; None where the target is not a class."""


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """l = -log p of the true class; eq. (64)-(67).

    The network ends in logits (its last layer a `Linear`), or in a `Softmax`, which is then fused
    with the loss: both give the same loss and gradient. Labels are integers (N,), 0-based.
    """

    takes_logits: ClassVar[bool] = True

    def check(self, target: object, count: int, output_shape: Shape, dtype: np.dtype[Any]) -> Array:
        if len(output_shape) != 1:
            raise ValueError(
                f"CrossEntropy: the network's output must have shape (classes,), got "
                f"{output_shape}: end it with Flatten() and Linear(classes)"
            )
        labels = np.asarray(target)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            hint = ": use labels.argmax(axis=1)" if labels.ndim == 2 else ""
            raise (ValueError if labels.dtype.kind in "iu" else TypeError)(
                f"CrossEntropy: labels must be integers of shape (N,), got {labels.dtype} of "
                f"shape {labels.shape}{hint}"
            )
        _count("CrossEntropy", "labels", labels, count)
        classes = output_shape[0]
        if count and not (labels.min() >= 0 and labels.max() < classes):
            index = int(np.argmax((labels < 0) | (labels >= classes)))
            raise ValueError(
                f"CrossEntropy: labels must lie in [0, {classes}), "
                f"got {labels[index]} at index {index}"
            )
        return np.ascontiguousarray(labels, dtype=np.int64)

    def compare(self, output: Array, target: Array, losses: Array, doutput: Array) -> None:
        ops.softmax_cross_entropy(output, target, out=(losses, doutput))

    def classes(self, target: Array) -> Array | None:
        return target


@dataclass(frozen=True)
class SquaredError(Loss):
    """l = ||a - y||^2, a sum over outputs; eq. (3), (35). The mean over instances is eq. (40).

    Targets have the dtype and shape of the network's output. For classes, make them with
    ``chainrule.data.one_hot``; accuracy is then measured too.
    """

    def check(self, target: object, count: int, output_shape: Shape, dtype: np.dtype[Any]) -> Array:
        wanted = np.asarray(target)
        if wanted.ndim == 1 and wanted.dtype.kind in "iu":
            raise ValueError(
                f"SquaredError: target must have shape {_shape(output_shape)}, got integer labels "
                f"of shape {wanted.shape}: convert them with chainrule.data.one_hot"
            )
        if wanted.dtype != dtype:
            raise TypeError(
                f"SquaredError: target must be {dtype} as the network is, got {wanted.dtype}: "
                f'convert it with target.astype("{dtype}")'
            )
        if wanted.shape[1:] != output_shape or wanted.ndim == 0:
            raise ValueError(
                f"SquaredError: target must have shape {_shape(output_shape)}, got {wanted.shape}"
            )
        _count("SquaredError", "target", wanted, count)
        return np.ascontiguousarray(wanted)

    def compare(self, output: Array, target: Array, losses: Array, doutput: Array) -> None:
        ops.squared_error(output, target, out=(losses, doutput))

    def classes(self, target: Array) -> Array | None:
        if target.ndim != 2 or target.shape[1] < 2:
            return None
        one_hot = ((target == 0) | (target == 1)).all() and (target.sum(axis=1) == 1).all()
        return target.argmax(axis=1).astype(np.int64) if one_hot else None


def checked_loss(operation: str, loss: object) -> Loss:
    """Return ``loss``; raise TypeError if it is not a `Loss`."""
    if not isinstance(loss, Loss):
        raise TypeError(f"{operation}: loss must be CrossEntropy() or SquaredError(), got {loss!r}")
    return loss


LOSSES: tuple[type[Loss], ...] = (CrossEntropy, SquaredError)


def _shape(output_shape: Shape) -> str:
    return f"({', '.join(['N', *map(str, output_shape)])}{'' if output_shape else ','})"


def _count(owner: str, name: str, target: Array, count: int) -> None:
    if len(target) != count:
        raise ValueError(
            f"{owner}: {name} must be as many as the {count} instances of x, got {len(target)}"
        )
