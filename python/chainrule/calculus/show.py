"""A trace as text, as HTML and as LaTeX; large arrays as shape, range and a small picture."""

from __future__ import annotations

import html as escaping
from typing import TYPE_CHECKING

import numpy as np

from ..slot import Array
from .formulas import Formula
from .naming import Symbol

if TYPE_CHECKING:
    from .tracing import Entry, Trace

# A network whose largest array is no larger is shown element by element.
ELEMENTS = 12
# A vector that long is shown by its numbers.
VECTOR = 4


def number(value: float) -> str:
    """Six significant digits, and a sign that is easy to see."""
    return f"{value:.6g}".replace("-", "−")


def _rows(trace: Trace, entry: Entry) -> list[tuple[Symbol, float | Array, Formula]]:
    small = all(other.value.size <= ELEMENTS for other in trace.entries)
    if trace.single and small:
        return list(entry.elements())
    value = entry.value
    return [(entry.name, float(value) if value.ndim == 0 else value, entry.formula)]


def shape_and_range(value: Array) -> str:
    """As "26×26×32, −0.12 … 1.3"."""
    shape = "×".join(map(str, value.shape))
    if value.size == 0:
        return shape
    if 1 <= value.size <= VECTOR:
        return f"({', '.join(number(v) for v in value.ravel())})"
    return f"{shape}, {value.min():.3g} … {value.max():.3g}".replace("-", "−")


def text(trace: Trace) -> str:
    lines: list[tuple[str, str, str, str] | str] = []
    for i, entry in enumerate(trace.entries):
        if i == 0 or trace.entries[i - 1].step != entry.step:
            lines.append(entry.step)
        for name, value, right in _rows(trace, entry):
            shown = number(value) if isinstance(value, float) else shape_and_range(value)
            lines.append((name.text, shown, right.text, entry.equation))
    rows = [line for line in lines if not isinstance(line, str)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    out = []
    for line in lines:
        if isinstance(line, str):
            out += ["", line] if out else [line]
        else:
            cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
            out.append(f"  {cells[0]}  = {cells[1]}  {cells[2]}  {line[3]}".rstrip())
    return "\n".join(out)


def html(trace: Trace) -> str:
    return f"<pre>{escaping.escape(text(trace))}</pre>"


def latex(trace: Trace) -> str:
    lines = []
    for entry in trace.entries:
        for name, value, right in _rows(trace, entry):
            shown = number(value) if isinstance(value, float) else "?"
            middle = f"{right.latex} = " if right.parts else ""
            lines.append(f"{name.latex} &= {middle}{shown}")
    return "\\begin{align*}\n" + " \\\\\n".join(lines) + "\n\\end{align*}"
