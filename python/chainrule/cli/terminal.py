"""Terminal output of the commands: tables and bars that fit the width, with color on a terminal."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
import numpy as np

from .. import cuda, get_num_threads, info
from .._types import Array
from ..plots.style import SHADES, shaded_rows
from ..training.confusion import confusion_table, percent

__all__ = [
    "ascii_image",
    "bar_chart",
    "confusion_matrix",
    "device_name",
    "has_escapes",
    "heading",
    "key_value_table",
    "pluralize",
    "shell_command",
    "width",
    "wrapped",
]

# Wider tables and bars are harder to read.
MAX_WIDTH = 100


def has_escapes() -> bool:
    """Return whether escape sequences may be printed if the output is a terminal.

    A terminal without them has the name "dumb": Emacs' shell, a serial console. See
    https://no-color.org for NO_COLOR.
    """
    known = os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")
    return known and not os.environ.get("NO_COLOR")


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


# Colors of the roles that `confusion_table` passes.
_ROLE_STYLES: dict[str, dict[str, Any]] = {
    "title": {"dim": True},
    "header": {"bold": True},
    "correct": {"bold": True, "fg": "blue"},
    "zero": {"dim": True},
    "frequent": {"fg": "red"},
}


def confusion_matrix(confusion: Array, names: Sequence[str]) -> list[str]:
    """Return the lines of a confusion matrix, in color and within the width of the terminal."""

    def style(text: str, role: str) -> str:
        return click.style(text, **_ROLE_STYLES[role]) if role in _ROLE_STYLES else text

    return confusion_table(confusion, names, width(), style)


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


def ascii_image(image: Array) -> list[str]:
    """Return an image (H, W) of uint8, white ink on black, as lines of characters."""
    shades = SHADES if _encodable(SHADES) else " .+x#"
    levels = np.minimum(image.astype(int) * len(shades) // 256, len(shades) - 1)
    return ["  " + line.rstrip() for line in shaded_rows(levels, shades, width=2)]


def shell_command(*parts: str) -> None:
    """Print a command to copy, in one line if it fits."""
    fits = len(" ".join(parts)) + 2 <= width()
    click.echo(click.style("  " + (" " if fits else " \\\n    ").join(parts), bold=True))
