"""The formulas and equations of the losses, as `trace` shows them."""

from __future__ import annotations

from dataclasses import dataclass

from ..nn.losses import BinaryCrossEntropy, CrossEntropy, Huber, Loss, SquaredError
from .symbols import Formula, Symbol, formula

Y = Symbol("y")
Y_HAT = Symbol("y_hat")


@dataclass(frozen=True)
class LossNotation:
    """The formulas of a loss. An equation is "" if the tutorial has none.

    Attributes
    ----------
    link : str
        The function from the network's output to ŷ that the loss contains, or "".
    link_equation : str
    loss, loss_equation : Formula and str
        The loss of one instance.
    top, top_equation : Formula and str
        ∂ℓ/∂ŷ.
    through, through_equation : Formula and str
        The gradient with respect to the input of the link.
    factor_equation : str
        The equation of the gradient with respect to the network's output.
    """

    link: str
    link_equation: str
    loss: Formula
    loss_equation: str
    top: Formula
    top_equation: str
    through: Formula
    through_equation: str
    factor_equation: str


def loss_notation(loss: Loss) -> LossNotation:
    """Return the notation of a loss. A user-defined loss is shown by its name."""
    difference = formula(Y_HAT, " − ", Y)
    if isinstance(loss, CrossEntropy):
        of_all = formula("−Σ ", Y, " log ", Y_HAT)
        top = formula("−", Y, " / ", Y_HAT)
        return LossNotation(
            "softmax", "(55)", of_all, "(66)", top, "(66)", difference, "(56), (57)", "(67)"
        )
    if isinstance(loss, BinaryCrossEntropy):
        of_all = formula("−Σ [", Y, " log ", Y_HAT, " + (1 − ", Y, ") log(1 − ", Y_HAT, ")]")
        top = formula("−", Y, " / ", Y_HAT, " + (1 − ", Y, ") / (1 − ", Y_HAT, ")")
        return LossNotation("σ", "", of_all, "(66)", top, "(66)", difference, "", "(66)")
    if type(loss) is SquaredError:
        of_all, top = formula("‖", Y_HAT, " − ", Y, "‖²"), formula("2 (", Y_HAT, " − ", Y, ")")
        return LossNotation("", "", of_all, "(35)", top, "(22)", formula(), "", "(22)")
    name = type(loss).__name__
    of_all, top = formula(name, "(", Y_HAT, ", ", Y, ")"), formula("derivative of ", name)
    if type(loss) is Huber:
        limit = f"{loss.delta:g}"
        top = formula(f"max(−{limit}, min(", Y_HAT, " − ", Y, f", {limit}))")
    return LossNotation("", "", of_all, "", top, "", formula(), "", "")
