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
    for page in (start, start + PAGE + room):
        protect(page, PAGE)
    offset = PAGE + (room - count * dtype.itemsize if at_end else 0)
    return np.frombuffer(memory, dtype, count, offset).reshape(shape)


def two_mappings(nbytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays of bytes at different addresses that are the same memory, all zero.

    16 MB after them are inaccessible.
    """
    guard, used = 16 << 20, -(-nbytes // PAGE) * PAGE
    file = os.memfd_create("two_mappings")
    os.ftruncate(file, used + guard)
    arrays = []
    for _ in range(2):
        memory = mmap.mmap(file, used + guard)
        protect(ctypes.addressof(ctypes.c_char.from_buffer(memory)) + used, guard)
        arrays.append(np.frombuffer(memory, np.uint8, nbytes))
    os.close(file)
    return arrays[0], arrays[1]


def protect(address: int, nbytes: int) -> None:
    """Make pages inaccessible."""
    libc = ctypes.CDLL(None, use_errno=True)
    # 0 is PROT_NONE on every system that has mprotect.
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


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
