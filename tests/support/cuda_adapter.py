"""The backend ``cuda`` of the operations' tests: the same calls with every array on the GPU.

Tests use NumPy. `OnGpu` replaces the compiled module in `chainrule.ops`: it copies the arrays of a
call to the GPU, including their overlaps, and copies written arrays back. Calls that are impossible
on a GPU (a strided or read-only ``out``, an unsupported dtype) go to the CPU unchanged.
"""

from __future__ import annotations

import ctypes
import inspect
from typing import Any

import numpy as np

from chainrule import _core, cuda, ops

TYPES = [np.dtype(name) for name in ("f4", "f8", "u1", "u2", "i8", "u8")]
# Arguments that operations write.
WRITTEN = {"out", "parameters", "velocity", "first_moment", "second_moment"}
INTEGERS = {"labels", "indices"}


def dense(a: np.ndarray) -> bool:
    return a.flags.c_contiguous and a.flags.aligned


class GpuCopies:
    """The arrays of one call, copied to the GPU: one copy per interval of memory they cover."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        spans = sorted((a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays if a.nbytes)
        self.intervals: list[list[int]] = []
        for start, end in spans:
            if self.intervals and start < self.intervals[-1][1]:
                self.intervals[-1][1] = max(self.intervals[-1][1], end)
            else:
                self.intervals.append([start, end])
        self.memory = [cuda.array(self._bytes(i)) for i in range(len(self.intervals))]

    def _bytes(self, i: int) -> np.ndarray:
        start, end = self.intervals[i]
        return np.ctypeslib.as_array((ctypes.c_uint8 * (end - start)).from_address(start))

    def copy_of(self, a: np.ndarray) -> Any:
        """Return the GPU array of an array of the call."""
        if a.nbytes == 0:
            return cuda.empty(a.shape, a.dtype)
        for i, (start, end) in enumerate(self.intervals):
            if start <= a.ctypes.data < end:
                return self.memory[i].part(a.ctypes.data - start, a.shape, a.dtype)
        raise AssertionError("an array of the call was not copied to the GPU")

    def copy_back(self, written: list[np.ndarray]) -> None:
        """Copy the arrays that the call has written back to the CPU."""
        for a in written:
            if a.nbytes:
                a[...] = self.copy_of(a).numpy()


class OnGpu:
    """The attributes of ``chainrule._core``, with operations on the GPU."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(_core, name)
        if name not in ops.__all__:
            return function
        # `ops` passes its arguments in order.
        names = list(inspect.signature(getattr(ops, name)).parameters)

        def call(*arguments: Any) -> Any:
            return call_on_gpu(function, names, arguments)

        return call


def call_on_gpu(function: Any, names: list[str], arguments: tuple[Any, ...]) -> Any:
    """Call a compiled operation with copies of its arrays on the GPU and return NumPy arrays."""
    given = [np.from_dlpack(a) if _is_exporter(a) else a for a in arguments]
    written: list[np.ndarray] = []
    for name, value in zip(names, given, strict=True):
        for a in value if isinstance(value, tuple) and name == "out" else (value,):
            if name in WRITTEN and isinstance(a, np.ndarray):
                written.append(a)
    if any(not (dense(a) and a.flags.writeable and a.dtype in TYPES) for a in written):
        return function(*arguments)
    inputs: list[Any] = []
    for name, value in zip(names, given, strict=True):
        if isinstance(value, np.ndarray) and not any(value is a for a in written):
            if name in INTEGERS and value.dtype.kind in "iu":
                if value.size and value.max() > np.iinfo(np.int64).max:
                    return function(*arguments)
                value = value.astype(np.int64, copy=False)  # keeps overlaps
            if value.dtype not in TYPES:
                return function(*arguments)
            if not dense(value):
                value = np.array(value, order="C", copy=True)
        inputs.append(value)
    copies = GpuCopies([a for a in inputs if isinstance(a, np.ndarray)] + written)

    def to_gpu(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return copies.copy_of(value)
        if isinstance(value, tuple) and any(isinstance(a, np.ndarray) for a in value):
            return tuple(to_gpu(a) for a in value)
        return value

    result = function(*map(to_gpu, inputs))
    copies.copy_back(written)
    out = inputs[names.index("out")] if "out" in names else None
    if out is not None:
        return out
    if isinstance(result, tuple):
        return tuple(a if a is None else a.numpy() for a in result)
    return None if result is None else result.numpy()


def _is_exporter(value: Any) -> bool:
    return hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray)
