"""Backends, threads, matmul precision, and a description of this installation.

This is the Python side of ``csrc/bindings/system.cpp``.
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
    """Return the names of the backends that run on this machine, slowest first.

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.backends()[0]
    'scalar'
    """
    return tuple(_core.backends())


def set_backend(name: str) -> None:
    """Run all later operations with another of `backends`.

    At import, the fastest is chosen, or the one in the environment variable CHAINRULE_BACKEND.

    Parameters
    ----------
    name : str
        One of `backends`.

    Raises
    ------
    ValueError
        If this backend does not run here. The message lists those that do.

    Examples
    --------
    >>> import chainrule as cr
    >>> before = cr.info()["backend"]
    >>> cr.set_backend("scalar")
    >>> cr.set_backend(before)
    """
    _core.set_backend(name)


def get_num_threads() -> int:
    """Return the number of threads that an operation may use.

    Examples
    --------
    >>> import chainrule as cr
    >>> 1 <= cr.get_num_threads() <= 4096
    True
    """
    return _core.num_threads()


def set_num_threads(n: int) -> None:
    """Set the maximum number of threads of an operation. Results do not depend on it.

    At import it is the value of the environment variable CHAINRULE_NUM_THREADS, or else the number
    of CPUs that this process may use. A `Program`, and thus a step of `fit`, occasionally measures
    smaller numbers and uses the fastest.

    Parameters
    ----------
    n : int
        In [1, 4096].

    Raises
    ------
    TypeError, ValueError
        If n is not an integer in [1, 4096].

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.set_num_threads(cr.get_num_threads())
    """
    _core.set_num_threads(n)


def get_matmul_precision() -> str:
    """Return the precision of float32 matrix products on a GPU: "highest" or "tf32".

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.get_matmul_precision()
    'highest'
    """
    return _core.matmul_precision()


def set_matmul_precision(precision: str) -> None:
    """Set the precision of float32 matrix products and convolutions on a GPU.

    A program stores the precision of each operation when the operation is recorded. The CPU always
    computes in float32.

    Parameters
    ----------
    precision : str
        "highest", the default: float32 throughout. "tf32": tensor cores multiply numbers rounded
        to 11 bits and add in float32.

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.set_matmul_precision("highest")
    """
    _core.set_matmul_precision(precision)


def info() -> dict[str, Any]:
    """Return a description of this installation and of the machine.

    Returns
    -------
    dict
        ``version``; ``compiler``; ``backends_compiled`` and ``backends_runnable``, slowest first;
        ``backend``, the chosen one; ``threads``; ``cpus``, the number that this process may use;
        ``cuda``, the GPU or the reason why CUDA is off.

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.info()["backend"] in cr.backends()
    True
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
