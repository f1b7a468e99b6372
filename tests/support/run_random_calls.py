"""Make random calls of every operation on every backend that runs here, for the sanitizers.

``python tests/support/run_random_calls.py COUNT``: COUNT calls of each operation for each backend
and dtype. An invalid access ends the process. Each call is made
twice, on several threads, and at addresses that need not be aligned. The bits must be equal.
"""

from __future__ import annotations

import sys
import time

import numpy as np

import chainrule as cr
from assertions import DTYPES, same_bits
from op_contract import Call, members
from random_calls import CASES, Draw, Limits, Results, written

LIMITS = Limits(small=40, large=130, long=700, work=2**18, elements=2**13)


def moved(a: np.ndarray, offset: int) -> np.ndarray:
    """Return a copy, ``offset`` elements after the start of an allocation that ends with it."""
    memory = np.empty(offset + a.size, a.dtype)
    memory[offset:] = a.ravel()
    return memory[offset:].reshape(a.shape)


def results(call: Call, offset: int = 0) -> Results:
    arrays = {name: moved(a, offset) for name, a in call.arrays.items()}
    result = call(**arrays)
    return written(call, arrays) or members(result)


def main(count: int) -> int:
    """Return the number of calls."""
    calls = 0
    for backend in cr.backends():
        cr.set_backend(backend)
        start = time.monotonic()
        for make in CASES:
            for dtype in DTYPES:
                for i in range(count):
                    draw = Draw(LIMITS, dtype, make.__name__, i)
                    call = make(draw).call
                    cr.set_num_threads(3)
                    first = results(call)
                    cr.set_num_threads(1 if i % 2 else 3)
                    again = results(call, draw.integer(0, 3))
                    assert same_bits(first, again), f"{backend}: {make.__name__}, call {i}"
                    calls += 2
        print(f"{backend}: {calls} calls in all, {time.monotonic() - start:.0f} s", flush=True)
    return calls


if __name__ == "__main__":
    main(int(sys.argv[1]))
