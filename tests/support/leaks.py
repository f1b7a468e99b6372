"""Measure leaks: the memory that many calls of a public function leave behind.

``PYTHONMALLOC=malloc python tests/support/leaks.py CALLS [NAME]`` makes three series of CALLS calls
of each operation, right and wrong, of a tenth as many of other functions, and of a hundredth as
many of slow ones. It prints, as JSON, the bytes per call that stay allocated in the C library, the
growth of the resident memory per call, and the number of calls. Python's own pools would hide the
bytes.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import chainrule as cr
from op_contract import Call
from public_calls import SMALL, data, mathematics, networks, operations, through_dlpack
from random_calls import CASES, UPDATED, Draw
from subprocess_tasks import resident_bytes

# Fields of the C library's `struct mallinfo2`, all of type size_t.
FIELDS = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
    "keepcost",
)  # fmt: skip
SLOW = ("fit", "check_gradient", "read_idx", "read_idx of gzip", "prune", "Sequential")


class MallocInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


def allocated_bytes() -> int:
    """Return the bytes in use of the C library's heap and of its mapped blocks."""
    gc.collect()
    function = ctypes.CDLL(None).mallinfo2
    function.restype = MallocInfo
    info = function()
    return int(info.uordblks + info.hblkhd)


def wrong_calls() -> dict[str, Callable[[], Any]]:
    """Return calls of each operation that raise: an array of a wrong dtype, and a wrong ``out``."""

    def refused(call: Call) -> None:
        name = next(iter(call.arrays))
        changes: list[dict[str, Any]] = [{name: call.arrays[name].astype(np.complex64)}]
        if call.op not in UPDATED:
            changes.append({"out": "text"})
        for change in changes:
            try:
                call(**change)
            except TypeError:
                continue
            raise AssertionError(f"{call.op} accepts {change!r}")

    calls = {}
    for make in CASES:
        call = make(Draw(SMALL, np.dtype("float32"), make.__name__, 0)).call
        calls[f"{make.__name__}: error"] = lambda call=call: refused(call)
    return calls


def discarded_program() -> None:
    """Record a program and leave the recording by an exception."""
    x = np.ones(8, np.float32)
    try:
        with cr.Program():
            cr.ops.relu(x)
            raise ValueError
    except ValueError:
        return


def growth(call: Callable[[], Any], count: int) -> tuple[float, float, int]:
    """Return the bytes per call that stay allocated, the resident growth per call, and the calls.

    Each is the smallest of three series. A leak occurs in all of them, a cache that grows once and
    a fragmented heap do not.
    """
    for _ in range(count // 20 + 3):
        call()
    allocated, resident = [], []
    for _ in range(3):
        before = allocated_bytes(), resident_bytes()
        for _ in range(count):
            call()
        allocated.append((allocated_bytes() - before[0]) / count)
        resident.append((resident_bytes() - before[1]) / count)
    return min(allocated), min(resident), count


def main(count: int, only: str = "") -> None:
    cr.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        frequent = operations(SMALL) | wrong_calls() | through_dlpack()
        frequent["Program: error"] = discarded_program
        others = networks(8) | mathematics() | data(Path(folder))
        report = {}
        for name, call in (frequent | others).items():
            if only in name:
                share = 1 if name in frequent else 100 if name in SLOW else 10
                report[name] = growth(call, max(1, count // share))
    print(json.dumps(report))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
