"""Parameters near integer overflow, which must give a result or a documented error."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from guard_pages import little_memory

# Small sizes, and sizes near the overflow of 32- and 64-bit products. None between: a correct
# result might take gigabytes there.
EXTREME = st.sampled_from(
    [2**n + d for n in (31, 32, 40, 61, 62, 63) for d in (-1, 0, 1)] + [2**64, 2**70, 10**30]
)
SMALL = st.integers(-3, 3)
PAIRS = st.tuples(EXTREME | SMALL, EXTREME | SMALL)


def signed(pair: tuple[int, int], sign: int) -> tuple[int, int]:
    return sign * pair[0], sign * pair[1]


def gives_shape_or_documented_error(call: Any, op: str) -> None:
    """Assert that the call returns the correct shape or raises a documented, named error."""
    message = None
    try:
        with little_memory():
            call()
    except MemoryError:
        return
    except (ValueError, TypeError) as error:
        message = str(error)
    assert message is None or message.startswith(f"{op}: ")
