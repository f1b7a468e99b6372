"""The GPU: arrays on it, and what there is to know about it.

Where the data lies decides what runs: `chainrule.ops` takes arrays on the GPU as it takes NumPy's,
and ``network.to("cuda")`` moves a network. Kernels are queued, and Python goes on; what waits for
them is `Array.numpy`, `synchronize`, and every check of labels and indices outside a `Program`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

import chainrule._core as _core

__all__ = [
    "Array",
    "array",
    "description",
    "empty",
    "is_available",
    "memory",
    "synchronize",
    "why_off",
    "zeros",
]

Array = _core.CudaArray
"""An owner of memory on the GPU: ``shape``, ``dtype``, ``size``, ``nbytes``; no arithmetic.

``numpy()`` copies it to the CPU, ``copy()`` within the GPU, ``fill(source)`` takes over the
elements of another array, a NumPy array too. It speaks DLPack and ``__cuda_array_interface__``, so
PyTorch and CuPy share its memory without a copy: ``torch.from_dlpack(a)``. Memory is freed with the
last reference. ``part(offset, shape, dtype)`` is a window on its bytes.
"""

DType: TypeAlias = npt.DTypeLike


def why_off() -> str:
    """Return why there is no GPU to use, in one line; empty where there is one."""
    return _core.cuda_why_off()


def is_available() -> bool:
    """Return whether there is a GPU to use."""
    return not why_off()


def description() -> str:
    """Return the GPU in use with its driver, in one line; RuntimeError where there is none."""
    return _core.cuda_description()


def memory() -> tuple[int, int]:
    """Return how many bytes are free on the GPU, and how many there are."""
    free, total = _core.cuda_memory()
    return free, total


def synchronize() -> None:
    """Wait for everything that this thread has queued.

    Raises
    ------
    RuntimeError
        If a kernel failed; CHAINRULE_CUDA_SYNC=1 in the environment finds out which.
    ValueError
        If a program that this thread ran met labels, indices or places of maxima out of range.
    """
    _core.cuda_synchronize()


def array(source: Any) -> Array:
    """Return a copy of a NumPy array on the GPU, or what lies there as an `Array`, without a copy.

    Parameters
    ----------
    source : ndarray, or an object with ``__dlpack__`` or ``__cuda_array_interface__``; of float32,
        float64, uint8, uint16, int64 or uint64, C-contiguous where it lies on the GPU

    Raises
    ------
    RuntimeError
        Where there is no GPU to use; the message says why.
    """
    found: Array = _core.cuda_array(source)
    return found


def empty(shape: int | tuple[int, ...], dtype: DType = np.float32) -> Array:
    """Return an array on the GPU whose contents are undefined."""
    return _core.cuda_empty(shape, dtype)


def zeros(shape: int | tuple[int, ...], dtype: DType = np.float32) -> Array:
    """Return an array of zeros on the GPU."""
    return _core.cuda_zeros(shape, dtype)


begin_step, end_step = _core.cuda_begin_step, _core.cuda_end_step


class Norm:
    """The Euclidean norm of a vector on the GPU, summed in an order that never changes."""

    def __init__(self, vector: Any) -> None:
        self.vector = vector
        self._parts = zeros(max(1, _core.cuda_norm_parts(vector.size)), np.float64)
        self._length = zeros((), np.float64)

    def value(self) -> float:
        """Return it; not finite where an element is not."""
        _core.cuda_norm(self.vector, self._parts, self._length)
        return float(self._length.numpy())

    def clip(self, limit: float) -> None:
        """Scale the vector down to the norm ``limit`` where it is longer, and its norm finite."""
        _core.cuda_norm(self.vector, self._parts, self._length)
        _core.cuda_clip_to_norm(self.vector, limit, self._length)
