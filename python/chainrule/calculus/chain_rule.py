"""The chain rule as a product of Jacobians, and the row that it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from .._types import Array
from .._validation import integer
from ..nn.layers import Softmax
from ..nn.losses import Loss
from ..nn.network import Sequential
from ._passes import Ending, Walk, checked_network, instances, targets, twin
from .jacobians import by_input, by_parameters, layer_jacobian
from .matrices import gradient_matrices, layers_with_weights
from .symbols import Names, Symbol, cited

# The factors' product differs from the kernels' gradient by rounding alone.
ACCURACY = 1e-10


@dataclass(frozen=True, eq=False)
class Factor:
    """One factor of eq. (51).

    Attributes
    ----------
    name : str, as "J_a^(1)(z^(1))"
    latex : str
    equation : str, the equations of its elements
    matrix : ndarray float64
    layer : int, l of the tutorial, of what is differentiated; None for the loss
    """

    name: str
    latex: str
    equation: str
    matrix: Array
    layer: int | None

    def __str__(self) -> str:
        rows, columns = self.matrix.shape
        return f"{self.name:20} {rows} x {columns}, eq. {self.equation}"


class Factors(Sequence[Factor]):
    """What `jacobian_factors` returns: a list of factors, whose product is ``product``.

    Attributes
    ----------
    product : ndarray (1, p), the factors multiplied from the left
    gradient : ndarray (p,), what the training kernels' backward pass gives; eq. (52)
    error : float, their largest difference, relative to the largest element of the gradient
    """

    def __init__(self, factors: Sequence[Factor], gradient: Array) -> None:
        self._factors = list(factors)
        # From the left, where the loss is one row: vectors times matrices, never two matrices.
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
        end = f"product: {rows} x {columns}, off the gradient by {self.error:.1e} of its largest"
        return "\n".join([*map(str, self._factors), end])

    __repr__ = __str__

    def to_latex(self) -> str:
        """Return the product as an equation, eq. (51)."""
        return r" \, ".join(factor.latex for factor in self._factors)


def jacobian_factors(
    network: Sequential, x: object, y: object, loss: Loss, layer: int = 1
) -> Factors:
    """Return the factors of the chain rule from the loss to W^(layer); eq. (51).

    J_L(W^(l)) = J_phi(a^(L)) J_a^(L)(z^(L)) ... J_z^(l)(W^(l)). Their product is compared with the
    gradient that training computes, eq. (52), on the fused kernels.

    Parameters
    ----------
    network : Sequential; dropout is inactive
    x, y : one instance and its target, as in `trace`
    loss : Loss
    layer : int, l of W^(l), from 1: the first, whose chain is the longest

    Returns
    -------
    Factors

    Raises
    ------
    ArithmeticError
        If the product is off the gradient by more than `ACCURACY` of its largest element, or the
        gradient is not finite.
    MemoryError
        If a factor would hold more than `MOST_ENTRIES` values.
    """
    operation = "jacobian_factors"
    checked_network(operation, network)
    batch, single = instances(operation, network, x)
    if len(batch) != 1:
        raise ValueError(f"{operation}: x must be one instance, got {len(batch)}")
    target = targets(operation, network, y, loss, 1, single)
    places = layers_with_weights(network)
    if not places:
        raise ValueError(f"{operation}: network must have a layer with weights, got none")
    layer = integer(operation, "layer", layer, 1, len(places))
    walk, names, first = Walk(network, batch), Names(network), places[layer - 1]
    ending = Ending(walk, target, loss)
    factors = _of_loss(ending, names)
    for i in range(ending.last - 1, first, -1):
        slot = walk.slots[i]
        if not slot.layer.reshapes_only(False):
            matrix = by_input(operation, slot)
            upper, lower = names.flat[i + 1], names.flat[i]
            factors.append(_factor(upper, lower, cited(slot.layer).jacobian, matrix))
    matrix, weights = by_parameters(operation, walk.slots[first]), names.weights[first]
    assert weights is not None, "a layer with weights has a name for them"
    factors.append(_factor(names.values[first + 1], weights, "(38), (39)", matrix))
    other = twin(network)
    other.loss_and_gradient(batch, target, loss)
    result = Factors(factors, gradient_matrices(other)[layer - 1].ravel())
    if not np.isfinite(result.gradient).all():
        raise ArithmeticError(
            f"{operation}: the gradient of layer {layer} must be finite, got NaN or infinity"
        )
    if not result.error <= ACCURACY:
        raise ArithmeticError(
            f"{operation}: the factors' product is off the gradient of layer {layer} by "
            f"{result.error:.3g} of its largest element"
        )
    return result


def _of_loss(ending: Ending, names: Names) -> list[Factor]:
    """J_phi(a^(L)), and the Jacobian of the softmax that belongs to the loss."""
    value = names.flat[ending.last]
    if ending.softmax and ending.dy_hat is not None and np.isfinite(ending.dy_hat).all():
        a = Symbol("a", value.layer)
        softmax = layer_jacobian(Softmax(), ending.value[0])
        loss = _factor(Symbol("phi"), a, "(66)", ending.dy_hat.reshape(1, -1))
        return [loss, _factor(a, value, cited(Softmax()).jacobian, softmax)]
    # Where the true class's probability is 0 in float64, 1 / 0 times it: the two are one factor.
    equation = "(67)" if ending.softmax else "(22)"
    return [_factor(Symbol("phi"), value, equation, ending.dvalue.reshape(1, -1))]


def _factor(upper: Symbol, lower: Symbol, equation: str, matrix: Array) -> Factor:
    return Factor(
        f"J_{upper.text}({lower.text})",
        rf"J_{{{upper.latex}}}\!\left({lower.latex}\right)",
        equation,
        matrix,
        upper.layer,
    )


def loss_jacobian(network: Sequential, x: object, y: object, loss: Loss) -> Array:
    """Return J_L(W) = ∂L/∂W, a row, for the mean loss over a batch; eq. (48)-(50).

    Its transpose is the gradient, eq. (49), without the L2 term.

    Parameters
    ----------
    network : Sequential; dropout is inactive
    x, y : an instance or a batch, and targets, as in `trace`
    loss : Loss

    Returns
    -------
    ndarray float64 (1, P), in the order of eq. (43)
    """
    operation = "loss_jacobian"
    checked_network(operation, network)
    batch, single = instances(operation, network, x)
    target = targets(operation, network, y, loss, len(batch), single)
    other = twin(network)
    other.loss_and_gradient(batch, target, loss)
    return other.gradient_vector[None]
