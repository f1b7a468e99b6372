"""Terminal output of the commands: tables and bars that fit the width, with color on a terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import click
import numpy as np

from .. import cuda, get_num_threads, info
from .._types import Array

__all__ = [
    "ascii_image",
    "bar_chart",
    "confusion_table",
    "device_name",
    "heading",
    "key_value_table",
    "percent",
    "pluralize",
    "width",
    "wrapped",
]

# Wider tables and bars are harder to read.
MAX_WIDTH = 100


def width() -> int:
    """Return the width of the output, in columns."""
    return min(shutil.get_terminal_size((80, 24)).columns, MAX_WIDTH)


def pluralize(count: int, noun: str) -> str:
    """Return a count with its noun, such as "1 thread" or "2 threads"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def device_name(device: str) -> str:
    """Return the hardware of a device: the GPU, or the CPU backend and its threads."""
    if device == "cuda":
        return cuda.description()
    return f"{info()['backend']}, {pluralize(get_num_threads(), 'thread')}"


def wrapped(text: str) -> str:
    """Return the text with long lines of prose wrapped, and rows of tables unchanged."""
    lines = []
    for line in text.splitlines():
        prose = "  " not in line.strip()
        lines += textwrap.wrap(line, width(), subsequent_indent="  ") if prose and line else [line]
    return "\n".join(lines)


def heading(text: str) -> None:
    """Print a title."""
    click.echo(click.style(text, bold=True))


def key_value_table(pairs: Mapping[str, str]) -> None:
    """Print keys and values in two columns."""
    longest = max(map(len, pairs))
    for name, value in pairs.items():
        click.echo(f"  {click.style(name.ljust(longest), dim=True)}  {value}")


def _encodable(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def percent(share: float, digits: int = 1) -> str:
    """Return a share in percent that says 100 or 0 only where it is 100 or 0."""
    low = 10.0**-digits
    value = 100.0 * share
    if 0.0 < value < low:
        return f"<{low:.{digits}f} %"
    if 100.0 - low < value < 100.0:
        return f">{100.0 - low:.{digits}f} %"
    return f"{value:.{digits}f} %"


def confusion_table(confusion: Array, names: Sequence[str]) -> list[str]:
    """Return the lines of a confusion matrix with the share of each class that was read right.

    Mistakes stand out: nothing is a dot, and the commonest ones are coloured. Where the terminal
    is too narrow the matrix is left out and the shares stay, each with the class most often read
    instead.
    """
    right = np.diag(confusion)
    totals = confusion.sum(axis=1)
    wrong = confusion - np.diag(right)
    cell = max(len(str(int(confusion.max()))), max(map(len, names))) + 2
    first = max(map(len, names)) + 7
    narrow = first + cell * len(names) + 9 > width()
    lines = []
    if narrow:
        lines.append(click.style("  true   right   most often read as", dim=True))
    else:
        lines.append(" " * first + click.style("read as", dim=True))
        head = "".join(name.rjust(cell) for name in names)
        lines.append(" " * first + click.style(head + "    right", bold=True))
    for row, name in enumerate(names):
        share = percent(right[row] / totals[row]) if totals[row] else "none"
        if narrow:
            instead = int(wrong[row].argmax())
            times = counted(int(wrong[row, instead]), "time")
            other = f"{names[instead]} ({times})" if wrong[row].any() else ""
            lines.append(f"  {name:>4} {share:>8}   {other}".rstrip())
            continue
        cells = []
        for column, count in enumerate(confusion[row].tolist()):
            text = (str(count) if count else ".").rjust(cell)
            if row == column:
                text = click.style(text, bold=True, fg="blue")
            elif not count:
                text = click.style(text, dim=True)
            elif 2 * count > wrong.max():
                text = click.style(text, fg="red")
            cells.append(text)
        lines.append(f"  true {name.rjust(first - 7)}{''.join(cells)} {share:>8}")
    return lines


def bar_chart(probabilities: Iterable[float], names: Sequence[str]) -> list[str]:
    """Return one line per class: its name, a bar, and its probability."""
    values = [float(probability) for probability in probabilities]
    longest = max(map(len, names))
    room = max(5, min(40, width() - longest - 14))
    full, blank = ("█", "·") if _encodable("█·") else ("#", ".")
    best = max(range(len(values)), key=values.__getitem__)
    lines = []
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        length = round(room * value)
        bold = True if index == best else None
        bar = click.style(f"  {name.rjust(longest)}  {full * length}", bold=bold)
        rest = click.style(blank * (room - length), dim=True)
        lines.append(bar + rest + click.style(f" {percent(value):>8}", bold=bold))
    return lines


def drawing(image: Array) -> list[str]:
    """Return an image (H, W) of uint8, white ink on black, in characters."""
    shades = " ░▒▓█" if _encodable("░▒▓█") else " .+x#"
    level = np.minimum(image.astype(int) * len(shades) // 256, len(shades) - 1)
    # Characters are about twice as high as wide.
    return ["  " + "".join(2 * shades[each] for each in row).rstrip() for row in level]
