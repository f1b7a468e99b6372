"""A trace as text, as HTML and as LaTeX; large arrays as shape, range and a small picture."""

from __future__ import annotations

import html as escaping
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._types import Array
from .entries import ELEMENTS, Entry
from .formulas import Formula
from .symbols import Symbol
from .thumbnails import svg_picture, text_picture

if TYPE_CHECKING:
    from .tracing import Trace

# So many numbers are shown as they are; of more, their range.
FEW = 4
MINUS = "−"


class _Row(NamedTuple):
    name: Symbol
    value: Array
    right: Formula
    equation: str


def _number(value: float, digits: int = 6) -> str:
    return f"{value:.{digits}g}".replace("-", MINUS)


def _size(value: Array) -> str:
    return "×".join(map(str, value.shape))


def _range(value: Array) -> str:
    return f"{value.min():.3g} … {value.max():.3g}".replace("-", MINUS)


def _shown(value: Array) -> str:
    """As "0.56", "(0.3, 0.6)" or "26×26×32, −0.12 … 1.3"."""
    if value.ndim == 0:
        return _number(float(value))
    if value.size <= FEW:
        return f"({', '.join(_number(v, 4) for v in value.ravel().tolist())})"
    return f"{_size(value)}, {_range(value)}"


def _rows(trace: Trace) -> Iterator[tuple[str, list[_Row]]]:
    """Each step with its rows."""
    small = trace.single and all(entry.value.size <= ELEMENTS for entry in trace.entries)
    step, rows = "", list[_Row]()
    for entry in trace.entries:
        if entry.step != step and rows:
            yield step, rows
            rows = []
        step = entry.step
        rows += _of(entry, small)
    yield step, rows


def _of(entry: Entry, small: bool) -> list[_Row]:
    if not small:
        return [_Row(entry.name, entry.value, entry.formula, entry.equation)]
    return [
        _Row(name, np.array(value), right, entry.equation)
        for name, value, right in entry.elements()
    ]


def text(trace: Trace) -> str:
    """Return an aligned table: symbol, value, formula, equation; pictures below their rows."""
    steps = list(_rows(trace))
    cells = [
        [(row.name.text, _shown(row.value), row.right.text, row.equation) for row in rows]
        for _, rows in steps
    ]
    widths = [max(len(line[i]) for rows in cells for line in rows) for i in range(3)]
    lines = list[str]()
    for (step, rows), of_step in zip(steps, cells, strict=True):
        lines += ["", step] if lines else [step]
        for row, line in zip(rows, of_step, strict=True):
            name, value, right = (
                cell.ljust(width) for cell, width in zip(line, widths, strict=False)
            )
            lines.append(f"  {name} = {value}  {right}  {line[3]}".rstrip())
            if row.value.size > FEW:
                indent = " " * (widths[0] + 5)
                lines += [f"{indent}{picture}".rstrip() for picture in text_picture(row.value)]
    return "\n".join(lines)


# Whether the cells of a column may be broken into lines: the formulas alone.
_WRAPS = (False, False, True, False)


def _cell(content: str, wraps: bool) -> str:
    style = "text-align:left;vertical-align:top;padding:2px 10px"
    return f'<td style="{style}{"" if wraps else ";white-space:nowrap"}">{content}</td>'


def html(trace: Trace) -> str:
    """Return a table with the same columns, pictures in the values' cells."""
    body = []
    for step, rows in _rows(trace):
        style = "text-align:left;padding:8px 10px 2px"
        body.append(f'<tr><th colspan="4" style="{style}">{escaping.escape(step)}</th></tr>')
        for row in rows:
            value = escaping.escape(_shown(row.value))
            if row.value.size > FEW:
                value += f"<br>{svg_picture(row.value)}"
            cells = (row.name.html, f"= {value}", row.right.html, escaping.escape(row.equation))
            body.append("<tr>" + "".join(map(_cell, cells, _WRAPS)) + "</tr>")
    head = "".join(
        f'<th style="text-align:left;padding:2px 10px">{name}</th>'
        for name in ("", "value", "computed as", "eq.")
    )
    return f'<table class="chainrule-trace"><tr>{head}</tr>{"".join(body)}</table>'


def _latex_number(value: float) -> str:
    shown = f"{value:.6g}"
    found = re.fullmatch(r"(.*)e([+-])0*(\d+)", shown)
    if found:
        sign = "-" if found[2] == "-" else ""
        return rf"{found[1]} \times 10^{{{sign}{found[3]}}}"
    return shown.replace("inf", r"\infty").replace("nan", r"\mathrm{NaN}")


def _latex_value(value: Array) -> str:
    if value.ndim == 0:
        return f"= {_latex_number(float(value))}"
    if value.size <= FEW:
        return f"= ({', '.join(_latex_number(v) for v in value.ravel().tolist())})"
    shape = r" \times ".join(map(str, value.shape))
    low, high = (_latex_number(float(f"{end:.3g}")) for end in (value.min(), value.max()))
    return rf"\in \mathbb{{R}}^{{{shape}}}, \; {low} \ldots {high}"


def latex(trace: Trace) -> str:
    """Return an ``align*`` environment, a line a row, tagged with its equation."""
    lines = []
    for _, rows in _rows(trace):
        for row in rows:
            middle = f"= {row.right.latex} " if row.right.parts else ""
            tag = re.sub(r"[()]", "", row.equation)
            end = rf" \tag{{{tag}}}" if tag else ""
            lines.append(f"{row.name.latex} &{middle}{_latex_value(row.value)}{end}")
    return "\\begin{align*}\n" + " \\\\\n".join(lines) + "\n\\end{align*}"
