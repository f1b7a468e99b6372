"""chainrule: small neural networks on kernels of our own.

`ops` holds every operation, array in and array out. Layers make a `Sequential` network, `fit`
trains it, `evaluate` measures it, `data` finds MNIST and `plots` shows what was learnt. `calculus`
shows the mathematics at work, every quantity under its own symbol and equation.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

try:
    from chainrule import _core
except ModuleNotFoundError as error:
    if error.name != "chainrule._core":
        raise
    raise ImportError(
        "chainrule: the compiled kernels are missing; install the package with "
        "`pip install .` in its source folder, and start Python somewhere else"
    ) from error

from chainrule import cuda, ops
from chainrule.nn.layers import (
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Softmax,
)
from chainrule.nn.losses import CrossEntropy, Loss, SquaredError
from chainrule.nn.network import Sequential
from chainrule.program import Program
from chainrule.training.history import Evaluation, History
from chainrule.training.loop import DivergenceError, evaluate, fit
from chainrule.training.optimizers import SGD, Constant, Cosine, OneCycle
from chainrule.training.stopping import EarlyStopping, GradientBelow

if TYPE_CHECKING:
    from chainrule import calculus, data, examples, plots, recipes

__version__ = _core.version()

__all__ = [
    "SGD",
    "Constant",
    "Conv2d",
    "Cosine",
    "CrossEntropy",
    "DivergenceError",
    "Dropout",
    "EarlyStopping",
    "Evaluation",
    "Flatten",
    "GradientBelow",
    "History",
    "Layer",
    "LeakyReLU",
    "Linear",
    "Loss",
    "MaxPool2d",
    "OneCycle",
    "Program",
    "ReLU",
    "Sequential",
    "Softmax",
    "SquaredError",
    "backends",
    "calculus",
    "cuda",
    "data",
    "evaluate",
    "examples",
    "fit",
    "get_matmul_precision",
    "get_num_threads",
    "info",
    "load",
    "ops",
    "plots",
    "recipes",
    "set_backend",
    "set_matmul_precision",
    "set_num_threads",
]

load = Sequential.load

_WHEN_USED = ("calculus", "data", "examples", "plots", "recipes")


def __getattr__(name: str) -> Any:
    # Modules that a program with its own data and no pictures never needs to load.
    if name in _WHEN_USED:
        return importlib.import_module(f"chainrule.{name}")
    raise AttributeError(f"module 'chainrule' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHEN_USED})


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
        "version": __version__,
        "compiler": _core.compiler(),
        "backends_compiled": tuple(_core.backends_compiled()),
        "backends_runnable": backends(),
        "backend": _core.backend(),
        "threads": get_num_threads(),
        "cpus": _core.available_cpus(),
        "cuda": f"off: {reason}" if (reason := cuda.why_off()) else cuda.description(),
    }
