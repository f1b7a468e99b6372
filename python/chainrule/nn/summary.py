"""The table of a network: shapes, parameters, FLOPs and memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..available_memory import in_bytes
from .architecture import Architecture, Extras, Mode, step_extras
from .losses import Loss, SquaredError
from .parameters import Parameters
from .training_memory import HasMomentum, Memory, training_memory

HEADERS = ("", "layer", "output shape", "parameters", "FLOPs", "activations")


@dataclass(frozen=True)
class Row:
    """One layer; FLOPs (forward) and bytes kept for backward are those of one instance."""

    index: int
    layer: str
    output_shape: tuple[int, ...]
    parameters: int
    flops: int
    nbytes: int


@dataclass(frozen=True)
class Summary:
    """What `Sequential.summary` returns; ``print`` shows the table.

    Attributes
    ----------
    rows : tuple of Row
    parameters : int
    flops : int, of a forward pass over one instance
    training_flops : int, estimate for forward and backward over one instance
    batch_size : int
    memory : Memory, of training on batches of ``batch_size``
    """

    rows: tuple[Row, ...]
    parameters: int
    flops: int
    training_flops: int
    batch_size: int
    memory: Memory

    @property
    def nbytes(self) -> int:
        """All of ``memory`` together."""
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
        """The lines below the table."""
        return "\n".join(self._totals())

    def _totals(self) -> list[str]:
        return [
            f"parameters: {self.parameters:,}",
            f"FLOPs an instance: {_scaled(self.flops)} forward, "
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
    optimizer: HasMomentum | None,
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
        like_output if isinstance(loss, SquaredError) else label,
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
        own = output.nbytes if output and not (stored_next or layer.reshapes_only(True)) else 0
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
