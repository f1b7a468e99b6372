"""Symbols, formulas and entries: the tutorial's name of each quantity of a network.

A `Symbol` is a name such as z^(l), a^(l), delta^(l) or W^(l). A `Formula` is the right-hand side of
an equation. An `Entry` is one quantity of a trace with its symbol, formula and value. Each is shown
as text, as LaTeX and as HTML.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from .._types import Array
from ..nn.layers import (
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
from ..nn.network import Sequential
from ..nn.user_defined import reshapes_only

# If the largest array of a network has at most this many elements, each element gets its own row.
MAX_ELEMENTS = 12

_TEXT_LETTERS = {"delta": "δ", "l": "ℓ", "y_hat": "ŷ", "a~": "ã", "phi": "φ"}
_LATEX_LETTERS = {
    "delta": r"\delta",
    "l": r"\ell",
    "y_hat": r"\hat{y}",
    "a~": r"\tilde{a}",
    "phi": r"\varphi",
}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁽⁾", "0123456789()")
_SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉"


# Symbols


@dataclass(frozen=True)
class Symbol:
    """The name of a quantity, in every form that is shown.

    Parameters
    ----------
    letter : str
        The ASCII letter: "z", "a", "delta", "W", "y_hat" or "l".
    layer : int, optional
        l of the tutorial. None if the quantity belongs to no layer.
    primes : int
        Distinguishes quantities of one layer that have the same letter.
    index : tuple of int
        The element, counted from 1. () for the whole array.
    derivative : str
        "l" for the gradient of the loss with respect to the quantity, "L" for that of the mean
        loss.
    """

    letter: str
    layer: int | None = None
    primes: int = 0
    index: tuple[int, ...] = ()
    derivative: str = ""

    def at(self, *index: int) -> Symbol:
        """Return the symbol of one element. Elements of a matrix have a lowercase letter."""
        return replace(self, letter="w" if self.letter == "W" else self.letter, index=index)

    def gradient(self) -> Symbol:
        """Return the symbol of the gradient of the loss with respect to this quantity."""
        if self.letter == "z":
            return replace(self, letter="delta")
        return replace(self, derivative="l")

    def _subscript(self) -> str:
        digits = [str(i) for i in self.index]
        joined = self.letter == "w" and all(len(d) == 1 for d in digits)
        return ("" if joined else ",").join(digits)

    def _superscript(self) -> str:
        return "" if self.layer is None else f"({self.layer})"

    def _name(self, letter: str) -> str:
        text = letter + "'" * self.primes
        text += f"_{self._subscript()}" if self.index else ""
        return text + (f"^{self._superscript()}" if self.layer is not None else "")

    def _prefix(self, sign: str, numerator: str) -> str:
        return f"{sign}{numerator}/{sign}" if self.derivative else ""

    @property
    def key(self) -> str:
        """The symbol in ASCII, such as "dl/dw_10^(2)"."""
        return self._prefix("d", self.derivative) + self._name(self.letter)

    @property
    def text(self) -> str:
        """The symbol in Unicode, such as "∂ℓ/∂w_10^(2)"."""
        letter = _TEXT_LETTERS.get(self.letter, self.letter)
        numerator = _TEXT_LETTERS.get(self.derivative, self.derivative)
        return self._prefix("∂", numerator) + self._name(letter)

    @property
    def latex(self) -> str:
        r"""The symbol in LaTeX, such as "\frac{\partial \ell}{\partial w_{10}^{(2)}}"."""
        inner = _LATEX_LETTERS.get(self.letter, self.letter)
        inner += f"_{{{self._subscript()}}}" if self.index else ""
        # TeX treats a prime as a superscript. It merges with a "^" only if that follows directly.
        inner += "'" * self.primes
        inner += f"^{{{self._superscript()}}}" if self.layer is not None else ""
        if not self.derivative:
            return inner
        numerator = _LATEX_LETTERS.get(self.derivative, self.derivative)
        return rf"\frac{{\partial {numerator}}}{{\partial {inner}}}"

    @property
    def html(self) -> str:
        """The symbol in HTML, with <sub> and <sup>."""
        name = f"<i>{_TEXT_LETTERS.get(self.letter, self.letter)}</i>" + "′" * self.primes
        name += f"<sub>{self._subscript()}</sub>" if self.index else ""
        name += f"<sup>{self._superscript()}</sup>" if self.layer is not None else ""
        numerator = f"<i>{_TEXT_LETTERS.get(self.derivative, self.derivative)}</i>"
        return self._prefix("∂", numerator) + name


def ascii_key(name: str) -> str:
    """Return the ASCII key of a symbol in any spelling: with Unicode signs, spaces or braces."""
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
    for ascii_letter, sign in _TEXT_LETTERS.items():
        text = text.replace(sign, ascii_letter)
    text = text.replace("∂", "d").replace("′", "'").replace("dl/dz", "delta")
    return {"loss": "l", "yhat": "y_hat"}.get(text, text)


def split_index(key: str) -> tuple[str, tuple[int, ...]]:
    """Return the key of the array and the index of an element's key.

    For example "w_10^(2)" gives "W^(2)" and (1, 0).
    """
    found = re.fullmatch(r"(.*?)_([\d,]+)((?:\^\(\d+\))?)", key)
    if found is None:
        return key, ()
    name, digits, layer = found.groups()
    if name.endswith("w"):
        name = f"{name[:-1]}W"
        digits = digits if "," in digits else ",".join(digits)
    return name + layer, tuple(int(part) for part in digits.split(",") if part)


@dataclass(frozen=True)
class Notation:
    """The letter of a layer's output, and the equations that the layer computes.

    Attributes
    ----------
    letter : str
        The letter of the output.
    forward : str
        The equation of the output. "" if the tutorial has no equation.
    jacobian : str
        The equations of the Jacobian.
    backward : str
        The equation of the backward pass.
    """

    letter: str
    forward: str
    jacobian: str
    backward: str


_NOTATIONS: dict[type[Layer], Notation] = {
    Linear: Notation("z", "(32)", "(53)", "(37)"),
    Conv2d: Notation("z", "(60)", "(60)", "(60)"),
    ReLU: Notation("a", "(33)", "(16)", "(37)"),
    LeakyReLU: Notation("a", "(33)", "(16)", "(37)"),
    **dict.fromkeys((Sigmoid, Tanh, GELU), Notation("a", "(33)", "", "(37)")),
    Softmax: Notation("a", "(55)", "(56), (57)", "(56), (57)"),
    MaxPool2d: Notation("p", "(63)", "(63)", "(63)"),
    Dropout: Notation("a~", "", "", ""),
    Flatten: Notation("v", "", "", ""),
}


def notation(layer: Layer) -> Notation:
    """Return the notation of a layer. A user-defined layer has the letter u."""
    return _NOTATIONS.get(type(layer), Notation("u", "", "", ""))


class NetworkSymbols:
    """The symbols of the values and weights of a network.

    Attributes
    ----------
    values : list of Symbol
        The symbols of the input, then of each layer's output.
    without_reshapes : list of Symbol
        The same, but a layer that only reshapes keeps the symbol of its input.
    weights : list of Symbol or None
        The symbol of each layer's weight matrix. None for a layer without parameters.
    """

    def __init__(self, network: Sequential) -> None:
        self.values = [Symbol("a", 0)]
        self.without_reshapes = [*self.values]
        self.weights: list[Symbol | None] = []
        number = 0
        for i, layer in enumerate(network.layers):
            has_weights = bool(network.layer_parameters(i))
            number += has_weights
            self.weights.append(Symbol("W", number) if has_weights else None)
            symbol = Symbol("z" if has_weights else notation(layer).letter, number)
            while symbol in self.values:
                symbol = replace(symbol, primes=symbol.primes + 1)
            self.values.append(symbol)
            reshapes = reshapes_only(layer, False)
            self.without_reshapes.append(self.without_reshapes[-1] if reshapes else symbol)


# Formulas

_LATEX_SIGNS = {
    "⊙": r" \odot ",
    "·": r" \cdot ",
    "∗": r" \ast ",
    "−": "-",
    "‖": r"\|",
    "²": "^2",
    "ᵀ": r"^\top",
    "Σ": r"\sum ",
    "σ": r"\sigma ",
    "{": r"\{",
    "}": r"\}",
    "×": r" \times ",
    "Φ": r"\Phi ",
    "′": "'",
}
_LATEX_FUNCTIONS = {name: rf"\{name}" for name in ("max", "min", "log", "exp", "tanh")}
# Consecutive words with the spaces around them. LaTeX drops these spaces outside \text.
_WORDS = re.compile(r"( ?[^\W\d_ᵀ]{2,}(?:,? [^\W\d_ᵀ]{2,})* ?)")


def _latex(text: str) -> str:
    out = []
    for i, piece in enumerate(_WORDS.split(text)):
        if i % 2 and piece.strip() in _LATEX_FUNCTIONS:
            out.append(_LATEX_FUNCTIONS[piece.strip()] + " ")
        elif i % 2:
            out.append(rf"\text{{{piece}}}")
        else:
            out.append("".join(_LATEX_SIGNS.get(sign, sign) for sign in piece))
    return "".join(out)


@dataclass(frozen=True)
class Formula:
    """The right-hand side of an equation: symbols with text between them.

    Parameters
    ----------
    parts : tuple of Symbol or str
        The parts, in order.
    """

    parts: tuple[Symbol | str, ...] = ()

    @property
    def text(self) -> str:
        """The formula in Unicode."""
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    @property
    def latex(self) -> str:
        """The formula in LaTeX."""
        out = ""
        for part, after in zip(self.parts, (*self.parts[1:], ""), strict=True):
            if isinstance(part, str):
                out += _latex(part)
            else:
                # TeX requires braces around a symbol that gets a second superscript.
                superscript = isinstance(after, str) and after[:1] in ("ᵀ", "²")
                out += f"{{{part.latex}}}" if superscript else part.latex
        return out

    @property
    def html(self) -> str:
        """The formula in HTML."""
        return "".join(
            html.escape(part) if isinstance(part, str) else part.html for part in self.parts
        )


def formula(*parts: Symbol | str) -> Formula:
    """Return the parts as a formula."""
    return Formula(parts)


# Entries


@dataclass(frozen=True, eq=False)
class Entry:
    """One quantity of a `Trace`.

    Attributes
    ----------
    symbol : str
        The symbol, such as "∂ℓ/∂W^(2)".
    key : str
        The symbol in ASCII, such as "dl/dW^(2)".
    latex : str
        The symbol in LaTeX.
    equation : str
        The equation, such as "(39)". "" if the tutorial has no equation.
    layer : int or None
        l of the tutorial. None if the quantity belongs to no layer.
    value : ndarray of float64
        The value. For a batch, axis 0 runs over instances, except for weights and the mean loss.
    step : str
        The part of the run, such as "Step 3: the weights of layer 2".
    formula : Formula
        The computation of the value, with ``.text``, ``.latex`` and ``.html``.
    name : Symbol
        The symbol as an object.
    aliases : tuple of Symbol
        Other symbols of the same quantity.
    details : dict of tuple of int to Formula
        The formulas of single elements, if these are short.

    Examples
    --------
    >>> import chainrule as cr
    >>> net = cr.examples.three_unit_network()
    >>> x, y = cr.examples.three_unit_instance()
    >>> trace = cr.calculus.trace(net, x, y, cr.SquaredError())
    >>> entry = trace.entry("z^(2)")
    >>> entry.symbol, entry.equation, entry.formula.text
    ('z^(2)', '(18)', 'W^(2) [1; a^(1)]')
    >>> for symbol, value, formula in entry.elements():
    ...     print(symbol.text, "=", formula.text, "=", round(value, 12))
    z_1^(2) = w_10^(2) + w_11^(2) a_1^(1) + w_12^(2) a_2^(1) = 0.56
    """

    name: Symbol
    equation: str
    value: Array
    step: str
    formula: Formula
    aliases: tuple[Symbol, ...] = ()
    details: dict[tuple[int, ...], Formula] = field(default_factory=dict)

    @property
    def symbol(self) -> str:
        """The symbol in Unicode."""
        return self.name.text

    @property
    def key(self) -> str:
        """The symbol in ASCII."""
        return self.name.key

    @property
    def latex(self) -> str:
        """The symbol in LaTeX."""
        return self.name.latex

    @property
    def layer(self) -> int | None:
        """l of the tutorial, or None."""
        return self.name.layer

    def _index(self, position: tuple[int, ...]) -> tuple[int, ...]:
        # The tutorial counts neurons, pixels and inputs from 1. Column 0 of a weight matrix holds
        # the bias, so its column index does not change.
        weights = self.name.letter == "W"
        return tuple(i + 1 - (weights and axis == 1) for axis, i in enumerate(position))

    def position(self, index: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return the position in ``value`` of a tutorial index, or None if it is out of range."""
        weights = self.name.letter == "W"
        position = tuple(i - 1 + (weights and axis == 1) for axis, i in enumerate(index))
        inside = len(position) == self.value.ndim and all(
            0 <= i < size for i, size in zip(position, self.value.shape, strict=True)
        )
        return position if inside else None

    def element(self, name: Symbol, position: tuple[int, ...]) -> Symbol:
        """Return the symbol of one element, given this entry's name or one of its aliases."""
        scalar = name.layer is None and self.value.size == 1
        return name if scalar else name.at(*self._index(position))

    def elements(self) -> Iterator[tuple[Symbol, float, Formula]]:
        """Yield the symbol, such as w_10^(2), the value and the formula of each element."""
        for position in np.ndindex(self.value.shape):
            right = self.details.get(self._index(position), self.formula)
            yield self.element(self.name, position), float(self.value[position]), right
