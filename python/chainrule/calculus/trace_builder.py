"""A run forward and back, told in the tutorial's steps: what each quantity is called and cites."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from .._types import Array
from .._validation import both
from ..nn.layers import (
    Dropout,
    Flatten,
    Layer,
    LayerContext,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Softmax,
)
from ..nn.losses import CrossEntropy, Loss, SquaredError
from ..nn.network import Sequential
from ._passes import Ending, Walk, run_back
from .entries import ELEMENTS, Entry
from .formulas import Formula, formula
from .matrices import stacked
from .symbols import Names, Symbol, cited

Details: TypeAlias = dict[tuple[int, ...], Formula]

Y = Symbol("y")
Y_HAT = Symbol("y_hat")
LOSS = Symbol("l")
MEAN = Symbol("L")
X = Symbol("x")

# Longer sums are written with matrices.
SHORT = 3

# Equations (14) to (27) are those of one network, and of the same quantities as (28) to (39).
THREE_UNIT = {
    "x": "(14)",
    "W^(1)": "(14)",
    "W^(2)": "(14)",
    "y": "(14)",
    "z^(1)": "(17)",
    "a^(1)": "(17)",
    "z^(2)": "(18)",
    "y_hat": "(19)",
    "l": "(20)",
    "dl/dy_hat": "(22)",
    "delta^(2)": "(23)",
    "dl/dW^(2)": "(24)",
    "dl/da^(1)": "(25)",
    "delta^(1)": "(26)",
    "dl/dW^(1)": "(27)",
}


def _is_three_unit(network: Sequential, loss: Loss) -> bool:
    three = (Linear(2), ReLU(), Linear(1), ReLU())
    return network.layers == three and network.input_shape == (2,) and loss == SquaredError()


def _each(size: int, make: Callable[[int], Formula]) -> Details:
    """Formulas of the elements of a short vector."""
    return {(k,): make(k) for k in range(1, size + 1)} if size <= ELEMENTS else {}


def _sum(count: int, term: Callable[[int], tuple[Symbol | str, ...]]) -> list[Symbol | str]:
    parts: list[Symbol | str] = []
    for k in range(1, count + 1):
        parts += [*([" + "] if k > 1 else []), *term(k)]
    return parts


def _forward_formula(layer: Layer, before: Symbol, dropout: bool) -> Formula:
    """What a layer without weights makes of its input."""
    match layer:
        case ReLU():
            return formula("max(0, ", before, ")")
        case LeakyReLU():
            return formula(before, " · (1 if ", before, f" > 0 else {layer.slope:g})")
        case Softmax():
            return formula("softmax(", before, ")")
        case MaxPool2d():
            rows, columns = both(layer.window)
            return formula(f"max over {rows}×{columns} of ", before)
        case Flatten():
            return formula("vec(", before, ")")
        case Dropout():
            scale = f" / {1 - layer.rate:g} where kept, else 0"
            return formula(before, scale if dropout else "")
    return formula(f"{type(layer).__name__}(", before, ")")


def _backward_formula(layer: Layer, above: Symbol, below: Symbol, dropout: bool) -> Formula:
    """What a layer without weights makes of the gradient by its output."""
    match layer:
        case ReLU():
            times = " · " if below.index else " ⊙ "
            return formula(above, times, "1{", below, " > 0}")
        case LeakyReLU():
            return formula(above, " · (1 if ", below, f" > 0 else {layer.slope:g})")
        case Softmax():
            return formula("(diag(a) − a aᵀ) ", above)
        case MaxPool2d():
            return formula(above, " where the maximum stood, else 0")
        case Dropout() if dropout:
            return formula(above, f" / {1 - layer.rate:g} where kept, else 0")
    return formula(above)


_THROUGH: dict[type[Layer], str] = {
    ReLU: "the ReLU",
    LeakyReLU: "the leaky ReLU",
    Softmax: "the softmax",
    MaxPool2d: "the max-pooling",
    Dropout: "the dropout",
    Flatten: "the flattening",
}


# What the titles of steps call a value: they are words, not formulas.
_KINDS = {
    "z": "pre-activations",
    "a": "activations",
    "a~": "activations after dropout",
    "p": "pooled activations",
    "v": "flattened activations",
}


def _kind(symbol: Symbol) -> str:
    return _KINDS.get(symbol.letter, "values")


class Steps:
    """Names what a walk computes, in the order of the tutorial's steps.

    Attributes
    ----------
    entries : list of Entry
    """

    def __init__(self, walk: Walk, target: Array, loss: Loss, single: bool) -> None:
        self.walk, self.target, self.loss, self.single = walk, target, loss, single
        self.ending = Ending(walk, target, loss)
        self.dropout = walk.offset is not None
        self.three_unit = single and _is_three_unit(walk.network, loss)
        names = Names(walk.network)
        self.weights, self.symbols = names.weights, names.values
        # ŷ is another name of the last activation, and else a quantity of its own.
        kinds = Softmax if self.ending.softmax else ReLU | LeakyReLU | Softmax
        self.named = isinstance(walk.network.layers[-1], kinds)
        self.last = self.symbols[-1]
        if self.named:
            self.symbols = [*self.symbols[:-1], Y_HAT]
        if self.three_unit:
            self.symbols = [X, *self.symbols[1:]]
        self.entries: list[Entry] = []
        self.count = 0
        self._given()
        self._forward()
        self._back()

    def _add(
        self,
        name: Symbol,
        value: Array,
        equation: str,
        step: str,
        right: Formula,
        *aliases: Symbol,
        details: Details | None = None,
        batch: bool = True,
    ) -> None:
        if batch and self.single:
            value = np.asarray(value[0])
        if self.three_unit:
            equation = THREE_UNIT[name.key]
        self.entries.append(Entry(name, equation, value, step, right, aliases, details or {}))

    def _given(self) -> None:
        name, alias = (X, Symbol("a", 0)) if self.three_unit else (Symbol("a", 0), X)
        right = formula() if self.three_unit else formula(X)
        self._add(name, self.walk.values[0], "(29)", "Given", right, alias)
        for weights, parameters in zip(self.weights, self.walk.parameters, strict=True):
            if weights is not None:
                matrix = stacked(parameters)
                self._add(weights, matrix, "(45)", "Given", formula(), batch=False)
        if isinstance(self.loss, CrossEntropy):
            right = formula("the correct class, counted from 0")
            self._add(Y, self.target.astype(np.float64), "(64)", "Given", right)
        else:
            self._add(Y, self.target.astype(np.float64), "(35)", "Given", formula())

    # Forward

    def _forward(self) -> None:
        step = "Forward"
        for i, slot in enumerate(self.walk.slots):
            name = self.symbols[i + 1]
            right, details = self._weighted(i, slot) if self.weights[i] else self._plain(i, slot)
            equation, aliases = cited(slot.layer).forward, list[Symbol]()
            if name == Y_HAT:
                equation, aliases = f"{equation}, (34)", [self.last]
            self._add(name, slot.y, equation, step, right, *aliases, details=details)
        if not self.named:
            before = self.symbols[self.ending.last]
            if self.ending.softmax:
                right, equation = formula("softmax(", before, ")"), "(55)"
            else:
                right, equation = formula(before), "(34)"
            self._add(Y_HAT, self.ending.y_hat, equation, step, right)
        if not isinstance(self.loss, CrossEntropy):
            right, equation = formula("‖", Y_HAT, " − ", Y, "‖²"), "(35)"
        elif self.single:
            correct = Y_HAT.at(int(self.target[0]) + 1)
            right, equation = formula("−log ", correct), "(67)"
        else:
            right, equation = formula("−Σ ", Y, " log ", Y_HAT), "(66)"
        self._add(LOSS, self.ending.losses, equation, step, right)
        if not self.single:
            mean = np.array(self.ending.losses.mean())
            self._add(MEAN, mean, "(40)", step, formula("mean of ", LOSS), batch=False)

    def _plain(self, i: int, slot: LayerContext) -> tuple[Formula, Details]:
        before = self.symbols[i]
        details: Details = {}
        if slot.y.ndim == 2 and isinstance(slot.layer, ReLU | LeakyReLU):
            details = _each(
                slot.y.shape[1], lambda k: _forward_formula(slot.layer, before.at(k), self.dropout)
            )
        return _forward_formula(slot.layer, before, self.dropout), details

    def _weighted(self, i: int, slot: LayerContext) -> tuple[Formula, Details]:
        before, weights = self.symbols[i], self.weights[i]
        assert weights is not None, "asked for layers with weights only"
        if not isinstance(slot.layer, Linear):
            return formula(weights, " ∗ [1; ", before, "]"), {}
        inputs, details = slot.x.shape[1], {}
        if inputs <= SHORT:
            details = _each(
                slot.y.shape[1],
                lambda k: formula(
                    weights.at(k, 0),
                    " + ",
                    *_sum(inputs, lambda j: (weights.at(k, j), " ", before.at(j))),
                ),
            )
        return formula(weights, " [1; ", before, "]"), details

    # Back

    def _step(self, title: str) -> str:
        self.count += 1
        return f"Step {self.count}: {title}"

    def _back(self) -> None:
        ending, dy = self.ending, self.ending.dvalue
        top = self.symbols[ending.last]
        if ending.dy_hat is not None:
            if ending.softmax:
                right, equation = formula("−", Y, " / ", Y_HAT), "(66)"
            else:
                right, equation = formula("2 (", Y_HAT, " − ", Y, ")"), "(22)"
            step, aliases = self._step("the top derivative"), [self.last.by()] * self.named
            self._add(Y_HAT.by(), ending.dy_hat, equation, step, right, *aliases)
        if top != Y_HAT and ending.softmax:
            step, right = self._step("through the softmax"), formula(Y_HAT, " − ", Y)
            self._add(top.by(), dy, "(56), (57)", step, right)
        elif top != Y_HAT:
            step = self._step(f"to the {_kind(top)} of layer {top.layer}")
            self._add(top.by(), dy, "(36)", step, formula(Y_HAT.by()))
        with_weights = [i for i, weights in enumerate(self.weights) if weights is not None]
        for i in range(ending.last - 1, min(with_weights, default=ending.last) - 1, -1):
            slot = self.walk.slots[i]
            dx, gradients = run_back(slot, dy)
            if self.weights[i] is None:
                self._through(i, slot, dx)
            else:
                self._by_weights(i, slot, stacked(gradients) / len(dy))
                if i > with_weights[0]:
                    self._to_input(i, slot, dx)
            dy = dx

    def _through(self, i: int, slot: LayerContext, dx: Array) -> None:
        above, below = self.symbols[i + 1].by(), self.symbols[i]
        title = _THROUGH.get(type(slot.layer), type(slot.layer).__name__)
        equation = cited(slot.layer).back
        if equation == "(37)" and self.symbols[i + 1] == Y_HAT:
            equation = "(36)"
        details: Details = {}
        if slot.y.ndim == 2 and isinstance(slot.layer, ReLU | LeakyReLU):
            lone = above.layer is None and slot.y.shape[1] == 1
            details = _each(
                slot.y.shape[1],
                lambda k: _backward_formula(
                    slot.layer, above if lone else above.at(k), below.at(k), self.dropout
                ),
            )
        right = _backward_formula(slot.layer, above, below, self.dropout)
        step = self._step(f"through {title} of layer {below.layer}")
        self._add(below.by(), dx, equation, step, right, details=details)

    def _by_weights(self, i: int, slot: LayerContext, matrix: Array) -> None:
        above, below, weights = self.symbols[i + 1].by(), self.symbols[i], self.weights[i]
        assert weights is not None, "asked for layers with weights only"
        details: Details = {}
        parts: list[Symbol | str] = [above, " ∗ [1; ", below, "]"]
        if isinstance(slot.layer, Linear):
            parts = [above, " [1; ", below, "]ᵀ"]
            if self.single and matrix.size <= ELEMENTS:
                for k, j in np.ndindex(matrix.shape):
                    factor: list[Symbol | str] = [" ", below.at(j)] if j else []
                    details[(k + 1, j)] = formula(above.at(k + 1), *factor)
        name, equation = weights.by(), "(38), (39)"
        if not self.single:
            name, equation = Symbol("W", weights.layer, derivative="L"), "(41), (42)"
            parts = ["mean of ", *parts]
        step, alias = (
            self._step(f"the weights of layer {weights.layer}"),
            Symbol("G", weights.layer),
        )
        right = formula(*parts)
        self._add(name, matrix, equation, step, right, alias, details=details, batch=False)

    def _to_input(self, i: int, slot: LayerContext, dx: Array) -> None:
        above, below, weights = self.symbols[i + 1].by(), self.symbols[i], self.weights[i]
        assert weights is not None, "asked for layers with weights only"
        details: Details = {}
        right, equation = formula(weights, " ∗ᵀ ", above), "(60)"
        if isinstance(slot.layer, Linear):
            right, equation = formula(weights, "ᵀ ", above), "(37)"
            neurons = slot.y.shape[1]
            if neurons <= SHORT:
                details = _each(
                    slot.x.shape[1],
                    lambda j: formula(
                        *_sum(neurons, lambda k: (weights.at(k, j), " ", above.at(k)))
                    ),
                )
        step = self._step(f"to the {_kind(below)} of layer {below.layer}")
        self._add(below.by(), dx, equation, step, right, details=details)
