"""The mathematics of the tutorial: every quantity of a network under its own symbol.

`trace` returns all values of a forward and a backward pass of one instance. `jacobian` and
`jacobian_factors` return the matrices of the chain rule. `check_gradient` compares gradients with
central differences. `weight_matrices` and `gradient_matrices` are W^(l) and G^(l), which `vec`
joins into one vector. `EQUATIONS` maps each of the 67 equations to the names that compute it.

All computations run on the kernels in float64, for a network of any dtype. Inputs are real numbers,
and images of uint8 mean value / 255. Only `prune` changes the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._optional import lazy_import
from .chain_rule import Factor, Factors, jacobian_factors, loss_jacobian
from .equations import Equation, equation
from .gradient_check import Derivative, GradientCheck, LayerCheck, check_gradient
from .jacobians import (
    SparseMatrix,
    jacobian,
    layer_jacobian,
    layer_parameter_jacobian,
    parameter_jacobian,
)
from .matrices import gradient_matrices, unvec, vec, weight_matrices
from .pruning import DeadUnits, Pruned, dead_units, prune
from .symbols import Entry
from .tracing import Trace, trace

__all__ = [
    "EQUATIONS",
    "DeadUnits",
    "Derivative",
    "Entry",
    "Equation",
    "Factor",
    "Factors",
    "GradientCheck",
    "LayerCheck",
    "Pruned",
    "SparseMatrix",
    "Trace",
    "check_gradient",
    "dead_units",
    "equation",
    "gradient_matrices",
    "jacobian",
    "jacobian_factors",
    "layer_jacobian",
    "layer_parameter_jacobian",
    "loss_jacobian",
    "parameter_jacobian",
    "prune",
    "trace",
    "unvec",
    "vec",
    "weight_matrices",
]

EQUATIONS: tuple[Equation, ...]
"""All equations of the tutorial, in the order of their numbers."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Reading the file of equations takes longer than importing this package.
        if name == "EQUATIONS":
            return lazy_import(f"{__name__}.equations").equations()
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
