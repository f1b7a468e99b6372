"""Where a network's memory lies: NumPy arrays on the CPU, `cuda.Array` on a GPU.

The few things that plans, weights and optimizers do with memory beside handing it to operations.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from . import available_memory, cuda
from ._types import Array, Shape

# A cache line, the widest vector register, and what a GPU's widest loads want.
ALIGNMENT = 64
DEVICES = ("cpu", "cuda")


def check(operation: str, device: object) -> None:
    """ValueError unless ``device`` is one; RuntimeError where it is a GPU and there is none."""
    if device not in DEVICES:
        raise ValueError(f'{operation}: device must be "cpu" or "cuda", got {device!r}')
    if device == "cuda" and cuda.why_off():
        raise RuntimeError(f"{operation}: CUDA is off: {cuda.why_off()}")


def zeros(device: str, nbytes: int, what: str) -> Array:
    """Bytes of zeros whose first one lies on an ``ALIGNMENT`` boundary.

    MemoryError that begins with ``what`` ("... needs") where they do not fit. On the CPU pages are
    taken when first used.
    """
    if device == "cuda":
        require(device, what, nbytes)
        return typed(cuda.zeros(nbytes, np.uint8))
    available_memory.require(what, nbytes)
    if nbytes > sys.maxsize - ALIGNMENT:
        raise MemoryError(
            f"{what} {available_memory.in_bytes(nbytes)} of memory: no array is so large"
        )
    raw = np.zeros(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


def require(device: str, what: str, nbytes: int, parts: str = "", more: str = "") -> None:
    """Refuse to allocate what does not fit, as `available_memory.require` does for the CPU."""
    if device == "cpu":
        available_memory.require(what, nbytes, parts, more)
        return
    free, _ = cuda.memory()
    if nbytes > free:
        raise MemoryError(
            f"{what} {available_memory.in_bytes(nbytes)} of{more} GPU memory"
            f"{f' ({parts})' if parts else ''}, but {available_memory.in_bytes(free)} are free"
        )


def view(arena: Array, offset: int, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """An array in the memory of another."""
    if isinstance(arena, cuda.Array):
        return typed(arena.part(offset, shape, dtype))
    nbytes = math.prod(shape) * dtype.itemsize
    return arena[offset : offset + nbytes].view(dtype).reshape(shape)


def flat_view(arena: Array, dtype: np.dtype[Any]) -> Array:
    """All of an arena as a vector."""
    return view(arena, 0, (arena.nbytes // dtype.itemsize,), dtype)


def to_device(device: str, array: Array) -> Array:
    """The array itself where it lies there, else a copy there."""
    if device == "cuda":
        return typed(cuda.array(array))
    return to_numpy(array)


def to_numpy(array: Array) -> Array:
    """The array itself on the CPU, else a copy."""
    return array.numpy() if isinstance(array, cuda.Array) else array


def write(array: Array, value: Array | float) -> None:
    """Take over all elements of an array on either device, or a number."""
    if isinstance(array, cuda.Array):
        array.fill(value if isinstance(value, cuda.Array) else np.asarray(value))
    else:
        # np.copyto takes half a microsecond more for a number.
        array[...] = value.numpy() if isinstance(value, cuda.Array) else value


def typed(array: Any) -> Array:
    """What lies on a GPU, for code that only hands it on."""
    return array  # type: ignore[no-any-return]
