"""A network's weights and gradients: named arrays in one vector, allocated when first used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np

from .. import devices
from .._random import stream
from .._types import Array, Shape
from .._validation import require_unmasked
from .architecture import Architecture, layout_parameters

Named: TypeAlias = dict[str, Array]


def is_matrix(arrays: Named) -> bool:
    """Return whether a layer's parameters form a matrix W: a weight, and a bias for each row."""
    return (
        arrays.keys() == {"weight", "bias"} and arrays["bias"].shape == (arrays["weight"].shape[:1])
    )


def layer_in_order(arrays: Named) -> Array:
    """Return one layer's parameters in the order of eq. (43): each neuron's bias, then its weights.

    The parameters of a user-defined layer that are no such matrix follow one another as declared.
    """
    if not is_matrix(arrays):
        return np.concatenate([array.ravel() for array in arrays.values()])
    bias, weight = arrays["bias"], arrays["weight"]
    return np.concatenate([bias[:, None], weight.reshape(len(bias), -1)], axis=1).ravel()


class ParameterVector:
    """Named views of one vector of zeros, which is allocated when first used.

    A network too large for any memory can therefore be described and measured. A network that only
    predicts has no gradients.

    Parameters
    ----------
    error_prefix : str
        Start of the error message if memory does not suffice. It ends in "need".
    shapes : mapping of name -> shape
    dtype : numpy.dtype
    fill : callable
        Called once with the named arrays after they are allocated.
    """

    def __init__(
        self,
        error_prefix: str,
        shapes: Mapping[str, Shape],
        dtype: np.dtype[Any],
        fill: Callable[[Named], None] | None = None,
    ) -> None:
        self._error_prefix, self._dtype, self._fill = error_prefix, dtype, fill
        self._buffers, self.nbytes = layout_parameters(shapes, dtype)
        self._memory: tuple[Array, Named] | None = None
        self.device = "cpu"
        self.reset_lock()

    def reset_lock(self) -> None:
        """Replace the lock by a new, open one."""
        self._lock = threading.Lock()

    @property
    def allocated(self) -> bool:
        """True if the memory is allocated."""
        return self._memory is not None

    @property
    def vector(self) -> Array:
        """The memory of all arrays, one after another, padded with zeros."""
        return self.allocate()[0]

    @property
    def arrays(self) -> Named:
        """Name -> view of the vector."""
        return self.allocate()[1]

    def allocate(self) -> tuple[Array, Named]:
        """Allocate and fill the memory on the first call. Return the vector and the views.

        Raises
        ------
        MemoryError
            If the vector does not fit, with the numbers.
        """
        if self._memory is None:
            with self._lock:
                if self._memory is None:
                    # Initial values are drawn on the CPU, so that they are equal on all devices.
                    device = self.device if self._fill is None else "cpu"
                    vector, arrays = self._zeros(device)
                    if self._fill is not None:
                        self._fill(arrays)
                    # Assigned last: no thread sees partly filled arrays.
                    self._memory = (
                        self._moved(vector) if device != self.device else (vector, arrays)
                    )
        return self._memory

    def to(self, device: str) -> None:
        """Move the memory, if it is allocated. Arrays obtained earlier stay on their device."""
        with self._lock:
            if device == self.device:
                return
            before, self.device = self.device, device
            if self._memory is not None:
                try:
                    self._memory = self._moved(self._memory[0])
                except BaseException:
                    self.device = before
                    raise

    def _zeros(self, device: str) -> tuple[Array, Named]:
        memory = devices.zeros(device, self.nbytes, self._error_prefix)
        arrays = {name: buffer.view(memory) for name, buffer in self._buffers.items()}
        return devices.flat_view(memory, self._dtype), arrays

    def _moved(self, vector: Array) -> tuple[Array, Named]:
        memory = self._zeros(self.device)
        devices.write(memory[0], vector)
        return memory

    # In the tutorial's order, eq. (43): layer after layer, neuron after neuron, its bias first

    def in_order(self) -> Array:
        """Return a copy of all values in the tutorial's order."""
        vectors = [
            layer_in_order({name: devices.to_numpy(array) for name, array in arrays.items()})
            for arrays in self._by_layer()
        ]
        return np.concatenate(vectors) if vectors else np.empty(0, self._dtype)

    def set_in_order(self, value: Array) -> None:
        """Copy all values from a vector in the tutorial's order."""
        size = sum(array.size for array in self.arrays.values())
        require_unmasked("parameter_vector", "value", value)
        if not isinstance(value, np.ndarray) or value.dtype != self._dtype:
            got = getattr(value, "dtype", type(value).__name__)
            raise TypeError(f"parameter_vector: must be a {self._dtype} array, got {got}")
        if value.shape != (size,):
            raise ValueError(f"parameter_vector: must have shape ({size},), got {value.shape}")
        start = 0
        for arrays in self._by_layer():
            size = sum(array.size for array in arrays.values())
            part = value[start : start + size]
            start += size
            if is_matrix(arrays):
                rows = part.reshape(len(arrays["bias"]), -1)
                devices.write(arrays["bias"], rows[:, 0])
                devices.write(arrays["weight"], rows[:, 1:].reshape(arrays["weight"].shape))
                continue
            for array in arrays.values():
                devices.write(array, part[: array.size].reshape(array.shape))
                part = part[array.size :]

    def _by_layer(self) -> Iterator[Named]:
        """Yield the arrays of each layer by the layer's own names."""
        for _, group in groupby(self.arrays, key=lambda name: name.partition(".")[0]):
            yield {name.partition(".")[2]: self.arrays[name] for name in group}


class Parameters:
    """The weights of a network and their gradients, on one device.

    Parameters
    ----------
    architecture : Architecture
    seed : int
        Seed of the dropout masks.
    initializer : callable
        Fills the named weights after they are allocated. If None, they stay 0.

    Attributes
    ----------
    weights, gradients : ParameterVector
    """

    def __init__(
        self,
        architecture: Architecture,
        seed: int,
        initializer: Callable[[Named], None] | None = None,
    ) -> None:
        self.architecture, self.seed = architecture, seed
        shapes, dtype = architecture.parameter_shapes, architecture.dtype
        self.weights = ParameterVector(
            "Sequential: its parameters need", shapes, dtype, initializer
        )
        self.gradients = ParameterVector("Sequential: its gradients need", shapes, dtype)

    @property
    def device(self) -> str:
        """ "cpu" or "cuda"."""
        return self.weights.device

    def to(self, device: str) -> None:
        """Move weights and gradients.

        Raises
        ------
        MemoryError
            If they do not fit. Both are then on the device where they were.
        """
        before = self.device
        self.weights.to(device)
        try:
            self.gradients.to(device)
        except MemoryError:
            self.weights.to(before)
            raise

    def reset_locks(self) -> None:
        """Replace all locks by new, open ones."""
        self.weights.reset_lock()
        self.gradients.reset_lock()

    def of_layer(self, index: int) -> Named:
        """Return the weights of layer ``index`` by the layer's own names."""
        return self._of_layer(self.weights.arrays, index)

    def gradients_of_layer(self, index: int) -> Named:
        """Return the gradients of layer ``index`` by the layer's own names."""
        return self._of_layer(self.gradients.arrays, index)

    def dropout_seed(self, index: int) -> int:
        """Return the seed of the masks of layer ``index``."""
        return int(stream(self.seed, 1, index).generate_state(1, np.uint64)[0])

    def _of_layer(self, arrays: Mapping[str, Array], index: int) -> Named:
        layers, shapes = self.architecture.layers, self.architecture.shapes
        names = layers[index].parameter_shapes(shapes[index])
        return {name: arrays[f"{index}.{name}"] for name in names}
