"""A network's parameters, or their gradients: named arrays in one vector, made when first used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .. import devices
from .._types import Array, Shape
from .plan import carved

Named = dict[str, Array]


class Weights:
    """Views into one vector of zeros, which is allocated when first used.

    So a network too large for any memory can be described and measured, and one that only predicts
    has no gradients.

    Parameters
    ----------
    what : str, the beginning of the message where memory does not suffice, "... need"
    shapes : mapping of name -> shape
    dtype : numpy.dtype
    fill : callable, handed the named arrays once they are there
    """

    def __init__(
        self,
        what: str,
        shapes: Mapping[str, Shape],
        dtype: np.dtype[Any],
        fill: Callable[[Named], None] | None = None,
    ) -> None:
        self._what, self._dtype, self._fill = what, dtype, fill
        self._places, self.nbytes = carved(shapes, dtype)
        self._made: tuple[Array, Named] | None = None
        self.device = "cpu"
        self.unlock()

    def unlock(self) -> None:
        """Start with a lock that nobody holds."""
        self._lock = threading.Lock()

    @property
    def made(self) -> bool:
        """Whether they have been allocated."""
        return self._made is not None

    @property
    def vector(self) -> Array:
        """The memory of all arrays in turn, with zeros between them."""
        return self.make()[0]

    @property
    def named(self) -> Named:
        return self.make()[1]

    def make(self) -> tuple[Array, Named]:
        """Allocate and fill them, once; return the vector and the views.

        Raises
        ------
        MemoryError
            Where they do not fit, with the numbers.
        """
        if self._made is None:
            with self._lock:
                if self._made is None:
                    # Always on the CPU first, so that the numbers are those of any device.
                    device = self.device if self._fill is None else "cpu"
                    vector, named = self._allocate(device)
                    if self._fill is not None:
                        self._fill(named)
                    # Last, so that nobody sees arrays half filled.
                    self._made = self._moved(vector) if device != self.device else (vector, named)
        return self._made

    def to(self, device: str) -> None:
        """Move them, if they are made; arrays that were handed out stay where they are."""
        with self._lock:
            if device == self.device:
                return
            before, self.device = self.device, device
            if self._made is not None:
                try:
                    self._made = self._moved(self._made[0])
                except BaseException:
                    self.device = before
                    raise

    def _allocate(self, device: str) -> tuple[Array, Named]:
        memory = devices.zeros(device, self.nbytes, self._what)
        named = {name: where.view(memory) for name, where in self._places.items()}
        return devices.whole(memory, self._dtype), named

    def _moved(self, vector: Array) -> tuple[Array, Named]:
        made = self._allocate(self.device)
        devices.write(made[0], vector)
        return made

    # In the tutorial's order, eq. (43): layer after layer, neuron after neuron, its bias first

    def in_order(self) -> Array:
        """Return all values in the tutorial's order, a copy."""
        rows = [
            np.concatenate([bias[:, None], weight.reshape(len(bias), -1)], axis=1).ravel()
            for bias, weight in (map(devices.to_numpy, pair) for pair in self._pairs())
        ]
        return np.concatenate(rows) if rows else np.empty(0, self._dtype)

    def set_in_order(self, value: Array) -> None:
        """Take over all values from a vector in the tutorial's order."""
        size = sum(array.size for array in self.named.values())
        if not isinstance(value, np.ndarray) or value.dtype != self._dtype:
            got = getattr(value, "dtype", type(value).__name__)
            raise TypeError(f"parameter_vector: must be a {self._dtype} array, got {got}")
        if value.shape != (size,):
            raise ValueError(f"parameter_vector: must have shape ({size},), got {value.shape}")
        start = 0
        for bias, weight in self._pairs():
            rows = value[start : start + bias.size + weight.size].reshape(len(bias), -1)
            devices.write(bias, rows[:, 0])
            devices.write(weight, rows[:, 1:].reshape(weight.shape))
            start += rows.size

    def _pairs(self) -> Iterator[tuple[Array, Array]]:
        for name, array in self.named.items():
            if name.endswith(".weight"):
                yield self.named[name.removesuffix("weight") + "bias"], array
