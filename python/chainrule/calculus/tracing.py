"""`trace`: one forward and backward pass, every quantity with its symbol and equation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .._types import Array
from ..nn.losses import Loss
from ..nn.network import Sequential, checked_network
from . import trace_format
from ._passes import ForwardPass, checked_batch, checked_targets
from .symbols import Entry, ascii_key, split_index
from .trace_builder import TraceBuilder


class Trace:
    """The result of `trace`: a list of entries that can be indexed by symbol.

    ``print`` shows a table of text, and a notebook shows a table of HTML. ``trace["delta^(2)"]`` or
    ``trace["δ^(2)"]`` is the array of that symbol in float64. In the trace of a single instance,
    ``trace["w_10^(2)"]`` is one element as a 0-dimensional array.

    Attributes
    ----------
    entries : list of Entry
        The quantities, in the order of the tutorial's steps.
    network : Sequential
        The network.
    single : bool
        True if x was a single instance.

    Examples
    --------
    >>> import chainrule as cr
    >>> net = cr.examples.three_unit_network()
    >>> x, y = cr.examples.three_unit_instance()
    >>> trace = cr.calculus.trace(net, x, y, cr.SquaredError())
    >>> trace["z^(1)"].round(12).tolist()
    [0.3, 0.6]
    >>> trace["∂ℓ/∂w_10^(2)"].round(12).item()
    -0.88
    >>> "z^(3)" in trace
    False
    >>> len(trace)
    15
    """

    def __init__(self, network: Sequential, entries: list[Entry], single: bool) -> None:
        self.network, self.entries, self.single = network, entries, single
        self._by_key = {
            name.key: entry for entry in entries for name in (*entry.aliases, entry.name)
        }

    def entry(self, name: str) -> Entry:
        """Return the entry of a symbol.

        Parameters
        ----------
        name : str
            The symbol, such as "z^(1)".

        Raises
        ------
        TypeError
            If ``name`` is not a str.
        KeyError
            If the trace has no such symbol. The message lists all symbols.
        """
        if not isinstance(name, str):
            raise TypeError(f"trace: symbol must be a str such as 'z^(1)', got {name!r}")
        found = self._by_key.get(ascii_key(name))
        if found is None:
            known = ", ".join(entry.symbol for entry in self.entries)
            raise KeyError(f"trace: symbol must be one of {known}, got {name!r}")
        return found

    def __getitem__(self, name: str) -> Array:
        if name not in self and self.single and isinstance(name, str):
            key, index = split_index(ascii_key(name))
            entry = self._by_key.get(key)
            position = None if entry is None else entry.position(index)
            if entry is not None and position is not None:
                return np.array(entry.value[position])
        return self.entry(name).value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and ascii_key(name) in self._by_key

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __str__(self) -> str:
        return trace_format.text(self.entries, self.single)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return trace_format.html(self.entries, self.single)

    def to_latex(self) -> str:
        """Return the trace as an ``align*`` environment, each line tagged with its equation."""
        return trace_format.latex(self.entries, self.single)


def trace(network: Sequential, x: object, y: object, loss: Loss, training: bool = False) -> Trace:
    """Run a forward and a backward pass and return every quantity, eq. (14), (21).

    The order is that of the tutorial: a^(0), z^(l), a^(l), ŷ and ℓ, then ∂ℓ/∂ŷ, δ^(l), ∂ℓ/∂W^(l)
    and ∂ℓ/∂a^(l) from the last layer to the first. The equations are (17)-(27) for the three-unit
    network, and (29)-(39) for any other network.

    Parameters
    ----------
    network : Sequential
        The network. Its parameters are not changed.
    x : array_like, (*input_shape) or (N, *input_shape)
        One instance or a batch of real numbers, computed in float64. uint8 means
        value / 255, and must be an image.
    y : array_like
        The target or targets: labels for `CrossEntropy`, values for `SquaredError`.
    loss : Loss
        The loss.
    training : bool
        If True, dropout is active. Its mask counts as the mask of a training pass.

    Returns
    -------
    Trace
        The quantities in float64. In the trace of a batch, losses and error terms are those of each
        instance. Weight gradients are the mean over the batch, eq. (41)-(42) without L2.

    Raises
    ------
    TypeError, ValueError
        If ``x`` does not fit the network, or ``y`` does not fit the loss.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> net = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    >>> net.parameter_vector = np.array([1.0, 2.0])
    >>> print(cr.calculus.trace(net, [3.0], [5.0], cr.SquaredError()))
    Given
      a_1^(0)      = 3   x                            (29)
      w_10^(1)     = 1                                (45)
      w_11^(1)     = 2                                (45)
      y            = 5                                (35)
    <BLANKLINE>
    Forward
      z_1^(1)      = 7   w_10^(1) + w_11^(1) a_1^(0)  (32)
      ŷ            = 7   z^(1)                        (34)
      ℓ            = 4   ‖ŷ − y‖²                     (35)
    <BLANKLINE>
    Step 1: the top derivative
      ∂ℓ/∂ŷ        = 4   2 (ŷ − y)                    (22)
    <BLANKLINE>
    Step 2: to the pre-activations of layer 1
      δ_1^(1)      = 4   ∂ℓ/∂ŷ                        (36)
    <BLANKLINE>
    Step 3: the weights of layer 1
      ∂ℓ/∂w_10^(1) = 4   δ_1^(1)                      (38), (39)
      ∂ℓ/∂w_11^(1) = 12  δ_1^(1) a_1^(0)              (38), (39)
    """
    checked_network("trace", network)
    batch, single = checked_batch("trace", network, x)
    target = checked_targets("trace", network, y, loss, len(batch), single, training)
    forward = ForwardPass(network, batch, network.count_pass() if training else None)
    return Trace(network, TraceBuilder(forward, target, loss, single).entries, single)
