"""What a network answers: probabilities, and the mistakes it was surest of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .._types import Array

if TYPE_CHECKING:
    from ..nn.network import Sequential


def probabilities(network: Sequential, images: Array) -> Array:
    """Return the probability of each class, whether or not the network ends in a softmax layer.

    Parameters
    ----------
    network : Sequential
    images : ndarray, (N, ...)
        As `Sequential.predict` takes them.

    Returns
    -------
    ndarray of the network's dtype, (N, classes)
    """
    return network.predict_proba(images)


def surest_mistakes(answers: Array, labels: Array, count: int) -> npt.NDArray[np.intp]:
    """Return the positions of the wrong answers with the highest probability, the surest first.

    Parameters
    ----------
    answers : ndarray, (N, classes)
        Probabilities.
    labels : ndarray of int, (N,)
        The true classes.
    count : int
        At most so many.

    Returns
    -------
    ndarray of int, (at most count,)
    """
    predicted = answers.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    order = np.argsort(-answers[wrong, predicted[wrong]], kind="stable")
    return wrong[order[:count]]
