"""Backends, threads, matmul precision, and what this installation runs on.

The Python side of ``csrc/bindings/system.cpp``.
"""

from __future__ import annotations

from typing import Any

import chainrule._core as _core

from . import cuda

__all__ = [
    "backends",
    "get_matmul_precision",
    "get_num_threads",
    "info",
    "set_backend",
    "set_matmul_precision",
    "set_num_threads",
]


def backends() -> tuple[str, ...]:
    """Return the names of the backends that run on this machine, slowest first."""
    return tuple(_core.backends())


def set_backend(name: str) -> None:
    """Run every operation from now on with another of `backends`.

    The best one is chosen at import, or the one that the environment variable
    CHAINRULE_BACKEND names.

    Raises
    ------
    ValueError
        If no such backend runs here; the message lists those that do.
    """
    _core.set_backend(name)


def get_num_threads() -> int:
    """Return how many threads an operation may use."""
    return _core.num_threads()


def set_num_threads(n: int) -> None:
    """Let operations use up to n threads; results do not depend on it.

    At import it is the value of CHAINRULE_NUM_THREADS, else the CPUs that this process may use. A
    `Program`, as every step of `fit`, tries fewer now and then, and keeps to what is faster.

    Raises
    ------
    TypeError, ValueError
        If n is not an integer in [1, 4096].
    """
    _core.set_num_threads(n)


def get_matmul_precision() -> str:
    """Return how exactly a GPU multiplies float32 matrices: "highest" or "tf32"."""
    return _core.matmul_precision()


def set_matmul_precision(precision: str) -> None:
    """Choose how exactly a GPU multiplies float32 matrices, in convolutions too.

    Parameters
    ----------
    precision : "highest", float32 throughout, the default; or "tf32": products of numbers that are
        rounded to 11 bits, on tensor cores, and summed in float32. A program keeps, for each of its
        operations, what was chosen when that was recorded. The CPU always computes in float32

    Raises
    ------
    ValueError
        If it is neither.
    """
    _core.set_matmul_precision(precision)


def info() -> dict[str, Any]:
    """Return what this installation is and what it runs on.

    Returns
    -------
    dict
        `version`; `compiler`; `backends_compiled` and `backends_runnable`, slowest first;
        `backend`, the chosen one; `threads`; `cpus`, the ones this process may use; `cuda`, or
        why there is none.
    """
    return {
        "version": _core.version(),
        "compiler": _core.compiler(),
        "backends_compiled": tuple(_core.backends_compiled()),
        "backends_runnable": backends(),
        "backend": _core.backend(),
        "threads": get_num_threads(),
        "cpus": _core.available_cpus(),
        "cuda": f"off: {reason}" if (reason := cuda.why_off()) else cuda.description(),
    }
