"""Networks and demonstrations that the documentation speaks of."""

from __future__ import annotations

from .approximation import (
    Approximation,
    growing_depth,
    growing_width,
    narrow_network,
    wave,
    wide_network,
)
from .deep import Learnt, deep_network, learn
from .three_unit import THREE_UNIT_WEIGHTS, dead_unit, three_unit_instance, three_unit_network

__all__ = [
    "THREE_UNIT_WEIGHTS",
    "Approximation",
    "Learnt",
    "dead_unit",
    "deep_network",
    "growing_depth",
    "growing_width",
    "learn",
    "narrow_network",
    "three_unit_instance",
    "three_unit_network",
    "wave",
    "wide_network",
]
