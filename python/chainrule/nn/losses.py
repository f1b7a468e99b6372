"""The losses: a mean over instances, and its gradient with respect to the network's output."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import ops
from .._types import Array, Shape
from .._validation import imported
from . import hints


@dataclass(frozen=True)
class Loss(ABC):
    """Base of the losses: the distance of eq. (1), summed over the data.

    A user-defined loss implements the three methods. On a GPU only `LOSSES` run.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> class AbsoluteError(cr.Loss):
    ...     def check(self, target, count, output_shape, dtype):
    ...         return np.asarray(target, dtype)
    ...     def compare(self, output, target, losses, doutput):
    ...         losses[...] = np.abs(output - target).sum(axis=1)
    ...         doutput[...] = np.sign(output - target) / len(output)
    ...     def classes(self, target):
    ...         return None
    >>> net = cr.Sequential(cr.LeakyReLU(), input_shape=(2,))
    >>> x, y = np.array([[1, 2]], np.float32), np.array([[1, 5]], np.float32)
    >>> net.loss_and_gradient(x, y, AbsoluteError())[0]
    3.0
    """

    # Whether training leaves out a final softmax, because the loss reads the softmax's input. See
    # `Architecture.final_softmax`.
    takes_logits: ClassVar[bool] = False

    @abstractmethod
    def check(self, target: object, count: int, output_shape: Shape, dtype: np.dtype[Any]) -> Array:
        """Return ``target`` as the kernel reads it.

        Parameters
        ----------
        target : array_like
            The caller's labels or targets.
        count : int
            Number of instances.
        output_shape : tuple of int
            Shape of the network's output per instance.
        dtype : numpy.dtype
            The network's dtype.

        Raises
        ------
        TypeError, ValueError
            If ``target`` has another dtype, shape, length or range.
        """

    @abstractmethod
    def compare(self, output: Array, target: Array, losses: Array, doutput: Array) -> None:
        """Write the loss per instance, and the gradient of the mean with respect to ``output``."""

    @abstractmethod
    def classes(self, target: Array) -> Array | None:
        """Return the class of each instance, int64, or None if targets are not classes."""


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """l = -log p of the true class, eq. (64)-(67).

    The network ends in logits (its last layer is a `Linear`) or in a `Softmax`, which is then fused
    with the loss. Both give the same loss and gradient. Layers that change no probability may
    follow the softmax, also user-defined ones. The output of other layers is read as logits. Labels
    are integers (N,), starting at 0.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> net, x = cr.Sequential(cr.Linear(2), input_shape=(1,)), np.zeros((3, 1), np.float32)
    >>> loss, _ = net.loss_and_gradient(x, np.array([0, 1, 1]), cr.CrossEntropy())
    >>> round(loss, 4)  # log 2: both classes have probability 1/2
    0.6931
    """

    takes_logits: ClassVar[bool] = True

    def check(self, target: object, count: int, output_shape: Shape, dtype: np.dtype[Any]) -> Array:
        if len(output_shape) != 1:
            raise ValueError(
                f"CrossEntropy: the network's output must have shape (classes,), got "
                f"{output_shape}: end it with Flatten()"
                f"{'' if math.prod(output_shape[:-1]) == 1 else ' and Linear(classes)'}"
            )
        labels = imported("CrossEntropy", "labels", target)
        if output_shape == (1,):
            raise ValueError(
                f"CrossEntropy: the network must have one output per class, at least 2, got 1"
                f"{hints.for_one_output(labels)}"
            )
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            hint = hints.for_labels(labels, count, output_shape[0])
            raise (ValueError if labels.dtype.kind in "iu" else TypeError)(
                f"CrossEntropy: labels must be integers of shape (N,), got {labels.dtype} of "
                f"shape {labels.shape}{hint}"
            )
        _count("CrossEntropy", "labels", labels, count)
        classes = output_shape[0]
        if count and not (labels.min() >= 0 and labels.max() < classes):
            index = int(np.argmax((labels < 0) | (labels >= classes)))
            raise ValueError(
                f"CrossEntropy: labels must be in [0, {classes}), "
                f"got {labels[index]} at index {index}"
            )
        return np.ascontiguousarray(labels, dtype=np.int64)

    def compare(self, output: Array, target: Array, losses: Array, doutput: Array) -> None:
        ops.softmax_cross_entropy(output, target, out=(losses, doutput))

    def classes(self, target: Array) -> Array | None:
        return target


@dataclass(frozen=True)
class SquaredError(Loss):
    """l = ||a - y||^2, a sum over outputs, eq. (3), (35). The mean over instances is eq. (40).

    Targets have the dtype and shape of the network's output. `chainrule.data.one_hot` makes targets
    from classes. Accuracy is then measured too.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> net = cr.Sequential(cr.LeakyReLU(), input_shape=(2,))
    >>> x, y = np.array([[1, 2]], np.float32), np.array([[1, 5]], np.float32)
    >>> net.loss_and_gradient(x, y, cr.SquaredError())[0]
    9.0
    """

    def check(self, target: object, count: int, output_shape: Shape, dtype: np.dtype[Any]) -> Array:
        targets = imported("SquaredError", "target", target)
        if targets.shape[1:] != output_shape or targets.ndim == 0:
            labels = targets.ndim == 1 and targets.dtype.kind in "iu"
            raise ValueError(
                f"SquaredError: target must have shape {_shape(output_shape)}, got "
                f"{'integer labels of shape ' if labels else ''}{targets.shape}"
                f"{hints.for_targets(targets, count, output_shape, dtype)}"
            )
        if targets.dtype != dtype:
            raise TypeError(
                f"SquaredError: target must be {dtype} as the network is, got {targets.dtype}"
                f"{hints.for_target_dtype(targets, dtype)}"
            )
        _count("SquaredError", "target", targets, count)
        return np.ascontiguousarray(targets)

    def compare(self, output: Array, target: Array, losses: Array, doutput: Array) -> None:
        ops.squared_error(output, target, out=(losses, doutput))

    def classes(self, target: Array) -> Array | None:
        return target.argmax(axis=1).astype(np.int64) if hints.is_one_hot(target) else None


def checked_loss(operation: str, loss: object) -> Loss:
    """Return ``loss``. Raise TypeError if it is not a `Loss`."""
    if not isinstance(loss, Loss):
        raise TypeError(f"{operation}: loss must be CrossEntropy() or SquaredError(), got {loss!r}")
    return loss


LOSSES: tuple[type[Loss], ...] = (CrossEntropy, SquaredError)


def _shape(output_shape: Shape) -> str:
    return f"({', '.join(['N', *map(str, output_shape)])}{'' if output_shape else ','})"


def _count(owner: str, name: str, target: Array, count: int) -> None:
    if len(target) != count:
        raise ValueError(
            f"{owner}: x and {name} must have the same length, got {count} and {len(target)}"
        )
