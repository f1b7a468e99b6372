"""Examples: one readable file each, to run and to copy.

``python -m chainrule.examples`` lists them, and ``python -m chainrule.examples NAME`` runs one. The
functions of the networks that the tutorial and the documentation use can be imported from here.
"""

from __future__ import annotations

from .approximation import (
    Approximation,
    growing_depth,
    growing_width,
    narrow_network,
    wave,
    wide_network,
)
from .deep import DeepResult, deep_network, train_deep
from .three_unit import THREE_UNIT_WEIGHTS, dead_unit, three_unit_instance, three_unit_network

__all__ = [
    "THREE_UNIT_WEIGHTS",
    "Approximation",
    "DeepResult",
    "dead_unit",
    "deep_network",
    "growing_depth",
    "growing_width",
    "narrow_network",
    "three_unit_instance",
    "three_unit_network",
    "train_deep",
    "wave",
    "wide_network",
]
