"""Format the entries of a trace as text, HTML and LaTeX.

Small arrays are shown as numbers. A larger array is shown as its shape, its range and a small
image: block characters in text, SVG in HTML.
"""

from __future__ import annotations

import html as escaping
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .._types import Array
from ..plots.style import BLUE, ORANGE, SHADES, rgb, shaded_rows
from .symbols import MAX_ELEMENTS, Entry, Formula, Symbol

# Arrays of at most this many elements are shown as numbers, larger ones as a range and an image.
MAX_NUMBERS = 4
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


def _value(value: Array) -> str:
    """Return the value as text, such as "0.56", "(0.3, 0.6)" or "26×26×32, −0.12 … 1.3"."""
    if value.ndim == 0:
        return _number(float(value))
    if value.size <= MAX_NUMBERS:
        return f"({', '.join(_number(v, 4) for v in value.ravel().tolist())})"
    return f"{_size(value)}, {_range(value)}"


def _rows(entries: Sequence[Entry], single: bool) -> Iterator[tuple[str, list[_Row]]]:
    """Yield the title and the rows of each step."""
    elementwise = single and all(entry.value.size <= MAX_ELEMENTS for entry in entries)
    step, rows = "", list[_Row]()
    for entry in entries:
        if entry.step != step and rows:
            yield step, rows
            rows = []
        step = entry.step
        rows += _entry_rows(entry, elementwise)
    yield step, rows


def _entry_rows(entry: Entry, elementwise: bool) -> list[_Row]:
    if not elementwise:
        return [_Row(entry.name, entry.value, entry.formula, entry.equation)]
    return [
        _Row(name, np.array(value), right, entry.equation)
        for name, value, right in entry.elements()
    ]


def text(entries: Sequence[Entry], single: bool) -> str:
    """Return an aligned table of symbol, value, formula and equation, with images below the rows.

    Parameters
    ----------
    entries : sequence of Entry
        The entries of a trace.
    single : bool
        True if the entries belong to a single instance.
    """
    steps = list(_rows(entries, single))
    cells = [
        [(row.name.text, _value(row.value), row.right.text, row.equation) for row in rows]
        for _, rows in steps
    ]
    widths = [max(len(line[i]) for rows in cells for line in rows) for i in range(3)]
    lines = list[str]()
    for (step, rows), step_cells in zip(steps, cells, strict=True):
        lines += ["", step] if lines else [step]
        for row, line in zip(rows, step_cells, strict=True):
            name, value, right = (
                cell.ljust(width) for cell, width in zip(line, widths, strict=False)
            )
            lines.append(f"  {name} = {value}  {right}  {line[3]}".rstrip())
            if row.value.size > MAX_NUMBERS:
                indent = " " * (widths[0] + 5)
                lines += [f"{indent}{image}".rstrip() for image in text_image(row.value)]
    return "\n".join(lines)


# True for the columns whose cells may wrap: only the formulas.
_WRAPS = (False, False, True, False)


def _cell(content: str, wraps: bool) -> str:
    style = "text-align:left;vertical-align:top;padding:2px 10px"
    return f'<td style="{style}{"" if wraps else ";white-space:nowrap"}">{content}</td>'


def html(entries: Sequence[Entry], single: bool) -> str:
    """Return an HTML table with the columns of `text`, with SVG images in the value cells."""
    body = []
    for step, rows in _rows(entries, single):
        style = "text-align:left;padding:8px 10px 2px"
        body.append(f'<tr><th colspan="4" style="{style}">{escaping.escape(step)}</th></tr>')
        for row in rows:
            value = escaping.escape(_value(row.value))
            if row.value.size > MAX_NUMBERS:
                value += f"<br>{svg_image(row.value)}"
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
    if value.size <= MAX_NUMBERS:
        return f"= ({', '.join(_latex_number(v) for v in value.ravel().tolist())})"
    shape = r" \times ".join(map(str, value.shape))
    low, high = (_latex_number(float(f"{end:.3g}")) for end in (value.min(), value.max()))
    return rf"\in \mathbb{{R}}^{{{shape}}}, \; {low} \ldots {high}"


def latex(entries: Sequence[Entry], single: bool) -> str:
    """Return an ``align*`` environment with one line per row, tagged with its equation."""
    lines = []
    for _, rows in _rows(entries, single):
        for row in rows:
            middle = f"= {row.right.latex} " if row.right.parts else ""
            tag = re.sub(r"[()]", "", row.equation)
            end = rf" \tag{{{tag}}}" if tag else ""
            lines.append(f"{row.name.latex} &{middle}{_latex_value(row.value)}{end}")
    return "\\begin{align*}\n" + " \\\\\n".join(lines) + "\n\\end{align*}"


# Images of arrays

BARS = "▁▂▃▄▅▆▇█"
# An image of a 3- or 4-dimensional array shows its first channels, at most this many.
MAX_MAPS = 4


class _Limits(NamedTuple):
    """The largest image (rows, columns) in cells of a vector, a matrix, and each map."""

    vector: tuple[int, int]
    matrix: tuple[int, int]
    map: tuple[int, int]


TEXT_LIMITS = _Limits((1, 56), (8, 56), (8, 16))
SVG_LIMITS = _Limits((1, 96), (24, 72), (28, 28))
# SVG images have this many shades of each color.
LEVELS = 5
# The smallest and largest side of an SVG cell, and the width that a small image is enlarged to, in
# pixels.
CELL_SIDES, SMALL_WIDTH = (4, 14), 140


def _maps(value: Array) -> list[Array]:
    """Return the 2-dimensional parts of an array that the image shows."""
    if value.ndim <= 2:
        return [np.atleast_2d(value)]
    if value.ndim == 3:
        return [value[:, :, k] for k in range(min(MAX_MAPS, value.shape[2]))]
    if value.ndim == 4:
        return [value[k, :, :, 0] for k in range(min(MAX_MAPS, value.shape[0]))]
    return [value.reshape(len(value), -1)]


def _downsample(part: Array, limit: tuple[int, int]) -> Array:
    """Return an array of at most ``limit`` cells: of each block, the value farthest from 0."""
    for axis, cells in enumerate(limit):
        size = part.shape[axis]
        if size > cells:
            starts = np.arange(cells) * size // cells
            low = np.minimum.reduceat(part, starts, axis=axis)
            high = np.maximum.reduceat(part, starts, axis=axis)
            part = np.where(high >= -low, high, low)
    return part


def _cells(value: Array, limits: _Limits) -> tuple[list[Array], float]:
    """Return the downsampled maps and their largest magnitude. Values that are not finite are 0."""
    limit = limits.vector if value.ndim < 2 else limits.matrix if value.ndim == 2 else limits.map
    maps = [_downsample(part, limit) for part in _maps(np.where(np.isfinite(value), value, 0))]
    return maps, max(float(np.abs(part).max(initial=0)) for part in maps)


def text_image(value: Array) -> list[str]:
    """Return an array as lines of block characters.

    A vector becomes bars, from its smallest to its largest element. Any other array becomes shades
    of its absolute values. Of a 3- or 4-dimensional array the first `MAX_MAPS` maps are shown.
    """
    maps, largest = _cells(value, TEXT_LIMITS)
    if value.ndim < 2:
        row = maps[0][0]
        low, span = row.min(), row.max() - row.min()
        heights = (row - low) / span if span else np.zeros(len(row))
        return ["".join(BARS[min(int(h * len(BARS)), len(BARS) - 1)] for h in heights)]
    columns = []
    for part in maps:
        # Rounded up, so that every nonzero value is visible.
        shades = np.ceil(np.abs(part) / (largest or 1) * (len(SHADES) - 1)).astype(int)
        wide = value.ndim > 2 and 2 * part.shape[1] <= TEXT_LIMITS.map[1]
        columns.append(shaded_rows(shades, width=2 if wide else 1))
    return ["│" + "│".join(pieces) + "│" for pieces in zip(*columns, strict=True)]


def svg_image(value: Array) -> str:
    """Return an array as an inline SVG: 0 is white, positive blue, negative orange."""
    maps, largest = _cells(value, SVG_LIMITS)
    paths: dict[int, list[str]] = {}
    left = 0
    for part in maps:
        levels = np.rint(part / (largest or 1) * LEVELS).astype(int)
        for i, row in enumerate(levels):
            # Adjacent cells of one color are one rectangle.
            ends = np.flatnonzero(np.diff(row, append=row[-1] + 1)) + 1
            for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
                if row[start]:
                    run = f"M{left + start} {i}h{end - start}v1h{start - end}z"
                    paths.setdefault(int(row[start]), []).append(run)
        left += part.shape[1] + 1
    width, height = left - 1, maps[0].shape[0]
    body = "".join(
        f'<path fill="{_color(level)}" d="{"".join(runs)}"/>' for level, runs in paths.items()
    )
    frames = "".join(
        f'<rect x="{k * (maps[0].shape[1] + 1)}" width="{part.shape[1]}" height="{height}" '
        'fill="#fff" stroke="#ddd" stroke-width=".25"/>'
        for k, part in enumerate(maps)
    )
    cell = min(CELL_SIDES[1], max(CELL_SIDES[0], SMALL_WIDTH // width))
    high = max(CELL_SIDES[1], cell * height)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{cell * width}" height="{high}" '
        'preserveAspectRatio="none" shape-rendering="crispEdges" role="img">'
        f"{frames}{body}</svg>"
    )


def _color(level: int) -> str:
    share = abs(level) / LEVELS
    color = rgb(BLUE if level > 0 else ORANGE)
    return "#" + "".join(f"{round(255 + share * (part - 255)):02x}" for part in color)
