"""Make every public call under many limits of the address space.

``python tests/support/memory_sweep.py STEPS [NAME]``: each call whose name contains NAME runs in
forked children, each with another limit: STEPS sizes between none and what the call needs. It must
return its result, or raise a MemoryError with a text. Without the limit the same process must then
return the result. Prints, as JSON, how often each outcome occurred, and the faults.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chainrule as cr
from guard_pages import little_memory
from public_calls import (
    LARGE,
    LARGE_RESULT,
    SMALL,
    data,
    mathematics,
    networks,
    operations,
    same,
    through_dlpack,
)

SECONDS = 60  # a child that takes longer is one that hangs
MOST = 2**31


def fill_heap() -> None:
    """Allocate what the heap has free, so that later allocations need memory of the system."""
    malloc = ctypes.CDLL(None).malloc
    malloc.restype = ctypes.c_void_p
    with little_memory(0):
        for size in (2**20, 2**18, 2**16, 2**14, 2**12):
            while malloc(ctypes.c_size_t(size)):
                pass


def outcome(call: Callable[[], Any], more: int) -> str:
    """Return "result", "MemoryError" or a description of the fault."""
    got: Any = None
    fill_heap()
    try:
        with little_memory(more):
            got = call()
        found = "result"
    except MemoryError as error:
        found = "MemoryError"
        if not str(error).strip():
            found = "fault: MemoryError without a text, " + traceback.format_exc()[-600:]
    except BaseException:
        found = "fault: " + traceback.format_exc()[-600:]
    # The same call in the same process, now without the limit
    again = call()
    if not same(again, call()) or (found == "result" and not same(got, again)):
        return f"fault: {found}, and another result afterwards"
    return found


def in_child(call: Callable[[], Any], more: int) -> str:
    """Return the outcome in a forked child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)  # ends the child
        try:
            text = outcome(call, more)
        except BaseException:
            text = "fault: unusable afterwards, " + traceback.format_exc()[-600:]
        os.write(writing, text.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        text = file.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return text if code == 0 else f"fault: the child ended with {code} {text}"


def sweep(call: Callable[[], Any], steps: int) -> Counter[str]:
    """Return how often each outcome occurred."""
    enough, found = 2**14, Counter[str]()
    while enough < MOST and (text := in_child(call, enough)) != "result":
        found[text] += 1
        enough *= 2
    found.update(in_child(call, step * enough // steps) for step in range(steps + 1))
    return found


def main(steps: int, only: str = "") -> None:
    # Another arena has 64 MiB of address space, from which calls would get their memory.
    arena_max = -8  # M_ARENA_MAX of malloc.h
    ctypes.CDLL(None).mallopt(arena_max, 1)
    cr.set_num_threads(2)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        files = data(Path(folder))
        # Smaller calls of the same functions import what is imported at the first use.
        for call in (operations(SMALL) | networks(8) | mathematics() | files).values():
            call()
        calls = operations(LARGE, LARGE_RESULT) | networks(2000) | mathematics()
        calls |= files | through_dlpack()
        report = {name: dict(sweep(call, steps)) for name, call in calls.items() if only in name}
    print(json.dumps({"seconds": time.monotonic() - start, "outcomes": report}))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main(int(sys.argv[1]), *sys.argv[2:])
