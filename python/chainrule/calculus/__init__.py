"""The tutorial's mathematics, to be watched: every quantity of a network under its own name.

`trace` shows one instance's way forward and back; `jacobian` and `jacobian_factors` the matrices of
the chain rule; `check_gradient` compares gradients with central differences; `weight_matrices` and
`gradient_matrices` are W^(l) and G^(l), which `vec` makes one vector; `EQUATIONS` says for each of
the 67 equations which name of the library realises it.

Everything here computes in float64 on the kernels, whatever the network's dtype; inputs may be any
real numbers (uint8 means value / 255). The network itself is not changed, except by `prune`.
"""

from __future__ import annotations

from .chain_rule import Factor, Factors, jacobian_factors, loss_jacobian
from .entries import Entry
from .equations import EQUATIONS, Equation, equation
from .gradient_check import Derivative, GradientCheck, LayerCheck, check_gradient
from .jacobians import jacobian, layer_jacobian, layer_parameter_jacobian, parameter_jacobian
from .matrices import gradient_matrices, unvec, vec, weight_matrices
from .pruning import DeadUnits, Pruned, dead_units, prune
from .sparse import SparseMatrix
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
