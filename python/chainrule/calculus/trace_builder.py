"""Build a trace: name every quantity of a forward and a backward pass, in the tutorial's steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from .._types import Array
from .._validation import both
from ..nn.layers import (
    GELU,
    Activation,
    Dropout,
    Flatten,
    Layer,
    LayerContext,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from ..nn.losses import CrossEntropy, Loss, SquaredError
from ..nn.network import Sequential
from ..nn.user_defined import is_built_in
from ._passes import ForwardPass, LossHead, run_backward
from .loss_notation import Y_HAT, Y, loss_notation
from .matrices import stacked
from .symbols import MAX_ELEMENTS, Entry, Formula, NetworkSymbols, Symbol, formula, notation

Details: TypeAlias = dict[tuple[int, ...], Formula]

LOSS = Symbol("l")
MEAN = Symbol("L")
X = Symbol("x")

# Formulas write sums of at most this many terms out, and longer sums as matrix products.
MAX_TERMS = 3

# Equations (14)-(27) are the equations (28)-(39) of one particular network.
THREE_UNIT_EQUATIONS = {
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
    layers = (Linear(2), ReLU(), Linear(1), ReLU())
    return network.layers == layers and network.input_shape == (2,) and loss == SquaredError()


def _element_formulas(size: int, make: Callable[[int], Formula]) -> Details:
    """Return the formulas of the elements of a vector, or {} if the vector is long."""
    return {(k,): make(k) for k in range(1, size + 1)} if size <= MAX_ELEMENTS else {}


def _sum(count: int, term: Callable[[int], tuple[Symbol | str, ...]]) -> list[Symbol | str]:
    parts: list[Symbol | str] = []
    for k in range(1, count + 1):
        parts += [*([" + "] if k > 1 else []), *term(k)]
    return parts


def _forward_formula(layer: Layer, x: Symbol, dropout: bool) -> Formula:
    """Return the formula of the output of a layer without weights."""
    if not is_built_in(layer):  # a subclass may compute something else
        return formula(f"{type(layer).__name__}(", x, ")")
    match layer:
        case ReLU():
            return formula("max(0, ", x, ")")
        case LeakyReLU():
            return formula(x, " · (1 if ", x, f" > 0 else {layer.slope:g})")
        case Sigmoid():
            return formula("1 / (1 + exp(−", x, "))")
        case Tanh():
            return formula("tanh(", x, ")")
        case GELU():
            return formula(x, " · " if x.index else " ⊙ ", "Φ(", x, ")")
        case Softmax():
            return formula("softmax(", x, ")")
        case MaxPool2d():
            rows, columns = both(layer.window)
            return formula(f"max over {rows}×{columns} of ", x)
        case Flatten():
            return formula("vec(", x, ")")
        case Dropout():
            scale = f" / {1 - layer.rate:g} where kept, else 0"
            return formula(x, scale if dropout else "")
    return formula(f"{type(layer).__name__}(", x, ")")


def _backward_formula(layer: Layer, dy: Symbol, x: Symbol, dropout: bool) -> Formula:
    """Return the formula of the input gradient of a layer without weights."""
    y = replace(dy, derivative="")
    times = " · " if x.index else " ⊙ "
    match layer:
        case ReLU():
            return formula(dy, times, "1{", x, " > 0}")
        case LeakyReLU():
            return formula(dy, " · (1 if ", x, f" > 0 else {layer.slope:g})")
        case Sigmoid():
            return formula(dy, times, y, times, "(1 − ", y, ")")
        case Tanh():
            return formula(dy, times, "(1 − ", y, "²)")
        case GELU():
            return formula(dy, times, "(Φ(", x, ") + ", x, times, "Φ′(", x, "))")
        case Softmax():
            return formula("(diag(a) − a aᵀ) ", dy)
        case MaxPool2d():
            return formula(dy, " at the argmax, else 0")
        case Dropout() if dropout:
            return formula(dy, f" / {1 - layer.rate:g} where kept, else 0")
    return formula(dy)


_TITLES: dict[type[Layer], str] = {
    ReLU: "the ReLU",
    LeakyReLU: "the leaky ReLU",
    Sigmoid: "the sigmoid",
    Tanh: "the tanh",
    GELU: "the GELU",
    Softmax: "the softmax",
    MaxPool2d: "the max-pooling",
    Dropout: "the dropout",
    Flatten: "the flattening",
}


# The names of values in the titles of steps, which contain words and no formulas.
_VALUE_NAMES = {
    "z": "pre-activations",
    "a": "activations",
    "a~": "activations after dropout",
    "p": "pooled activations",
    "v": "flattened activations",
}


def _value_name(symbol: Symbol) -> str:
    return _VALUE_NAMES.get(symbol.letter, "values")


class TraceBuilder:
    """Names the values of a forward pass and of its backward pass, in the tutorial's steps.

    Parameters
    ----------
    forward : ForwardPass
        The forward pass.
    target : ndarray
        The targets of its batch.
    loss : Loss
        The loss.
    single : bool
        If True, the batch is a single instance, and values are shown without the batch axis.

    Attributes
    ----------
    entries : list of Entry
        The named values.
    """

    def __init__(self, forward: ForwardPass, target: Array, loss: Loss, single: bool) -> None:
        self.forward, self.target, self.loss, self.single = forward, target, loss, single
        self.head = LossHead(forward, target, loss)
        self.dropout = forward.offset is not None
        self.three_unit = single and _is_three_unit(forward.network, loss)
        symbols = NetworkSymbols(forward.network)
        self.weights, self.symbols = symbols.weights, symbols.values
        # ŷ is an alias of the last value if that is an activation, or the probabilities that the
        # loss reads. Otherwise ŷ is a separate quantity.
        self.y_hat_is_alias = self.head.depth < len(forward.network.layers)
        self.notation = loss_notation(loss)
        if not self.notation.link:
            last_layer = forward.network.layers[-1]
            self.y_hat_is_alias = isinstance(last_layer, Activation | Softmax)
        self.last = self.symbols[-1]
        if self.y_hat_is_alias:
            self.symbols = [*self.symbols[:-1], Y_HAT]
        if self.three_unit:
            self.symbols = [X, *self.symbols[1:]]
        self.entries: list[Entry] = []
        self.step_count = 0
        self._add_given()
        self._add_forward()
        self._add_backward()

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
            equation = THREE_UNIT_EQUATIONS[name.key]
        self.entries.append(Entry(name, equation, value, step, right, aliases, details or {}))

    def _add_given(self) -> None:
        name, alias = (X, Symbol("a", 0)) if self.three_unit else (Symbol("a", 0), X)
        right = formula() if self.three_unit else formula(X)
        self._add(name, self.forward.values[0], "(29)", "Given", right, alias)
        for weights, parameters in zip(self.weights, self.forward.parameters, strict=True):
            if weights is not None:
                matrix = stacked(parameters)
                self._add(weights, matrix, "(45)", "Given", formula(), batch=False)
        if isinstance(self.loss, CrossEntropy):
            right = formula("the correct class, counted from 0")
            self._add(Y, self.target.astype(np.float64), "(64)", "Given", right)
        else:
            equation = "(35)" if isinstance(self.loss, SquaredError) else ""
            self._add(Y, self.target.astype(np.float64), equation, "Given", formula())

    # Forward

    def _add_forward(self) -> None:
        step = "Forward"
        for i, context in enumerate(self.forward.contexts):
            name = self.symbols[i + 1]
            describe = self._with_weights if self.weights[i] else self._without_weights
            right, details = describe(i, context)
            equation, aliases = notation(context.layer).forward, list[Symbol]()
            if name == Y_HAT:
                equation, aliases = f"{equation}, (34)", [self.last]
            self._add(name, context.y, equation, step, right, *aliases, details=details)
        if not self.y_hat_is_alias:
            source = self.symbols[self.head.depth]
            right, equation = formula(source), "(34)"
            if link := self.notation.link:
                right, equation = formula(link, "(", source, ")"), self.notation.link_equation
            self._add(Y_HAT, self.head.y_hat, equation, step, right)
        right, equation = self.notation.loss, self.notation.loss_equation
        if isinstance(self.loss, CrossEntropy) and self.single:
            correct = Y_HAT.at(int(self.target[0]) + 1)
            right, equation = formula("−log ", correct), "(67)"
        self._add(LOSS, self.head.losses, equation, step, right)
        if not self.single:
            mean = np.array(self.head.losses.mean())
            self._add(MEAN, mean, "(40)", step, formula("mean of ", LOSS), batch=False)

    def _without_weights(self, i: int, context: LayerContext) -> tuple[Formula, Details]:
        x = self.symbols[i]
        details: Details = {}
        if context.y.ndim == 2 and isinstance(context.layer, Activation):
            details = _element_formulas(
                context.y.shape[1], lambda k: _forward_formula(context.layer, x.at(k), self.dropout)
            )
        return _forward_formula(context.layer, x, self.dropout), details

    def _with_weights(self, i: int, context: LayerContext) -> tuple[Formula, Details]:
        x, weights = self.symbols[i], self.weights[i]
        assert weights is not None, "the layer must have weights"
        if not isinstance(context.layer, Linear):
            return formula(weights, " ∗ [1; ", x, "]"), {}
        inputs, details = context.x.shape[1], {}
        if inputs <= MAX_TERMS:
            details = _element_formulas(
                context.y.shape[1],
                lambda k: formula(
                    weights.at(k, 0),
                    " + ",
                    *_sum(inputs, lambda j: (weights.at(k, j), " ", x.at(j))),
                ),
            )
        return formula(weights, " [1; ", x, "]"), details

    # Backward

    def _next_step(self, title: str) -> str:
        self.step_count += 1
        return f"Step {self.step_count}: {title}"

    def _add_backward(self) -> None:
        head, dy, notes = self.head, self.head.doutput, self.notation
        top = self.symbols[head.depth]
        if head.dy_hat is not None:
            step = self._next_step("the top derivative")
            aliases = [self.last.gradient()] if self.y_hat_is_alias else []
            self._add(Y_HAT.gradient(), head.dy_hat, notes.top_equation, step, notes.top, *aliases)
        if top != Y_HAT and notes.link:
            step = self._next_step(f"through the {'softmax' if head.has_softmax else 'sigmoid'}")
            dy = dy.reshape(self.forward.values[head.depth].shape)
            self._add(top.gradient(), dy, notes.through_equation, step, notes.through)
        elif top != Y_HAT:
            step = self._next_step(f"to the {_value_name(top)} of layer {top.layer}")
            self._add(top.gradient(), dy, "(36)", step, formula(Y_HAT.gradient()))
        with_weights = [i for i, weights in enumerate(self.weights) if weights is not None]
        for i in range(head.depth - 1, min(with_weights, default=head.depth) - 1, -1):
            context = self.forward.contexts[i]
            dx, gradients = run_backward(context, dy)
            if self.weights[i] is None:
                self._add_layer(i, context, dx)
            else:
                self._add_weight_gradient(i, context, stacked(gradients) / len(dy))
                if i > with_weights[0]:
                    self._add_input_gradient(i, context, dx)
            dy = dx

    def _add_layer(self, i: int, context: LayerContext, dx: Array) -> None:
        dy, x = self.symbols[i + 1].gradient(), self.symbols[i]
        title = _TITLES.get(type(context.layer), type(context.layer).__name__)
        equation = notation(context.layer).backward
        if equation == "(37)" and self.symbols[i + 1] == Y_HAT:
            equation = "(36)"
        details: Details = {}
        if context.y.ndim == 2 and isinstance(context.layer, Activation):
            scalar = dy.layer is None and context.y.shape[1] == 1
            details = _element_formulas(
                context.y.shape[1],
                lambda k: _backward_formula(
                    context.layer, dy if scalar else dy.at(k), x.at(k), self.dropout
                ),
            )
        right = _backward_formula(context.layer, dy, x, self.dropout)
        step = self._next_step(f"through {title} of layer {x.layer}")
        self._add(x.gradient(), dx, equation, step, right, details=details)

    def _add_weight_gradient(self, i: int, context: LayerContext, matrix: Array) -> None:
        dy, x, weights = self.symbols[i + 1].gradient(), self.symbols[i], self.weights[i]
        assert weights is not None, "the layer must have weights"
        details: Details = {}
        parts: list[Symbol | str] = [dy, " ∗ [1; ", x, "]"]
        if isinstance(context.layer, Linear):
            parts = [dy, " [1; ", x, "]ᵀ"]
            if self.single and matrix.size <= MAX_ELEMENTS:
                for k, j in np.ndindex(matrix.shape):
                    factor: list[Symbol | str] = [" ", x.at(j)] if j else []
                    details[(k + 1, j)] = formula(dy.at(k + 1), *factor)
        name, equation = weights.gradient(), "(38), (39)"
        if not self.single:
            name, equation = Symbol("W", weights.layer, derivative="L"), "(41), (42)"
            parts = ["mean of ", *parts]
        step = self._next_step(f"the weights of layer {weights.layer}")
        alias = Symbol("G", weights.layer)
        right = formula(*parts)
        self._add(name, matrix, equation, step, right, alias, details=details, batch=False)

    def _add_input_gradient(self, i: int, context: LayerContext, dx: Array) -> None:
        dy, x, weights = self.symbols[i + 1].gradient(), self.symbols[i], self.weights[i]
        assert weights is not None, "the layer must have weights"
        details: Details = {}
        right, equation = formula(weights, " ∗ᵀ ", dy), "(60)"
        if isinstance(context.layer, Linear):
            right, equation = formula(weights, "ᵀ ", dy), "(37)"
            neurons = context.y.shape[1]
            if neurons <= MAX_TERMS:
                details = _element_formulas(
                    context.x.shape[1],
                    lambda j: formula(*_sum(neurons, lambda k: (weights.at(k, j), " ", dy.at(k)))),
                )
        step = self._next_step(f"to the {_value_name(x)} of layer {x.layer}")
        self._add(x.gradient(), dx, equation, step, right, details=details)
