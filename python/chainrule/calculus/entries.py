"""One quantity of a trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .._types import Array
from .formulas import Formula
from .symbols import Symbol

# A network whose largest array is no larger is shown element by element.
ELEMENTS = 12


@dataclass(frozen=True, eq=False)
class Entry:
    """One quantity of a trace.

    Attributes
    ----------
    symbol : str, as "∂ℓ/∂W^(2)"
    key : str, the same in ASCII, as "dl/dW^(2)"
    latex : str, the same in LaTeX
    equation : str, as "(39)"; "" where the tutorial has none
    layer : int, l of the tutorial; None for what belongs to no layer
    value : ndarray float64; of a batch, axis 0 runs over instances, except for weights
    step : str, the part of the run, as "Step 3: the weights of layer 2"
    formula : Formula, what the value was computed from, in ``.text``, ``.latex`` and ``.html``
    name : Symbol
    aliases : tuple of Symbol, other names of the same quantity
    details : dict, the formulas of single elements, where they are short
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

    def _index(self, place: tuple[int, ...]) -> tuple[int, ...]:
        # Neurons and pixels count from 1, and so do inputs, because 0 is the bias.
        weights = self.name.letter == "W"
        return tuple(i + 1 - (weights and axis == 1) for axis, i in enumerate(place))

    def place(self, index: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return where the element of that index stands in ``value``; None where there is none."""
        weights = self.name.letter == "W"
        place = tuple(i - 1 + (weights and axis == 1) for axis, i in enumerate(index))
        inside = len(place) == self.value.ndim and all(
            0 <= i < size for i, size in zip(place, self.value.shape, strict=True)
        )
        return place if inside else None

    def element(self, name: Symbol, place: tuple[int, ...]) -> Symbol:
        """Return the symbol of one element under this entry's name or one of its aliases."""
        lone = name.layer is None and self.value.size == 1
        return name if lone else name.at(*self._index(place))

    def elements(self) -> Iterator[tuple[Symbol, float, Formula]]:
        """Yield each number with its own symbol and formula, as w_10^(2)."""
        for place in np.ndindex(self.value.shape):
            right = self.details.get(self._index(place), self.formula)
            yield self.element(self.name, place), float(self.value[place]), right
