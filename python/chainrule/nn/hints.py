"""Hints of error messages: the expression that makes an array acceptable.

A hint depends on the shape and on the values that came. It is given only if following it leads to
the right numbers. Each function returns ": use ...", or "" if no conversion is known to be right.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._types import Array, Shape

NUMBERS = "fiub"


def for_input_dtype(x: Array, dtype: np.dtype[Any], images: bool) -> str:
    """Return how to convert ``x`` to ``dtype``.

    If ``images``, the network reads uint8 as value / 255. Otherwise it does not read uint8, because
    a column of 0 and 1 would become 0 and 1 / 255.
    """
    if x.dtype.kind in "iu" and x.size:
        least, largest = int(x.min()), int(x.max())
        scaled = f"x / np.{dtype}(255)" if x.dtype == np.uint8 else f'(x / 255).astype("{dtype}")'
        if images and x.dtype == np.uint16 and largest > 255:
            return f': use x.astype("{dtype}") / 65535 if x are pixels of 16 bits'
        if images and least >= 0 and 1 < largest <= 255:
            other = f'x.astype("{dtype}")'
            return (
                f": use x.astype(np.uint8), which means value / 255, if x are pixels, else {other}"
            )
        if x.dtype == np.uint8 or (least >= 0 and largest == 255):
            image = f", or images (input_shape={x.shape[1:]}, Flatten())" if x.ndim == 4 else ""
            return (
                f': use x.astype("{dtype}"), which keeps the values, or {scaled}, which scales '
                f"pixels to [0, 1]{image}"
            )
    return _astype("x", x, dtype)


def for_target_dtype(target: Array, dtype: np.dtype[Any]) -> str:
    """Return how to convert targets to ``dtype``."""
    if target.dtype == np.uint8 and target.size and target.max() > 1:
        # The network's input may be the same array, which it reads as value / 255.
        return (
            f': use target.astype("{dtype}"), which keeps the values, or target / '
            f"np.{dtype}(255), which scales pixels to [0, 1]"
        )
    return _astype("target", target, dtype)


def _astype(name: str, array: Array, dtype: np.dtype[Any]) -> str:
    kind = array.dtype.kind
    if kind not in NUMBERS:
        return ""
    if kind == "f" and array.size and array.dtype.itemsize > dtype.itemsize:
        with np.errstate(over="ignore", invalid="ignore"):
            # NaN hides no overflow: fmin and fmax ignore it.
            extremes = [np.fmin.reduce(array, axis=None), np.fmax.reduce(array, axis=None)]
            converted = np.array(extremes).astype(dtype)
        if np.isinf(converted).any():
            return ""
    return f': use {name}.astype("{dtype}")'


def for_input(shape: Shape, expected: Shape) -> str:
    """Return how to reshape x of ``shape`` to (N, *expected)."""
    if shape == expected:
        return ": a single instance is x[None]"
    if (*shape, 1) == expected and len(shape) > 1:
        return ": a single instance is x[None, ..., None]"
    if len(shape) == 0:
        return ""
    one = shape[1:]
    if (*one, 1) == expected:
        return ": add the channel axis with x[..., None]"
    if one == (*expected, 1):
        return ": use x[..., 0]"
    if len(one) == 3 and (one[1], one[2], one[0]) == expected:
        return ": channels come last: use np.moveaxis(x, 1, -1)"
    if len(expected) == 1 and len(one) > 1 and math.prod(one) == expected[0]:
        return f": use x.reshape(-1, {expected[0]}), or begin the network with Flatten()"
    if len(one) == 1 and len(expected) > 1 and one[0] == math.prod(expected):
        # With several channels, flat images may have them first or last.
        sizes = ", ".join(map(str, expected))
        condition = "" if expected[-1] == 1 or len(expected) == 2 else " if channels come last"
        return f": use x.reshape(-1, {sizes}){condition}"
    return ""


def for_labels(labels: Array, count: int, classes: int) -> str:
    """Return how to make integer labels (count,) in [0, classes) from ``labels``."""
    kind = labels.dtype.kind
    if kind not in NUMBERS or not labels.size:
        return ""
    shape = labels.shape
    if len(shape) == 2 and shape[0] == count and shape[1] > 1:
        if shape[1] == classes and is_one_hot(labels):
            return ": use labels.argmax(axis=1)"
        if shape[1] == classes and bool(((labels == 0) | (labels == 1)).all()):
            return ": use BinaryCrossEntropy() if an instance can be of several classes"
        return ": CrossEntropy reads one class per instance, not one number per class"
    # A row of one-hot labels is one instance, also if there are ``count`` elements.
    if labels.size != count or (labels.ndim > 1 and is_one_hot(labels.reshape(-1, shape[-1]))):
        return ""
    if kind == "f" and not bool((np.isfinite(labels) & (labels == np.rint(labels))).all()):
        return ": CrossEntropy reads one class per instance, and SquaredError reads numbers"
    if sum(axis != 1 for axis in shape) > 1 or labels.min() < 0 or labels.max() >= classes:
        return ""
    expression = "labels"
    if shape == (count, 1):
        expression = "labels[:, 0]"
    elif shape == (1, count):
        expression = "labels[0]"
    elif shape != (count,):
        expression = "labels.reshape(-1)"
    return f": use {expression}" if kind in "iu" else f": use {expression}.astype(np.int64)"


def for_one_output(target: Array) -> str:
    """Return the loss, or the network, that fits ``target``. `CrossEntropy` has one output."""
    if target.dtype.kind not in NUMBERS or not target.size:
        return ""
    if bool(((target == 0) | (target == 1)).all()):
        return ": use BinaryCrossEntropy(), which reads labels 0 and 1, or end it with Linear(2)"
    if target.dtype.kind in "iu" and target.min() >= 0:
        return (
            f": end it with Linear({int(target.max()) + 1}) if labels are classes, or use "
            f"SquaredError() if they are numbers"
        )
    return ": use SquaredError(), which reads numbers"


def for_targets(targets: Array, count: int, output_shape: Shape, dtype: np.dtype[Any]) -> str:
    """Return how to make targets (count, *output_shape) of ``dtype`` from ``targets``."""
    if targets.dtype.kind not in NUMBERS or targets.ndim == 0:
        return ""
    expression = ""
    if len(output_shape) == 1 and output_shape[0] > 1:
        column = targets.shape == (count, 1)
        labels = targets[:, 0] if column else targets
        if labels.shape == (count,) and count:
            in_range = labels.min() >= 0 and labels.max() < output_shape[0]
            if not in_range or not (labels == np.rint(labels)).all():
                return ""
            kind = "" if dtype == np.float32 else f', "{dtype}"'
            name = "target[:, 0]" if column else "target"
            name += "" if labels.dtype.kind in "iu" else ".astype(np.int64)"
            return f": use chainrule.data.one_hot({name}, {output_shape[0]}{kind})"
    one = targets.shape[1:]
    if (*one, 1) == output_shape:
        expression = "target[..., None]"
    elif one == (*output_shape, 1):
        expression = "target[..., 0]"
    elif len(one) == 3 and (one[1], one[2], one[0]) == output_shape:
        expression = "np.moveaxis(target, 1, -1)"
    elif targets.shape == output_shape and count == 1:
        expression = "target[None]"
    elif len(output_shape) == 1 and math.prod(one) == output_shape[0]:
        expression = f"target.reshape(-1, {output_shape[0]})"
    if expression and targets.dtype != dtype:
        expression += f'.astype("{dtype}")'
    return f": use {expression}" if expression else ""


def for_answers(targets: Array, count: int, output_shape: Shape) -> str:
    """Return how to make answers (count, *output_shape) from ``targets``."""
    if targets.dtype.kind not in NUMBERS:
        return ""
    if targets.shape == (count,) and len(output_shape) == 1 and targets.dtype.kind in "biu":
        return ": use CrossEntropy() if labels are classes, one per instance"
    if targets.shape == (count, 2) and output_shape == (1,) and is_one_hot(targets):
        return ": use target[:, 1]"
    return for_targets(targets, count, output_shape, targets.dtype)


def for_two_values(targets: Array) -> str:
    """Return how to make 0 and 1 from -1 and 1, or the loss for more classes."""
    if bool(((targets == -1) | (targets == 1)).all()):
        return ": use target > 0"
    if targets.dtype.kind in "iu" and targets.shape[1:] == (1,) and targets.min() >= 0:
        classes = int(targets.max()) + 1
        return f": use CrossEntropy() and end the network with Linear({classes}) if it is a class"
    return ""


def is_one_hot(values: Array) -> bool:
    """Return whether each row of an array (N, at least 2) is 1 at one element, and 0 elsewhere."""
    if values.ndim != 2 or values.shape[1] < 2:
        return False
    return bool(((values == 0) | (values == 1)).all() and (values.sum(axis=1) == 1).all())
