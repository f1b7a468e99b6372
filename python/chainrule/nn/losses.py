"""The losses: a mean over instances, and its gradient with respect to the network's output."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import ops
from .._types import Array, Shape
from .._validation import imported, number, set_fields
from . import hints

# In float32 a smaller delta would be 0, and a larger one infinite.
SMALLEST_DELTA, LARGEST_DELTA = (float(x) for x in (np.finfo("f4").tiny, np.finfo("f4").max))


@dataclass(frozen=True)
class Loss(ABC):
    """Base of the losses: the distance of eq. (1), summed over the data.

    A user-defined loss implements the three methods. On a GPU only `LOSSES` run. A loss that
    supports ``sample_weight`` and ``class_weight`` reads two more arguments, as `compare` says.

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

    With weights:

    >>> class WeightedAbsoluteError(AbsoluteError):
    ...     def compare(self, output, target, losses, doutput, weight=None, instances=None):
    ...         scale = 1.0 if weight is None else weight[:, None]
    ...         losses[...] = (scale * np.abs(output - target)).sum(axis=1)
    ...         doutput[...] = scale * np.sign(output - target) / (instances or len(output))
    >>> x, y = np.ones((2, 2), np.float32), np.array([[1, 5], [1, 1]], np.float32)
    >>> cr.evaluate(net, (x, y), WeightedAbsoluteError(), sample_weight=[3, 1]).loss
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
        """Write the loss per instance, and the gradient of the mean with respect to ``output``.

        Parameters
        ----------
        output : ndarray (N, *output_shape)
            Of the network. Must not be changed.
        target : ndarray (N, ...)
            As `check` returned it.
        losses : ndarray (N,)
            Receives one loss per instance.
        doutput : ndarray like ``output``
            Receives the gradient of ``losses.sum() / N``.
        weight : ndarray (N,), or None
            Only for a loss that has this parameter and the next, as those of this package do. Such
            a loss multiplies ``losses`` and ``doutput`` by the weight of each instance.
        instances : float, or None
            The divisor of ``doutput`` in place of N.
        """

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

    def compare(
        self,
        output: Array,
        target: Array,
        losses: Array,
        doutput: Array,
        weight: Array | None = None,
        instances: float | None = None,
    ) -> None:
        ops.softmax_cross_entropy(
            output, target, weight=weight, instances=instances, out=(losses, doutput)
        )

    def classes(self, target: Array) -> Array | None:
        return target


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """l = -y log σ(z) - (1 - y) log(1 - σ(z)), a sum over outputs, from logits z.

    Each output z answers one question by yes with probability σ(z) = 1 / (1 + e^-z). One output
    distinguishes two classes: it is eq. (64)-(67) with the logits 0 and z. Several outputs are
    labels of which an instance can have any number. The network ends in logits.

    Targets are 0 and 1, of any dtype, or probabilities. Their shape is (N,) or (N, 1) for one
    output, and (N, outputs) for several. Accuracy is measured for one output.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> net, x = cr.Sequential(cr.Linear(1), input_shape=(1,)), np.zeros((3, 1), np.float32)
    >>> loss, _ = net.loss_and_gradient(x, np.array([0, 1, 1]), cr.BinaryCrossEntropy())
    >>> round(loss, 4)  # log 2: both answers have probability 1/2
    0.6931
    """

    def check(self, target: object, count: int, output_shape: Shape, dtype: np.dtype[Any]) -> Array:
        targets = imported("BinaryCrossEntropy", "target", target)
        if output_shape == (1,) and targets.ndim == 1:
            targets = targets[:, None]
        if targets.shape[1:] != output_shape or targets.ndim == 0:
            one = " or (N,)" if output_shape == (1,) else ""
            raise ValueError(
                f"BinaryCrossEntropy: target must have shape {_shape(output_shape)}{one}, got "
                f"{targets.shape}{hints.for_answers(targets, count, output_shape)}"
            )
        if targets.dtype.kind not in hints.NUMBERS:
            raise TypeError(
                f"BinaryCrossEntropy: target must be numbers or booleans, got {targets.dtype}"
            )
        _count("BinaryCrossEntropy", "target", targets, count)
        if targets.size and not (targets.min() >= 0 and targets.max() <= 1):
            index = np.unravel_index(int(np.argmin((targets >= 0) & (targets <= 1))), targets.shape)
            raise ValueError(
                f"BinaryCrossEntropy: target must be in [0, 1], got {targets[index]} in instance "
                f"{index[0]}{hints.for_two_values(targets)}"
            )
        converted = np.ascontiguousarray(targets, dtype)
        if targets.dtype.itemsize > dtype.itemsize and not np.array_equal(converted, targets):
            raise TypeError(
                f"BinaryCrossEntropy: target must be {dtype} as the network is, got "
                f"{targets.dtype}{hints.for_target_dtype(targets, dtype)}"
            )
        return converted

    def compare(
        self,
        output: Array,
        target: Array,
        losses: Array,
        doutput: Array,
        weight: Array | None = None,
        instances: float | None = None,
    ) -> None:
        ops.binary_cross_entropy(
            output, target, weight=weight, instances=instances, out=(losses, doutput)
        )

    def classes(self, target: Array) -> Array | None:
        certain = target.shape[1:] == (1,) and bool(((target == 0) | (target == 1)).all())
        return target[:, 0].astype(np.int64) if certain else None


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
        return _check_numbers("SquaredError", target, count, output_shape, dtype)

    def compare(
        self,
        output: Array,
        target: Array,
        losses: Array,
        doutput: Array,
        weight: Array | None = None,
        instances: float | None = None,
    ) -> None:
        ops.squared_error(output, target, weight=weight, instances=instances, out=(losses, doutput))

    def classes(self, target: Array) -> Array | None:
        return target.argmax(axis=1).astype(np.int64) if hints.is_one_hot(target) else None


@dataclass(frozen=True)
class Huber(Loss):
    """l = r^2 / 2 for a small error r = a - y, and delta (|r| - delta / 2) for a large one.

    It is a sum over outputs. The gradient of an output is at most delta, so outliers have less
    influence than with `SquaredError`. (P. J. Huber, "Robust Estimation of a Location Parameter",
    1964.) Targets have the dtype and shape of the network's output.

    Parameters
    ----------
    delta : float
        The size of an error at which the loss becomes linear, positive.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> net = cr.Sequential(cr.LeakyReLU(), input_shape=(2,))
    >>> x, y = np.array([[1, 2]], np.float32), np.array([[1, 5]], np.float32)
    >>> net.loss_and_gradient(x, y, cr.Huber())[0]
    2.5
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        delta = number("Huber", "delta", self.delta)
        if not SMALLEST_DELTA <= delta <= LARGEST_DELTA:
            raise ValueError(
                f"Huber: delta must be positive, from {SMALLEST_DELTA:.2g} to "
                f"{LARGEST_DELTA:.2g}, got {delta}"
            )
        set_fields(self, delta=delta)

    def check(self, target: object, count: int, output_shape: Shape, dtype: np.dtype[Any]) -> Array:
        return _check_numbers("Huber", target, count, output_shape, dtype)

    def compare(
        self,
        output: Array,
        target: Array,
        losses: Array,
        doutput: Array,
        weight: Array | None = None,
        instances: float | None = None,
    ) -> None:
        ops.huber(
            output,
            target,
            self.delta,
            weight=weight,
            instances=instances,
            out=(losses, doutput),
        )

    def classes(self, target: Array) -> Array | None:
        return None


def checked_loss(operation: str, loss: object) -> Loss:
    """Return ``loss``. Raise TypeError if it is not a `Loss`."""
    if not isinstance(loss, Loss):
        names = ", ".join(kind.__name__ + "()" for kind in LOSSES)
        hint = ""
        if isinstance(loss, type) and issubclass(loss, Loss):
            hint = f": write {loss.__name__}()"
        raise TypeError(f"{operation}: loss must be a loss such as {names}, got {loss!r}{hint}")
    return loss


def default_loss(target: Array, output_shape: Shape) -> Loss:
    """Return the loss that ``target`` suggests, for a network with this output.

    Integers, bools and text are classes: `CrossEntropy`. With one output, 0 and 1 are the two
    classes of `BinaryCrossEntropy`. Other targets are numbers: `SquaredError`.
    """
    kind = target.dtype.kind
    if kind == "O" and target.size and isinstance(target.flat[0], str):
        kind = "U"
    if output_shape == (1,):
        answers = kind in "biu" and target.size and bool(((target == 0) | (target == 1)).all())
        return BinaryCrossEntropy() if answers else SquaredError()
    return CrossEntropy() if kind in "iubUST" else SquaredError()


def predicted_classes(output: Array) -> Array:
    """Return the class of each row: the first maximum. One output is the logit of class 1."""
    if output.shape[-1] == 1:
        return (output[..., 0] > 0).astype(np.int64)
    return np.asarray(output.argmax(axis=-1))


LOSSES: tuple[type[Loss], ...] = (CrossEntropy, BinaryCrossEntropy, SquaredError, Huber)


def _check_numbers(
    owner: str, target: object, count: int, output_shape: Shape, dtype: np.dtype[Any]
) -> Array:
    targets = imported(owner, "target", target)
    if targets.shape[1:] != output_shape or targets.ndim == 0:
        labels = targets.ndim == 1 and targets.dtype.kind in "iu"
        raise ValueError(
            f"{owner}: target must have shape {_shape(output_shape)}, got "
            f"{'integer labels of shape ' if labels else ''}{targets.shape}"
            f"{hints.for_targets(targets, count, output_shape, dtype)}"
        )
    if targets.dtype != dtype:
        raise TypeError(
            f"{owner}: target must be {dtype} as the network is, got {targets.dtype}"
            f"{hints.for_target_dtype(targets, dtype)}"
        )
    _count(owner, "target", targets, count)
    return np.ascontiguousarray(targets)


def _shape(output_shape: Shape) -> str:
    return f"({', '.join(['N', *map(str, output_shape)])}{'' if output_shape else ','})"


def _count(owner: str, name: str, target: Array, count: int) -> None:
    if len(target) != count:
        raise ValueError(
            f"{owner}: x and {name} must have the same length, got {count} and {len(target)}"
        )
