"""chainrule: small neural networks on its own CPU and CUDA kernels.

`ops` contains every operation, from arrays to arrays. Layers form a `Sequential` network, `fit`
trains it, and `evaluate` measures it. `data` reads MNIST and `plots` draws results. `calculus`
shows the mathematics: every quantity with its own symbol and equation.

Examples
--------
>>> import chainrule as cr
>>> network = cr.Sequential(cr.Flatten(), cr.Linear(10), input_shape=(28, 28, 1))
>>> train, test = cr.data.digits()
>>> history = cr.fit(
...     network, train, loss=cr.CrossEntropy(), optimizer=cr.SGD(0.1), epochs=1, progress=False
... )
>>> bool(cr.evaluate(network, test).accuracy > 0.8)
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import chainrule._core as _core
except ModuleNotFoundError as error:
    if error.name != "chainrule._core":
        raise
    raise ImportError(
        "chainrule: the compiled kernels are missing; install the package with "
        "`pip install .` in its source folder, and start Python in another folder"
    ) from error

from chainrule import cuda, ops
from chainrule._optional import lazy_import
from chainrule.nn.conversion import ConversionWarning
from chainrule.nn.layers import (
    GELU,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from chainrule.nn.losses import BinaryCrossEntropy, CrossEntropy, Huber, Loss, SquaredError
from chainrule.nn.network import Sequential
from chainrule.program import Program
from chainrule.system import (
    backends,
    get_convolution_precision,
    get_matmul_precision,
    get_num_threads,
    info,
    set_backend,
    set_convolution_precision,
    set_matmul_precision,
    set_num_threads,
)
from chainrule.training.base_metric import Metric
from chainrule.training.epoch import DivergenceError
from chainrule.training.evaluation import Evaluation
from chainrule.training.history import Epoch, History
from chainrule.training.input_scale import ScaleWarning
from chainrule.training.loop import fit
from chainrule.training.lr_find import lr_find
from chainrule.training.measurement import evaluate
from chainrule.training.optimizers import SGD, Adam, AdamW
from chainrule.training.schedules import Constant, Cosine, OneCycle, ReduceOnPlateau, Schedule
from chainrule.training.stopping import (
    EarlyStopping,
    GradientBelow,
    StoppingRule,
    TrainingLossPlateau,
)

if TYPE_CHECKING:
    from chainrule import calculus, data, plots, recipes

__version__ = _core.version()

__all__ = [
    "GELU",
    "SGD",
    "Adam",
    "AdamW",
    "BinaryCrossEntropy",
    "Constant",
    "Conv2d",
    "ConversionWarning",
    "Cosine",
    "CrossEntropy",
    "DivergenceError",
    "Dropout",
    "EarlyStopping",
    "Epoch",
    "Evaluation",
    "Flatten",
    "GradientBelow",
    "History",
    "Huber",
    "Layer",
    "LeakyReLU",
    "Linear",
    "Loss",
    "MaxPool2d",
    "Metric",
    "OneCycle",
    "Program",
    "ReLU",
    "ReduceOnPlateau",
    "ScaleWarning",
    "Schedule",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "SquaredError",
    "StoppingRule",
    "Tanh",
    "TrainingLossPlateau",
    "backends",
    "calculus",
    "cuda",
    "data",
    "evaluate",
    "examples",
    "fit",
    "get_convolution_precision",
    "get_matmul_precision",
    "get_num_threads",
    "info",
    "load",
    "lr_find",
    "ops",
    "plots",
    "recipes",
    "set_backend",
    "set_convolution_precision",
    "set_matmul_precision",
    "set_num_threads",
]

load = Sequential.load

_LAZY = ("calculus", "data", "examples", "plots", "recipes")


def __getattr__(name: str) -> Any:
    # Imported when first used: programs with their own data and no plots do not need them.
    if name in _LAZY:
        return lazy_import(f"chainrule.{name}")
    raise AttributeError(f"module 'chainrule' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
