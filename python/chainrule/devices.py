"""Memory on either device: NumPy arrays on the CPU, `cuda.Array` on a GPU.

Plans, weights and optimizers allocate, view and copy memory with these functions only.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from . import available_memory, cuda
from ._types import Array, Shape

# In bytes: a cache line, the widest vector register, and the widest loads of a GPU.
ALIGNMENT = 64
DEVICES = ("cpu", "cuda")


def check(operation: str, device: object) -> None:
    """Check that ``device`` is usable.

    Raises
    ------
    ValueError
        If it is neither "cpu" nor "cuda".
    RuntimeError
        If it is "cuda" and no GPU is usable.
    """
    if device not in DEVICES:
        raise ValueError(f'{operation}: device must be "cpu" or "cuda", got {device!r}')
    if device == "cuda" and cuda.why_off():
        raise RuntimeError(f"{operation}: CUDA is off: {cuda.why_off()}")


def zeros(device: str, nbytes: int, error_prefix: str) -> Array:
    """Return a vector of zero bytes that starts on an ``ALIGNMENT`` boundary.

    On the CPU, pages are allocated when first written.

    Raises
    ------
    MemoryError
        If the bytes do not fit. The message starts with ``error_prefix``, "... needs".
    """
    if device == "cuda":
        require(device, error_prefix, nbytes)
        return typed(cuda.zeros(nbytes, np.uint8))
    available_memory.require(error_prefix, nbytes)
    if nbytes > sys.maxsize - ALIGNMENT:
        raise MemoryError(
            f"{error_prefix} {available_memory.in_bytes(nbytes)} of memory: no array is so large"
        )
    raw = np.zeros(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


def require(device: str, error_prefix: str, nbytes: int, parts: str = "", more: str = "") -> None:
    """Raise MemoryError if ``nbytes`` do not fit. See `available_memory.require`."""
    if device == "cpu":
        available_memory.require(error_prefix, nbytes, parts, more)
        return
    free, _ = cuda.memory()
    if nbytes > free:
        raise MemoryError(
            f"{error_prefix} {available_memory.in_bytes(nbytes)} of{more} GPU memory"
            f"{f' ({parts})' if parts else ''}, but {available_memory.in_bytes(free)} are free"
        )


def view(arena: Array, offset: int, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """Return an array of ``shape`` and ``dtype`` in ``arena``, ``offset`` bytes from its start."""
    if isinstance(arena, cuda.Array):
        return typed(arena.part(offset, shape, dtype))
    nbytes = math.prod(shape) * dtype.itemsize
    return arena[offset : offset + nbytes].view(dtype).reshape(shape)


def flat_view(arena: Array, dtype: np.dtype[Any]) -> Array:
    """Return all of ``arena`` as a vector of ``dtype``."""
    return view(arena, 0, (arena.nbytes // dtype.itemsize,), dtype)


def to_device(device: str, array: Array) -> Array:
    """Return ``array`` if it is on ``device``, else a copy there."""
    if device == "cuda":
        return typed(cuda.array(array))
    return to_numpy(array)


def to_numpy(array: Array) -> Array:
    """Return ``array`` if it is on the CPU, else a copy there."""
    return array.numpy() if isinstance(array, cuda.Array) else array


def write(array: Array, value: Array | float) -> None:
    """Set all elements of ``array``, on either device, to those of an array or to a number."""
    if isinstance(array, cuda.Array):
        array.fill(value if isinstance(value, cuda.Array) else np.asarray(value))
    else:
        # np.copyto takes half a microsecond longer for a number.
        array[...] = value.numpy() if isinstance(value, cuda.Array) else value


def typed(array: Any) -> Array:
    """Return ``array`` with the static type `Array`, for code that only passes it on."""
    return array  # type: ignore[no-any-return]
