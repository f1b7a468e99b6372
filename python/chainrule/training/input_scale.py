"""The warning of `fit` about inputs of a scale that trains a dead network."""

from __future__ import annotations

import warnings

import numpy as np

from .._types import Array
from ..nn import user_defined
from ..nn.layers import Conv2d, Linear
from ..nn.network import Sequential

# Standardized inputs, pixels in [0, 1] and small counts are below it. Bytes as floats are above.
LARGE = 50.0
# The number of instances that are read.
INSTANCES = 64


class ScaleWarning(UserWarning):
    """Warn that the inputs of `fit` are large: the units of a network often die in the first steps.

    Initial weights are drawn for inputs of about 1. With inputs of 100 the first outputs and
    gradients are about 100 times too large. There is one warning per call.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np
    >>> import chainrule as cr
    >>> x, labels = np.array([[0.0], [255.0]], np.float32), np.array([0, 1])
    >>> network = cr.Sequential(cr.Linear(2), input_shape=(1,))
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     for data in ((x, labels), (x / 255, labels)):
    ...         history = cr.fit(network, data, loss=cr.CrossEntropy(), optimizer=cr.SGD(0.001),
    ...                          epochs=1, progress=False)
    >>> [warning.category.__name__ for warning in caught]
    ['ScaleWarning']
    """


def warn_about_scale(network: Sequential, x: Array) -> None:
    """Warn if the first instances have values above `LARGE`, and the first layer has weights.

    Other first layers may scale their input. uint8 is read as value / 255.
    """
    first = next((i for i in network.layers if not user_defined.reshapes_only(i, False)), None)
    if x.dtype == np.uint8 or type(first) not in (Linear, Conv2d):
        return
    part = x[:INSTANCES].astype(np.float64)
    # The loss reports NaN and infinities.
    part = part[np.isfinite(part)]
    least, largest = part.min(initial=0), part.max(initial=0)
    magnitude = max(-least, largest)
    if magnitude <= LARGE:
        return
    deviation = magnitude * np.std(part / magnitude)  # squares do not overflow
    remedy = "subtract each column's mean and divide by its standard deviation"
    if network.architecture.reads_images and least >= 0 and largest <= 255:
        remedy = "use x / 255 if x are pixels"
    warnings.warn(
        f"fit: x should have values of about 1, got values from {least:g} to {largest:g} in the "
        f"first {min(len(x), INSTANCES)} instances (standard deviation {deviation:.3g}), at which "
        f"units often die: {remedy}",
        ScaleWarning,
        stacklevel=3,
    )
