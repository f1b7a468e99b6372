"""The summary of a network: a table of shapes, parameters, FLOPs and memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._optional import importing
from ..available_memory import in_bytes
from .architecture import Architecture, Extras, Mode, step_extras
from .losses import CrossEntropy, Loss
from .parameters import Parameters
from .training_memory import HasState, Memory, training_memory
from .user_defined import reshapes_only

HEADERS = ("", "layer", "output shape", "parameters", "FLOPs", "activations")


@dataclass(frozen=True)
class Row:
    """One layer of a summary.

    Attributes
    ----------
    index : int
        Position of the layer, from 0.
    layer : str
        The layer as its constructor call.
    output_shape : tuple of int
        Shape of the output per instance.
    parameters : int
        Number of weights and biases.
    flops : int
        Operations of a forward pass per instance.
    nbytes : int
        Bytes that the backward pass reads, per instance.
    """

    index: int
    layer: str
    output_shape: tuple[int, ...]
    parameters: int
    flops: int
    nbytes: int


@dataclass(frozen=True)
class Summary:
    """The result of `Sequential.summary`. ``print`` shows the table.

    Attributes
    ----------
    rows : tuple of Row
    parameters : int
        Number of weights and biases.
    flops : int
        Operations of a forward pass per instance.
    training_flops : int
        Operations of a forward and a backward pass per instance, estimated.
    batch_size : int
    memory : Memory
        The memory of training on batches of ``batch_size``.

    Examples
    --------
    >>> import chainrule as cr
    >>> summary = cr.Sequential(cr.Linear(3), input_shape=(4,)).summary()
    >>> [(row.layer, row.parameters) for row in summary.rows]
    [('Linear(3)', 15)]
    >>> print(summary.totals().splitlines()[0])
    parameters: 15
    """

    rows: tuple[Row, ...]
    parameters: int
    flops: int
    training_flops: int
    batch_size: int
    memory: Memory

    @property
    def nbytes(self) -> int:
        """The total of ``memory``, in bytes."""
        return self.memory.total

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                str(row.index),
                row.layer,
                str(row.output_shape),
                f"{row.parameters:,}",
                _scaled(row.flops),
                in_bytes(row.nbytes),
            )
            for row in self.rows
        ]

    def totals(self) -> str:
        """Return the lines below the table."""
        return "\n".join(self._totals())

    def _totals(self) -> list[str]:
        return [
            f"parameters: {self.parameters:,}",
            f"FLOPs per instance: {_scaled(self.flops)} forward, "
            f"about {_scaled(self.training_flops)} in a training step",
            f"memory to train on batches of {self.batch_size}: {in_bytes(self.nbytes)}",
            *(f"  {part}" for part in self.memory.parts().split(", ")),
        ]

    def __str__(self) -> str:
        cells = [HEADERS, *self._cells()]
        widths = [max(len(line[i]) for line in cells) for i in range(len(HEADERS))]
        lines = [
            "  ".join(
                cell.ljust(width) if i in (1, 2) else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in cells
        ]
        rule = "-" * max(len(line) for line in lines)
        return "\n".join([lines[0], rule, *lines[1:], rule, *self._totals()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        with importing:
            import html

        def row(tag: str, cells: tuple[str, ...]) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

        body = "".join(row("td", cells) for cells in self._cells())
        totals = "<br>".join(html.escape(line) for line in self._totals())
        return f"<table>{row('th', HEADERS)}{body}</table><p>{totals}</p>"


def summarize(
    architecture: Architecture,
    parameters: Parameters,
    batch_size: int,
    optimizer: HasState | None,
    loss: Loss | None,
) -> Summary:
    """Return the table. Memory is computed from the layout that a plan would have."""
    label: Extras = step_extras((), np.dtype(np.int64))
    like_output: Extras = step_extras(architecture.shapes[-1], architecture.dtype)
    memory = training_memory(
        architecture,
        parameters,
        batch_size,
        optimizer,
        loss is None or loss.takes_logits,
        label if loss is None or isinstance(loss, CrossEntropy) else like_output,
    )
    layout = architecture.layout(1, Mode(backward=True, dropout=True))
    fused, first = architecture.fused_relus, architecture.first_with_parameters
    rows, training = [], 0
    for i, (layer, shape) in enumerate(zip(architecture.layers, architecture.shapes, strict=False)):
        flops = layer.flops(shape)
        count = sum(math.prod(s) for s in layer.parameter_shapes(shape).values())
        # The backward pass costs one product for the weights and one for dx. The first layer with
        # parameters needs no dx.
        back = 0 if i < first else 2 if count and i > first else 1
        training += flops * (1 + back)
        stored_next = i + 1 < len(fused) and fused[i + 1]
        output = layout.outputs[i]
        own = output.nbytes if output and not (stored_next or reshapes_only(layer, True)) else 0
        saved = sum(buffer.nbytes for buffer in layout.saved[i].values())
        rows.append(Row(i, repr(layer), architecture.shapes[i + 1], count, flops, own + saved))
    return Summary(
        tuple(rows),
        sum(row.parameters for row in rows),
        sum(row.flops for row in rows),
        training,
        batch_size,
        memory,
    )


def _scaled(count: int) -> str:
    for power, unit in zip(range(18, 0, -3), "EPTGMk", strict=True):
        if count >= 10**power:
            return f"{count / 10**power:.3g} {unit}"
    return str(count)
