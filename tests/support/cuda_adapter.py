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
WRITTEN = {"out", "parameters", "velocity"}
INTEGERS = {"labels", "indices"}


def dense(a: np.ndarray) -> bool:
    return a.flags.c_contiguous and a.flags.aligned


class Placed:
    """Arrays of one call. Each interval of memory that they cover is copied to the GPU."""

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

    def of(self, a: np.ndarray) -> Any:
        if a.nbytes == 0:
            return cuda.empty(a.shape, a.dtype)
        for i, (start, end) in enumerate(self.intervals):
            if start <= a.ctypes.data < end:
                return self.memory[i].part(a.ctypes.data - start, a.shape, a.dtype)
        raise AssertionError("an array of the call was not copied to the GPU")

    def fetch(self, written: list[np.ndarray]) -> None:
        for a in written:
            if a.nbytes:
                a[...] = self.of(a).numpy()


class OnGpu:
    """The attributes of ``chainrule._core``, with operations on the GPU."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(_core, name)
        if name not in ops.__all__:
            return function
        # `ops` passes its arguments in order.
        names = list(inspect.signature(getattr(ops, name)).parameters)

        def call(*arguments: Any) -> Any:
            return on_gpu(function, name, names, arguments)

        return call


def on_gpu(function: Any, op: str, names: list[str], arguments: tuple[Any, ...]) -> Any:
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
    everything = [a for a in inputs if isinstance(a, np.ndarray)] + written
    placed = Placed(everything)

    def moved(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return placed.of(value)
        if isinstance(value, tuple) and any(isinstance(a, np.ndarray) for a in value):
            return tuple(moved(a) for a in value)
        return value

    result = function(*map(moved, inputs))
    placed.fetch(written)
    out = inputs[names.index("out")] if "out" in names else None
    if out is not None:
        return out
    if isinstance(result, tuple):
        return tuple(a if a is None else a.numpy() for a in result)
    return None if result is None else result.numpy()


def _is_exporter(value: Any) -> bool:
    return hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray)
