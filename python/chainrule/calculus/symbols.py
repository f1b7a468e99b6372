"""What the tutorial calls the quantities of a network: z^(l), a^(l), delta^(l), W^(l)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ..nn.layers import Conv2d, Dropout, Flatten, Layer, LeakyReLU, Linear, MaxPool2d, ReLU, Softmax
from ..nn.network import Sequential

_PLAIN = {"delta": "δ", "l": "ℓ", "y_hat": "ŷ", "a~": "ã", "phi": "φ"}
_LATEX = {
    "delta": r"\delta",
    "l": r"\ell",
    "y_hat": r"\hat{y}",
    "a~": r"\tilde{a}",
    "phi": r"\varphi",
}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁽⁾", "0123456789()")
_SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉"


@dataclass(frozen=True)
class Symbol:
    """A quantity's name, in every form that is shown.

    Parameters
    ----------
    letter : str, plain: "z", "a", "delta", "W", "y_hat", "l"
    layer : int, l of the tutorial; None: the quantity belongs to no layer
    primes : int, tells apart two quantities of one layer that share a letter
    index : tuple of int, the element, from 1; () for the whole array
    derivative : str, "l" or "L" for the gradient of the loss, or of its mean, by the quantity
    """

    letter: str
    layer: int | None = None
    primes: int = 0
    index: tuple[int, ...] = ()
    derivative: str = ""

    def at(self, *index: int) -> Symbol:
        """The symbol of one element; a matrix's are written small."""
        return replace(self, letter="w" if self.letter == "W" else self.letter, index=index)

    def by(self) -> Symbol:
        """The symbol of the loss's gradient by this."""
        if self.letter == "z":
            return replace(self, letter="delta")
        return replace(self, derivative="l")

    def _subscript(self) -> str:
        digits = [str(i) for i in self.index]
        joined = self.letter == "w" and all(len(d) == 1 for d in digits)
        return ("" if joined else ",").join(digits)

    def _superscript(self) -> str:
        return "" if self.layer is None else f"({self.layer})"

    def _plain(self, letter: str) -> str:
        text = letter + "'" * self.primes
        text += f"_{self._subscript()}" if self.index else ""
        return text + (f"^{self._superscript()}" if self.layer is not None else "")

    def _gradient(self, sign: str, top: str) -> str:
        return f"{sign}{top}/{sign}" if self.derivative else ""

    @property
    def key(self) -> str:
        """In ASCII, as "dl/dw_10^(2)"."""
        return self._gradient("d", self.derivative) + self._plain(self.letter)

    @property
    def text(self) -> str:
        """As "∂ℓ/∂w_10^(2)"."""
        letter = _PLAIN.get(self.letter, self.letter)
        return self._gradient("∂", _PLAIN.get(self.derivative, self.derivative)) + self._plain(
            letter
        )

    @property
    def latex(self) -> str:
        r"""As "\frac{\partial \ell}{\partial w_{10}^{(2)}}"."""
        inner = _LATEX.get(self.letter, self.letter)
        inner += f"_{{{self._subscript()}}}" if self.index else ""
        # Primes are superscripts to TeX, and only join one that follows at once.
        inner += "'" * self.primes
        inner += f"^{{{self._superscript()}}}" if self.layer is not None else ""
        if not self.derivative:
            return inner
        top = _LATEX.get(self.derivative, self.derivative)
        return rf"\frac{{\partial {top}}}{{\partial {inner}}}"

    @property
    def html(self) -> str:
        letter = f"<i>{_PLAIN.get(self.letter, self.letter)}</i>" + "′" * self.primes
        letter += f"<sub>{self._subscript()}</sub>" if self.index else ""
        letter += f"<sup>{self._superscript()}</sup>" if self.layer is not None else ""
        return (
            self._gradient("∂", f"<i>{_PLAIN.get(self.derivative, self.derivative)}</i>") + letter
        )


def normalised(name: str) -> str:
    """The ASCII key of a symbol however it was written: "δ²"-like signs, spaces and braces."""
    text = ""
    below = above = False
    for sign in name.replace(" ", "").replace("{", "").replace("}", ""):
        if sign in _SUBSCRIPTS:
            text += ("" if below else "_") + str(_SUBSCRIPTS.index(sign))
        elif ord(sign) in _SUPERSCRIPTS:
            text += ("" if above else "^") + sign.translate(_SUPERSCRIPTS)
        else:
            text += sign
        below, above = sign in _SUBSCRIPTS, ord(sign) in _SUPERSCRIPTS
    for plain, sign in _PLAIN.items():
        text = text.replace(sign, plain)
    text = text.replace("∂", "d").replace("′", "'").replace("dl/dz", "delta")
    return {"loss": "l", "yhat": "y_hat"}.get(text, text)


def array_and_index(key: str) -> tuple[str, tuple[int, ...]]:
    """An element's key as that of its array, and the index: "w_10^(2)" as "W^(2)" and (1, 0)."""
    found = re.fullmatch(r"(.*?)_([\d,]+)((?:\^\(\d+\))?)", key)
    if found is None:
        return key, ()
    name, digits, layer = found.groups()
    if name.endswith("w"):
        name = f"{name[:-1]}W"
        digits = digits if "," in digits else ",".join(digits)
    return name + layer, tuple(int(part) for part in digits.split(",") if part)


@dataclass(frozen=True)
class Cited:
    """What a kind of layer's output is called, and which equations it realises.

    Attributes
    ----------
    letter : str
    forward : str, the equation of its output
    jacobian : str, the equations of its output by its input
    back : str, the equation of its backward pass
    """

    letter: str
    forward: str
    jacobian: str
    back: str


_CITED: dict[type[Layer], Cited] = {
    Linear: Cited("z", "(32)", "(53)", "(37)"),
    Conv2d: Cited("z", "(60)", "(60)", "(60)"),
    ReLU: Cited("a", "(33)", "(16)", "(37)"),
    LeakyReLU: Cited("a", "(33)", "(16)", "(37)"),
    Softmax: Cited("a", "(55)", "(56), (57)", "(56), (57)"),
    MaxPool2d: Cited("p", "(63)", "(63)", "(63)"),
    Dropout: Cited("a~", "", "", ""),
    Flatten: Cited("v", "", "", ""),
}


def cited(layer: Layer) -> Cited:
    """Return how a layer is named; one of the user's own without weights is u."""
    return _CITED.get(type(layer), Cited("u", "", "", ""))


class Names:
    """The symbols of a network's values.

    Attributes
    ----------
    values : list of Symbol, of the input, then of each layer's output
    flat : list of Symbol, the same, where a layer that only reshapes gives its value no new name
    weights : list of Symbol or None, of each layer's matrix
    """

    def __init__(self, network: Sequential) -> None:
        self.values = [Symbol("a", 0)]
        self.flat = [*self.values]
        self.weights: list[Symbol | None] = []
        number = 0
        for i, layer in enumerate(network.layers):
            has_weights = bool(network.layer_parameters(i))
            number += has_weights
            self.weights.append(Symbol("W", number) if has_weights else None)
            symbol = Symbol("z" if has_weights else cited(layer).letter, number)
            while symbol in self.values:
                symbol = replace(symbol, primes=symbol.primes + 1)
            self.values.append(symbol)
            self.flat.append(self.flat[-1] if layer.reshapes_only(False) else symbol)
