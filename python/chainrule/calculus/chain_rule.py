"""The chain rule as a product of Jacobians, eq. (51), and the row vector that it equals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from .._types import Array
from .._validation import integer
from ..nn.layers import Softmax
from ..nn.losses import Loss
from ..nn.network import Sequential, checked_network
from ..nn.user_defined import reshapes_only
from ._passes import (
    ForwardPass,
    LossHead,
    checked_batch,
    checked_targets,
    float64_copy,
)
from .jacobians import input_jacobian_of, layer_jacobian, parameter_jacobian_of
from .loss_notation import loss_notation
from .matrices import gradient_matrices, layers_with_weights
from .symbols import NetworkSymbols, Symbol, notation

# The product of the factors differs from the gradient of the kernels only by rounding errors.
MAX_RELATIVE_ERROR = 1e-10


@dataclass(frozen=True, eq=False)
class Factor:
    """One factor of eq. (51): a Jacobian with its symbol.

    Attributes
    ----------
    name : str
        The symbol, such as "J_a^(1)(z^(1))".
    latex : str
        The symbol in LaTeX.
    equation : str
        The equations of its elements.
    matrix : ndarray of float64
        The Jacobian.
    layer : int or None
        l of the tutorial, of the differentiated quantity. None for the loss.

    Examples
    --------
    >>> import chainrule as cr
    >>> net = cr.examples.three_unit_network()
    >>> x, y = cr.examples.three_unit_instance()
    >>> factors = cr.calculus.jacobian_factors(net, x, y, cr.SquaredError())
    >>> factors[2].name, factors[2].equation, factors[2].matrix.tolist()
    ('J_z^(2)(a^(1))', '(53)', [[0.7, 0.5]])
    """

    name: str
    latex: str
    equation: str
    matrix: Array
    layer: int | None

    def __str__(self) -> str:
        rows, columns = self.matrix.shape
        source = f", eq. {self.equation}" if self.equation else ""
        return f"{self.name:20} {rows} x {columns}{source}"


class Factors(Sequence[Factor]):
    """The result of `jacobian_factors`: a sequence of factors and their product.

    Attributes
    ----------
    product : ndarray of float64, (1, p)
        The product of the factors, evaluated from the left.
    gradient : ndarray of float64, (p,)
        The gradient that the backward pass of the training kernels computes, eq. (52).
    error : float
        The largest difference between the two, relative to the largest element of the gradient.

    Examples
    --------
    >>> import chainrule as cr
    >>> net = cr.examples.three_unit_network()
    >>> x, y = cr.examples.three_unit_instance()
    >>> factors = cr.calculus.jacobian_factors(net, x, y, cr.SquaredError())
    >>> len(factors), factors.product.shape, factors.error < 1e-15
    (5, (1, 6), True)
    """

    def __init__(self, factors: Sequence[Factor], gradient: Array) -> None:
        self._factors = list(factors)
        # The leftmost factor has one row. From the left, each step is a vector-matrix product.
        product = self._factors[0].matrix
        for factor in self._factors[1:]:
            product = product @ factor.matrix
        self.product, self.gradient = product, gradient
        largest = float(np.abs(gradient).max(initial=0))
        difference = float(np.abs(product[0] - gradient).max(initial=0))
        self.error = difference / largest if largest else difference

    @overload
    def __getitem__(self, index: int) -> Factor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Factor]: ...
    def __getitem__(self, index: int | slice) -> Factor | Sequence[Factor]:
        return self._factors[index]

    def __len__(self) -> int:
        return len(self._factors)

    def __str__(self) -> str:
        rows, columns = self.product.shape
        end = f"product: {rows} x {columns}, relative error {self.error:.1e} against the gradient"
        return "\n".join([*map(str, self._factors), end])

    __repr__ = __str__

    def to_latex(self) -> str:
        """Return the symbols of the factors as a LaTeX product, the right-hand side of eq. (51)."""
        return r" \, ".join(factor.latex for factor in self._factors)


def jacobian_factors(
    network: Sequential, x: object, y: object, loss: Loss, layer: int = 1
) -> Factors:
    """Return the factors of the chain rule from the loss to W^(layer), eq. (51).

    J_L(W^(l)) = J_phi(a^(L)) J_a^(L)(z^(L)) ... J_z^(l)(W^(l)). The product is compared with the
    gradient that the fused training kernels compute, eq. (52).

    Parameters
    ----------
    network : Sequential
        The network. Dropout is inactive.
    x, y : array_like
        One instance and its target, as in `trace`.
    loss : Loss
        The loss.
    layer : int
        l of W^(l), counted from 1. W^(1) has the longest chain.

    Returns
    -------
    Factors
        The factors, their product and the gradient.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``y`` do not fit the network or the loss, or no layer ``layer`` exists.
    ArithmeticError
        If the product differs from the gradient by more than 1e-10 of the gradient's largest
        element, or the gradient is not finite.
    MemoryError
        If a factor takes more than 1 GiB.

    Examples
    --------
    >>> import chainrule as cr
    >>> net = cr.examples.three_unit_network()
    >>> x, y = cr.examples.three_unit_instance()
    >>> for factor in cr.calculus.jacobian_factors(net, x, y, cr.SquaredError()):
    ...     print(factor)
    J_φ(a^(2))           1 x 1, eq. (22)
    J_a^(2)(z^(2))       1 x 1, eq. (16)
    J_z^(2)(a^(1))       1 x 2, eq. (53)
    J_a^(1)(z^(1))       2 x 2, eq. (16)
    J_z^(1)(W^(1))       2 x 6, eq. (38), (39)
    """
    operation = "jacobian_factors"
    checked_network(operation, network)
    batch, single = checked_batch(operation, network, x)
    if len(batch) != 1:
        raise ValueError(f"{operation}: x must be one instance, got {len(batch)}")
    target = checked_targets(operation, network, y, loss, 1, single)
    indices = layers_with_weights(network)
    if not indices:
        raise ValueError(f"{operation}: network must have at least one layer with weights, got 0")
    layer = integer(operation, "layer", layer, 1, len(indices))
    first = indices[layer - 1]
    forward, symbols = ForwardPass(network, batch), NetworkSymbols(network)
    head = LossHead(forward, target, loss)
    factors = _loss_factors(head, symbols, loss_notation(loss).factor_equation)
    for i in range(head.depth - 1, first, -1):
        context = forward.contexts[i]
        if not reshapes_only(context.layer, False):
            matrix = input_jacobian_of(operation, context)
            upper, lower = symbols.without_reshapes[i + 1], symbols.without_reshapes[i]
            factors.append(_factor(upper, lower, notation(context.layer).jacobian, matrix))
    matrix = parameter_jacobian_of(operation, forward.contexts[first])
    weights = symbols.weights[first]
    assert weights is not None, "a layer with weights has a symbol for them"
    factors.append(_factor(symbols.values[first + 1], weights, "(38), (39)", matrix))
    copy = float64_copy(network)
    copy.loss_and_gradient(batch, target, loss)
    result = Factors(factors, gradient_matrices(copy)[layer - 1].ravel())
    if not np.isfinite(result.gradient).all():
        raise ArithmeticError(
            f"{operation}: the gradient of layer {layer} must be finite, got NaN or infinity"
        )
    if not result.error <= MAX_RELATIVE_ERROR:
        raise ArithmeticError(
            f"{operation}: the product of the factors must equal the gradient of layer {layer} "
            f"within a relative error of {MAX_RELATIVE_ERROR:g}, got {result.error:.3g}"
        )
    return result


def _loss_factors(head: LossHead, symbols: NetworkSymbols, equation: str) -> list[Factor]:
    """Return J_phi(a^(L)) and the Jacobian of the loss's own softmax, or their product."""
    value = symbols.without_reshapes[head.depth]
    if head.has_softmax and head.dy_hat is not None and np.isfinite(head.dy_hat).all():
        a = Symbol("a", value.layer)
        softmax = layer_jacobian(Softmax(), head.output[0])
        loss = _factor(Symbol("phi"), a, "(66)", head.dy_hat.reshape(1, -1))
        return [loss, _factor(a, value, notation(Softmax()).jacobian, softmax)]
    # If the probability of the true class is 0 in float64, the two factors are 1/0 and 0. Their
    # product is finite, so they are one factor.
    return [_factor(Symbol("phi"), value, equation, head.doutput.reshape(1, -1))]


def _factor(upper: Symbol, lower: Symbol, equation: str, matrix: Array) -> Factor:
    return Factor(
        f"J_{upper.text}({lower.text})",
        rf"J_{{{upper.latex}}}\!\left({lower.latex}\right)",
        equation,
        matrix,
        upper.layer,
    )


def loss_jacobian(network: Sequential, x: object, y: object, loss: Loss) -> Array:
    """Return J_L(W) = ∂L/∂W, a row vector, for the mean loss of a batch, eq. (48)-(50).

    Its transpose is the gradient, eq. (49), without the L2 term.

    Parameters
    ----------
    network : Sequential
        The network with P parameters. Dropout is inactive.
    x, y : array_like
        One instance or a batch, and the targets, as in `trace`.
    loss : Loss
        The loss.

    Returns
    -------
    ndarray of float64, (1, P)
        The derivatives, in the order of eq. (43).

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``y`` do not fit the network or the loss.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> net = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    >>> net.parameter_vector = np.array([1.0, 2.0])
    >>> cr.calculus.loss_jacobian(net, [3.0], [5.0], cr.SquaredError()).tolist()
    [[4.0, 12.0]]
    """
    operation = "loss_jacobian"
    checked_network(operation, network)
    batch, single = checked_batch(operation, network, x)
    target = checked_targets(operation, network, y, loss, len(batch), single)
    copy = float64_copy(network)
    copy.loss_and_gradient(batch, target, loss)
    return copy.gradient_vector[None]
