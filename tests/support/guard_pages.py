"""Arrays beside inaccessible pages, and a limit on allocations."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

PAGE = mmap.PAGESIZE


def guarded(shape: tuple[int, ...], dtype: Any, *, at_end: bool) -> np.ndarray:
    """Return a C-contiguous array of zeros that ends (or begins) at an inaccessible page."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    room = max(-(-count * dtype.itemsize // PAGE), 1) * PAGE
    memory = mmap.mmap(-1, room + 2 * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for page in (start, start + PAGE + room):
        # 0 is PROT_NONE on every system that has mprotect.
        if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    offset = PAGE + (room - count * dtype.itemsize if at_end else 0)
    return np.frombuffer(memory, dtype, count, offset).reshape(shape)


def copy_guarded(a: np.ndarray, *, at_end: bool) -> np.ndarray:
    """Return a copy of an array beside an inaccessible page."""
    b = guarded(a.shape, a.dtype, at_end=at_end)
    b[...] = a
    return b


@contextmanager
def little_memory(more: int = 2**30) -> Iterator[None]:
    """Limit this process to ``more`` bytes above its present memory, so larger allocations fail.

    If the system overcommits memory, writing to a larger allocation would end the process.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * PAGE + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
