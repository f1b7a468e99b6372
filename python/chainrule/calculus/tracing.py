"""The trace: one run forward and back, every quantity under its symbol and its equation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ..layers import Dropout, Flatten, Layer, LeakyReLU, Linear, MaxPool2d, ReLU, Softmax
from ..losses import CrossEntropy, Loss, SquaredError
from ..network import Sequential
from ..slot import Array, Slot
from . import show
from ._walk import Ending, Walk, checked_network, instances, run_back, targets
from .formulas import Formula, formula
from .matrices import stacked
from .naming import Names, Symbol, cited, normalised

Y = Symbol("y")
Y_HAT = Symbol("y_hat")
LOSS = Symbol("l")
MEAN = Symbol("L")

# The equations of the three-unit network, Steps 1 to 6.
_THREE_UNIT = {
    "a^(0)": "(14)",
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


@dataclass(frozen=True, eq=False)
class Entry:
    """One quantity of a trace.

    Attributes
    ----------
    symbol : str, as "∂ℓ/∂W^(2)"
    key : str, the same in ASCII, as "dl/dW^(2)"
    latex : str
    equation : str, as "(39)"; "" where the tutorial has none
    layer : int, l of the tutorial; None for what belongs to no layer
    value : ndarray float64; of a batch, axis 0 runs over instances, except for weights
    step : str, the part of the run, as "Step 3: the weights of layer 2"
    formula : Formula, what the value was computed from: ``.text`` and ``.latex``
    """

    name: Symbol
    equation: str
    value: Array
    step: str
    formula: Formula
    aliases: tuple[str, ...] = ()
    details: dict[tuple[int, ...], Formula] = field(default_factory=dict)

    @property
    def symbol(self) -> str:
        return self.name.text

    @property
    def key(self) -> str:
        return self.name.key

    @property
    def latex(self) -> str:
        return self.name.latex

    @property
    def layer(self) -> int | None:
        return self.name.layer

    def elements(self) -> Iterator[tuple[Symbol, float, Formula]]:
        """Each number with its own symbol and formula, as w_10^(2): rows count from 1, and the
        columns of weights from 0, the bias."""
        for place in np.ndindex(self.value.shape):
            weights = self.name.letter == "W"
            index = tuple(i + 1 - (weights and axis == 1) for axis, i in enumerate(place))
            lone = self.name.layer is None and self.value.size == 1
            name = self.name if lone else self.name.at(*index)
            yield name, float(self.value[place]), self.details.get(index, self.formula)


class Trace:
    """What `trace` returns; ``print`` shows a table, a notebook HTML.

    ``trace["delta^(2)"]``, or ``trace["δ^(2)"]``, is the array of that name; ``trace["w_10^(2)"]``
    one element. Both are float64.

    Attributes
    ----------
    entries : list of Entry, in the order of the tutorial's steps
    network : Sequential
    single : bool, whether x was one instance
    """

    def __init__(self, network: Sequential, entries: list[Entry], single: bool) -> None:
        self.network, self.entries, self.single = network, entries, single
        self._places = {name: entry for entry in entries for name in (entry.key, *entry.aliases)}

    def entry(self, name: str) -> Entry:
        """Return the entry of that symbol; KeyError names the ones there are."""
        found = self._places.get(normalised(name))
        if found is None:
            known = ", ".join(entry.symbol for entry in self.entries)
            raise KeyError(f"trace has no {name!r}; it has {known}")
        return found

    def __getitem__(self, name: str) -> Array:
        if normalised(name) in self._places:
            return self.entry(name).value
        if self.single:
            for entry in self.entries:
                for symbol, value, _ in entry.elements():
                    if symbol.key == normalised(name):
                        return np.float64(value)
        return self.entry(name).value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and normalised(name) in self._places

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __str__(self) -> str:
        return show.text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return show.html(self)

    def to_latex(self) -> str:
        """Return the trace as an ``align*`` environment, each line tagged with its equation."""
        return show.latex(self)


def trace(network: Sequential, x: object, y: object, loss: Loss, training: bool = False) -> Trace:
    """Run forward and back, and return every quantity as the tutorial names it.

    Parameters
    ----------
    network : Sequential
    x : array (*input_shape) for one instance, or (N, *input_shape): real numbers, computed with in
        float64; uint8 means value / 255
    y : its target, or targets: a label for `CrossEntropy`, an array for `SquaredError`
    loss : Loss
    training : bool, whether dropout is active, with the mask that the next training pass would draw

    Returns
    -------
    Trace
        a^(0), z^(l), a^(l), y_hat, l; then dl/dy_hat, delta^(l), dl/dW^(l), dl/da^(l) from the last
        layer to the first: eq. (17)-(27) for the three-unit network, (32)-(39) for any. Errors are
        each instance's own; gradients by weights are means over the batch, eq. (41)-(42)
    """
    checked_network("trace", network)
    batch, single = instances("trace", network, x)
    target = targets("trace", network, y, loss, len(batch), single)
    walk = Walk(network, batch, network.count_pass() if training else None)
    return Trace(network, _Tracer(walk, target, loss, single).entries, single)


# Sums longer than this are written with matrices, not element by element.
SHORT = 3


def _is_three_unit(network: Sequential, loss: Loss) -> bool:
    three = (Linear(2), ReLU(), Linear(1), ReLU())
    return network.layers == three and network.input_shape == (2,) and loss == SquaredError()


class _Tracer:
    """Names what a walk has computed, in the order of the tutorial's steps."""

    def __init__(self, walk: Walk, target: Array, loss: Loss, single: bool) -> None:
        self.walk, self.target, self.loss, self.single = walk, target, loss, single
        self.network = walk.network
        names = Names(self.network)
        self.weights, self.symbols = names.weights, names.values
        self.ending = Ending(walk, target, loss)
        self.three_unit = _is_three_unit(self.network, loss)
        self.entries: list[Entry] = []
        self.steps = 0
        self.own_name = self.symbols[-1]
        # y_hat is the name of a last activation, and else a quantity of its own.
        last = self.network.layers[-1]
        activation = isinstance(
            last, Softmax if self.ending.softmax else ReLU | LeakyReLU | Softmax
        )
        if activation:
            self.symbols = [*self.symbols[:-1], Y_HAT]
        self._given()
        self._forward(activation)
        self._back()

    def _add(
        self,
        name: Symbol,
        value: Array,
        equation: str,
        step: str,
        right: Formula,
        *aliases: str,
        details: dict[tuple[int, ...], Formula] | None = None,
        batch: bool = True,
    ) -> None:
        if batch and self.single:
            value = value[0]
        if self.three_unit and self.single:
            equation = _THREE_UNIT[name.key]
        self.entries.append(Entry(name, equation, value, step, right, aliases, details or {}))

    def _given(self) -> None:
        self._add(self.symbols[0], self.walk.values[0], "(29)", "Given", formula("x"), "x")
        for name, parameters in zip(self.weights, self.walk.parameters, strict=True):
            if name is not None:
                matrix = stacked(parameters)
                self._add(name, matrix, "(45)", "Given", formula(), batch=False)
        self._add(Y, self.target.astype(np.float64), "(35)", "Given", formula())

    def _forward(self, activation: bool) -> None:
        for i, slot in enumerate(self.walk.slots):
            name, before = self.symbols[i + 1], self.symbols[i]
            aliases = [self.own_name.key] if name == Y_HAT else []
            equation = cited(slot.layer).forward
            right, details = self._right(i, slot)
            self._add(name, slot.y, equation, "Forward", right, *aliases, details=details)
        if not activation:
            before = self.symbols[self.ending.last]
            right = formula("softmax(", before, ")") if self.ending.softmax else formula(before)
            equation = "(55)" if self.ending.softmax else "(34)"
            self._add(Y_HAT, self.ending.y_hat, equation, "Forward", right)
        if isinstance(self.loss, CrossEntropy):
            right, equation = formula("−log ", Symbol("y_hat", index=(self._class(),))), "(67)"
            if not self.single:
                right = formula("−Σ ", Y, " log ", Y_HAT)
        else:
            right, equation = formula("‖", Y_HAT, " − ", Y, "‖²"), "(35)"
        self._add(LOSS, self.ending.losses, equation, "Forward", right, "loss")
        if not self.single:
            mean = np.array(self.ending.losses.mean())
            self._add(MEAN, mean, "(40)", "Forward", formula("mean of ", LOSS), batch=False)

    def _class(self) -> int:
        return int(self.target[0]) + 1

    def _right(self, i: int, slot: Slot) -> tuple[Formula, dict[tuple[int, ...], Formula]]:
        """What layer i computes, as a formula, and element by element where that is short."""
        layer, before, weights = slot.layer, self.symbols[i], self.weights[i]
        size = slot.y[0].size
        if isinstance(layer, ReLU):
            details = {(k,): formula("max(0, ", before.at(k), ")") for k in range(1, size + 1)}
            return formula("max(0, ", before, ")"), details
        if isinstance(layer, LeakyReLU):
            return formula("max(", before, f", {layer.slope:g}", before, ")"), {}
        if isinstance(layer, Softmax):
            return formula("softmax(", before, ")"), {}
        if isinstance(layer, MaxPool2d):
            return formula("max of windows of ", before), {}
        if isinstance(layer, Flatten):
            return formula("vec(", before, ")"), {}
        if isinstance(layer, Dropout):
            return formula(before, "" if self.walk.offset is None else " where kept"), {}
        if weights is None:
            return formula(f"{type(layer).__name__}(", before, ")"), {}
        if not isinstance(layer, Linear):
            return formula(weights, " ∗ [1; ", before, "]"), {}
        details = {}
        if slot.x[0].size <= SHORT:
            for k in range(1, size + 1):
                parts: list[Symbol | str] = [weights.at(k, 0)]
                for j in range(1, slot.x[0].size + 1):
                    parts += [" + ", weights.at(k, j), " ", before.at(j)]
                details[(k,)] = formula(*parts)
        return formula(weights, " [1; ", before, "]"), details

    # Back

    def _step(self, title: str) -> str:
        self.steps += 1
        return f"Step {self.steps}: {title}"

    def _back(self) -> None:
        ending, symbols = self.ending, self.symbols
        cross_entropy = ending.softmax
        if ending.dy_hat is not None:
            right = (
                formula("−", Y, " / ", Y_HAT)
                if cross_entropy
                else formula("2(", Y_HAT, " − ", Y, ")")
            )
            equation = "(66)" if cross_entropy else "(22)"
            alias = [self.own_name.by().key] if symbols[-1] == Y_HAT else []
            step = self._step("the top derivative")
            self._add(Y_HAT.by(), ending.dy_hat, equation, step, right, *alias)
        dy, top = ending.dvalue, symbols[ending.last]
        if top != Y_HAT:
            if cross_entropy:
                step, right = self._step("through the softmax"), formula(Y_HAT, " − ", Y)
                self._add(top.by(), dy, "(56), (57)", step, right)
            else:
                step = self._step(f"{Y_HAT.text} is {top.text}")
                self._add(top.by(), dy, "(36)", step, formula(Y_HAT.by()))
        first = next((i for i, name in enumerate(self.weights) if name is not None), None)
        if first is None:
            return
        for i in range(ending.last - 1, first - 1, -1):
            dy = self._layer_back(i, dy, last=i == first)

    def _layer_back(self, i: int, dy: Array, last: bool) -> Array:
        slot, above, below = self.walk.slots[i], self.symbols[i + 1].by(), self.symbols[i]
        dx, gradients = run_back(slot, dy)
        weights = self.weights[i]
        if weights is None:
            title = _THROUGH.get(type(slot.layer), type(slot.layer).__name__)
            step = self._step(f"through {title} of layer {below.layer}")
            right, details = self._right_back(slot, above, below)
            equation = cited(slot.layer).back
            if equation == "(37)" and above == Y_HAT.by():
                equation = "(36)"
            self._add(below.by(), dx, equation, step, right, details=details)
            return dx
        matrix = stacked(gradients) / len(dy)
        right = formula(above, " [1; ", below, "]ᵀ")
        if not isinstance(slot.layer, Linear):
            right = formula(above, " ∗ [1; ", below, "]")
        name = weights.by()
        equation = "(38), (39)"
        if not self.single:
            name, equation, right = (
                Symbol("W", weights.layer, derivative="L"),
                "(41), (42)",
                formula("mean of ", *right.parts),
            )
        details = {}
        for k in range(1, len(matrix) + 1):
            details[(k, 0)] = formula(above.at(k))
            for j in range(1, matrix.shape[1]):
                if isinstance(slot.layer, Linear):
                    details[(k, j)] = formula(above.at(k), " ", below.at(j))
        step = self._step(f"the weights of layer {weights.layer}")
        alias = f"G^({weights.layer})"
        self._add(name, matrix, equation, step, right, alias, details=details, batch=False)
        if last:
            return dx
        right, details = formula(weights, "ᵀ ", above), {}
        if not isinstance(slot.layer, Linear):
            right = formula(weights, " ∗ᵀ ", above)
        elif len(matrix) <= SHORT:
            for j in range(1, matrix.shape[1]):
                parts: list[Symbol | str] = []
                for k in range(1, len(matrix) + 1):
                    parts += [" + "] * (k > 1) + [weights.at(k, j), " ", above.at(k)]
                details[(j,)] = formula(*parts)
        where = f"the activations of layer {below.layer}" if below.letter == "a" else below.text
        equation = "(37)" if isinstance(slot.layer, Linear) else "(60)"
        self._add(below.by(), dx, equation, self._step(f"to {where}"), right, details=details)
        return dx

    def _right_back(
        self, slot: Slot, above: Symbol, below: Symbol
    ) -> tuple[Formula, dict[tuple[int, ...], Formula]]:
        layer = slot.layer
        if isinstance(layer, ReLU):
            details = {}
            for k in range(1, slot.y[0].size + 1):
                top = above if above.layer is None and slot.y[0].size == 1 else above.at(k)
                details[(k,)] = formula(top, " · 1{", below.at(k), " > 0}")
            return formula(above, " ⊙ 1{", below, " > 0}"), details
        if isinstance(layer, LeakyReLU):
            return formula(above, " · (1 if ", below, f" > 0 else {layer.slope:g})"), {}
        if isinstance(layer, Softmax):
            return formula("J(", below, ")ᵀ ", above), {}
        if isinstance(layer, MaxPool2d):
            return formula(above, " where the maximum stood"), {}
        if isinstance(layer, Dropout) and self.walk.offset is not None:
            return formula(above, " where kept"), {}
        return formula(above), {}


_THROUGH: dict[type[Layer], str] = {
    ReLU: "the ReLU",
    LeakyReLU: "the leaky ReLU",
    Softmax: "the softmax",
    MaxPool2d: "the max-pooling",
    Dropout: "the dropout",
    Flatten: "the flattening",
}
