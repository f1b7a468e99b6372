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

__all__ = [
    "Approximation",
    "Learnt",
    "deep_network",
    "growing_depth",
    "growing_width",
    "learn",
    "narrow_network",
    "wave",
    "wide_network",
]
