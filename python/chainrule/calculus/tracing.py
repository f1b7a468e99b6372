"""The trace: one run forward and back, every quantity under its symbol and its equation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .._types import Array
from ..nn.losses import Loss
from ..nn.network import Sequential
from . import trace_format
from ._passes import Walk, checked_network, instances, targets
from .entries import Entry
from .symbols import array_and_index, normalised
from .trace_builder import Steps


class Trace:
    """What `trace` returns: ``print`` shows a table, a notebook HTML.

    ``trace["delta^(2)"]``, or ``trace["δ^(2)"]``, is the array of that name; of one instance,
    ``trace["w_10^(2)"]`` is one element, an array of no dimensions. Both are float64.

    Attributes
    ----------
    entries : list of Entry, in the order of the tutorial's steps
    network : Sequential
    single : bool, whether x was one instance
    """

    def __init__(self, network: Sequential, entries: list[Entry], single: bool) -> None:
        self.network, self.entries, self.single = network, entries, single
        self._places = {
            name.key: entry for entry in entries for name in (*entry.aliases, entry.name)
        }

    def entry(self, name: str) -> Entry:
        """Return the entry of that symbol; KeyError names the ones there are."""
        if not isinstance(name, str):
            raise TypeError(f"trace: a symbol must be a str as 'z^(1)', got {name!r}")
        found = self._places.get(normalised(name))
        if found is None:
            known = ", ".join(entry.symbol for entry in self.entries)
            raise KeyError(f"trace: has no {name!r}; it has {known}")
        return found

    def __getitem__(self, name: str) -> Array:
        if name not in self and self.single and isinstance(name, str):
            whole, index = array_and_index(normalised(name))
            entry = self._places.get(whole)
            place = None if entry is None else entry.place(index)
            if entry is not None and place is not None:
                return np.array(entry.value[place])
        return self.entry(name).value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and normalised(name) in self._places

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __str__(self) -> str:
        return trace_format.text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return trace_format.html(self)

    def to_latex(self) -> str:
        """Return the trace as an ``align*`` environment, each line tagged with its equation."""
        return trace_format.latex(self)


def trace(network: Sequential, x: object, y: object, loss: Loss, training: bool = False) -> Trace:
    """Run forward and back, and return every quantity as the tutorial names it; eq. (14), (21).

    Parameters
    ----------
    network : Sequential
    x : array (*input_shape) for one instance, or (N, *input_shape): real numbers, computed with in
        float64; uint8 means value / 255
    y : its target, or targets: a label for `CrossEntropy`, an array for `SquaredError`
    loss : Loss
    training : bool, whether dropout is active; its mask counts as that of a training pass

    Returns
    -------
    Trace
        a^(0), z^(l), a^(l), ŷ and ℓ; then ∂ℓ/∂ŷ, δ^(l), ∂ℓ/∂W^(l) and ∂ℓ/∂a^(l) from the last
        layer to the first: eq. (17)-(27) for the three-unit network, (29)-(39) for any. Of a batch,
        losses and error terms are each instance's own, and gradients by weights the mean over it,
        eq. (41)-(42) without L2

    Raises
    ------
    TypeError, ValueError
        If x or y is not what the network and the loss take.
    """
    checked_network("trace", network)
    batch, single = instances("trace", network, x)
    target = targets("trace", network, y, loss, len(batch), single)
    walk = Walk(network, batch, network.count_pass() if training else None)
    return Trace(network, Steps(walk, target, loss, single).entries, single)
