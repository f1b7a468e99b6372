"""Backends, threads, matmul precision, and what this installation runs on.

The Python side of ``csrc/bindings/system.cpp``.
"""

from __future__ import annotations

from typing import Any

import chainrule._core as _core

from . import cuda

__all__ = [
    "backends",
    "get_convolution_precision",
    "get_matmul_precision",
    "get_num_threads",
    "info",
    "set_backend",
    "set_convolution_precision",
    "set_matmul_precision",
    "set_num_threads",
]


def backends() -> tuple[str, ...]:
    """Return the names of the backends that run on this machine, slowest first.

    Returns
    -------
    tuple of str
        From "scalar", "sse2", "avx2" and "avx512" on x86-64, and "scalar" and "neon" on AArch64.

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.backends()[0]
    'scalar'
    """
    return tuple(_core.backends())


def set_backend(name: str) -> None:
    """Select the backend of all operations on the CPU.

    At import it is the value of the environment variable CHAINRULE_BACKEND if set, else the fastest
    of `backends`. A recorded `Program` keeps the backend of its recording.

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
    >>> cr.info()["backend"]
    'scalar'
    >>> cr.set_backend(before)
    """
    _core.set_backend(name)


def get_num_threads() -> int:
    """Return the maximum number of threads of an operation.

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.get_num_threads() >= 1
    True
    """
    return _core.num_threads()


def set_num_threads(n: int) -> None:
    """Set the maximum number of threads of an operation. Results do not depend on it.

    At import it is the value of the environment variable CHAINRULE_NUM_THREADS if set. Otherwise it
    is the number of CPUs that the process may use, by its affinity mask and the quotas of its
    control groups, or OMP_NUM_THREADS if that is smaller. A `Program`, and so every step of `fit`,
    tries fewer threads from time to time and uses the fastest number.

    Parameters
    ----------
    n : int
        In [1, 4096].

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is out of range.

    Examples
    --------
    >>> import chainrule as cr
    >>> before = cr.get_num_threads()
    >>> cr.set_num_threads(1)
    >>> cr.get_num_threads()
    1
    >>> cr.set_num_threads(before)
    """
    _core.set_num_threads(n)


def get_matmul_precision() -> str:
    """Return the precision of float32 products on a GPU: "highest" or "tf32".

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.get_matmul_precision()
    'highest'
    """
    return _core.matmul_precision()


def set_matmul_precision(precision: str) -> None:
    """Set the precision of float32 products on a GPU, in matrix products and convolutions.

    A `Program` keeps, for each of its operations, the precision of the recording. The CPU always
    computes in float32, see `set_convolution_precision`.

    Parameters
    ----------
    precision : "highest" or "tf32"
        "highest", the default, computes in float32. "tf32" rounds the factors to 11 bits,
        multiplies on tensor cores and sums in float32.

    Raises
    ------
    ValueError
        If `precision` is another value.

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.set_matmul_precision("tf32")
    >>> cr.get_matmul_precision()
    'tf32'
    >>> cr.set_matmul_precision("highest")
    """
    _core.set_matmul_precision(precision)


def get_convolution_precision() -> str:
    """Return the precision of float32 convolutions on the CPU: "fast" or "highest".

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.get_convolution_precision()
    'fast'
    """
    return _core.convolution_precision()


def set_convolution_precision(precision: str) -> None:
    """Set the precision of float32 convolutions on the CPU.

    It is the counterpart of `set_matmul_precision`, which concerns a GPU. It applies to the next
    call of every thread. A `Program` keeps, for each of its operations, the precision of the
    recording. A GPU never uses Winograd's algorithm, nor does float64.

    Parameters
    ----------
    precision : "fast" or "highest"
        "fast", the default, uses Winograd's algorithm if the shape and the data allow it. Its error
        is relative to the largest pixel near an output. "highest" sums the products themselves, so
        the error of an element is relative to the products that it sums. The notes of `ops` state
        both bounds. "highest" takes about twice as long.

    Raises
    ------
    ValueError
        If `precision` is another value.

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.set_convolution_precision("highest")
    >>> cr.get_convolution_precision()
    'highest'
    >>> cr.set_convolution_precision("fast")
    """
    _core.set_convolution_precision(precision)


def info() -> dict[str, Any]:
    """Return facts about this installation and this machine.

    Returns
    -------
    dict
        `version` and `compiler` : str
        `backends_compiled` and `backends_runnable` : tuple of str, slowest first
        `backend` : str, the active backend
        `threads` : int, see `get_num_threads`
        `cpus` : int, the number of CPUs available to this process
        `cuda` : str, the GPU and its driver, or "off: " and the reason

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
