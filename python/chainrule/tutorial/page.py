"""The page: chapters of prose, equations, figures and tables, put together into one file."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import count
from typing import TYPE_CHECKING, Any

from .. import calculus
from . import mathml
from .listing import highlighted, listing
from .svg import svg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

__all__ = ["Chapter", "Panel", "Slider", "page", "rich"]


def rich(text: str) -> str:
    """Return a paragraph as HTML: $LaTeX$, `code`, *emphasis*, **strong** and (37) are set as such.

    A number of an equation in brackets becomes a link to the equation.
    """
    parts = re.split(r"(\$[^$]+\$|`[^`]+`)", text)
    for index, part in enumerate(parts):
        if part.startswith("$"):
            parts[index] = mathml.inline(part[1:-1])
        elif part.startswith("`"):
            parts[index] = f"<code>{html.escape(part[1:-1], quote=False)}</code>"
        else:
            part = html.escape(part, quote=False)
            part = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", part)
            part = re.sub(r"\*([^*]+)\*", r"<em>\1</em>", part)
            parts[index] = re.sub(r"\((\d\d?)\)", r'<a href="#eq-\1">(\1)</a>', part)
    return "".join(parts)


@dataclass(frozen=True)
class Panel:
    """One picture of a figure; several stand side by side, and below each other on a phone.

    Attributes
    ----------
    picture : Figure
        What matplotlib drew.
    alt : str
        What it shows, for whoever cannot see it.
    coloured : bool
        Whether its colours turn with the page's at night; what holds images keeps its own.
    kind : str
        A class for the style sheet or the script.
    label : str
        What stands above it, as `rich` takes it.
    """

    picture: Figure
    alt: str
    coloured: bool = True
    kind: str = ""
    label: str = ""
    position: int | None = None


@dataclass(frozen=True)
class Slider:
    """A slider above a figure: what it sets, what each position is called, and where it starts.

    On paper, if nobody has moved it, and where scripts are off, the figure shows the position
    ``still``, by default the same.
    """

    label: str
    names: Sequence[str]
    start: int = 0
    still: int | None = None


def frames(position: int, start: int) -> str:
    """The class and the data of an element that is seen at one position of the slider."""
    return f' frame{" on" * (position == start)}" data-from="{position}" data-to="{position}'


@dataclass
class Chapter:
    """One section of the page, filled from top to bottom.

    Attributes
    ----------
    key : str
        Its anchor.
    title : str
    number : int
    figures : iterator of int
        The numbers of figures, shared by all chapters.
    """

    key: str
    title: str
    number: int
    figures: Iterator[int] = field(default_factory=lambda: count(1))
    blocks: list[str] = field(default_factory=list)

    def prose(self, text: str) -> None:
        """Add paragraphs, which blank lines part; see `rich`."""
        for paragraph in re.split(r"\n\s*\n", text.strip()):
            self.blocks.append(f"<p>{rich(' '.join(paragraph.split()))}</p>")

    def points(self, *texts: str) -> None:
        """Add a list."""
        items = "".join(f"<li>{rich(' '.join(text.split()))}</li>" for text in texts)
        self.blocks.append(f"<ul>{items}</ul>")

    def heading(self, text: str) -> None:
        """Add a heading inside the chapter."""
        self.blocks.append(f"<h3>{rich(text)}</h3>")

    def equations(self, *numbers: int) -> None:
        """Add equations of the tutorial by their numbers, and the names that realise them."""
        rows: list[str] = []
        names: list[str] = []
        for number in numbers:
            equation = calculus.equation(number)
            lines = "".join(f"<div>{line}</div>" for line in mathml.lines(equation.latex))
            label = html.escape(equation.title)
            rows.append(
                f'<div class="row" id="eq-{number}"><div class="body" tabindex="0" role="group" '
                f'aria-label="{label}">{lines}</div><div class="no">({number})</div></div>'
            )
            names += equation.names
        tags = "".join(
            f"<code>{html.escape(name.replace('chainrule.', 'cr.', 1))}</code> "
            for name in dict.fromkeys(names)
        )
        self.blocks.append(
            f'<div class="eq">{"".join(rows)}<div class="names">in code {tags}</div></div>'
        )

    def figure(
        self,
        key: str,
        *panels: Panel | str,
        caption: str,
        code: Sequence[Callable[..., Any]],
        call: str,
        slider: Slider | None = None,
        told: Sequence[str] = (),
        said: str = "",
        data: object = None,
    ) -> None:
        """Add a figure.

        Parameters
        ----------
        key : str
            A word that no other figure has.
        *panels : Panel or str
            Pictures, or HTML between them.
        caption : str
            As `rich` takes it.
        code : sequence of callable
            The functions that computed what is drawn, shown as they are.
        call : str
            The call of them.
        slider : Slider, optional
            Shows the panels' frames one at a time.
        told : sequence of str
            A sentence for each position of the slider, or one for a figure without a slider.
        said : str
            A sentence that the script replaces as one points at the panels.
        data : JSON, optional
            Numbers for that.
        """
        start = 0
        if slider:
            start = slider.start if slider.still is None else slider.still
        shown = []
        for index, panel in enumerate(panels):
            if isinstance(panel, str):
                shown.append(panel)
                continue
            picture = svg(panel.picture, f"{key}{index}", panel.alt, start, panel.coloured)
            kind = " ".join(["panel", *["plain"][panel.coloured :], *panel.kind.split()])
            label = f'<div class="label">{rich(panel.label)}</div>' if panel.label else ""
            seen = "" if panel.position is None else frames(panel.position, start)
            shown.append(f'<div class="{kind}{seen}">{label}{picture}</div>')
        attributes = f' id="fig-{key}"'
        control = ""
        if slider:
            names = html.escape(json.dumps(list(slider.names), ensure_ascii=False))
            attributes += f' data-slider="{names}" data-still="{start}"'
            control = (
                f'<div class="slider"><label for="{key}-slider">{rich(slider.label)}</label>'
                f'<button type="button" data-by="-1" aria-label="back">‹</button>'
                f'<input type="range" id="{key}-slider" min="0" max="{len(slider.names) - 1}" '
                f'value="{slider.start}" step="1">'
                f'<button type="button" data-by="1" aria-label="forward">›</button>'
                f'<output for="{key}-slider">{html.escape(slider.names[slider.start])}</output>'
                "</div>"
            )
        if data is not None:
            attributes += f' data-window="{html.escape(json.dumps(data))}"'
        lines = ""
        for position, text in enumerate(told):
            seen = frames(position, start) if slider else ""
            lines += f'<p class="{seen}">{"<br>".join(map(rich, text.split(chr(10))))}</p>'
        if said:
            lines += f'<p class="said">{rich(said)}</p>'
        if lines:
            lines = f'<div class="told" aria-live="polite">{lines}</div>'
        source = highlighted(listing(code, call))
        last = html.escape(call.strip().splitlines()[-1], quote=False)
        self.blocks.append(
            f"<figure{attributes}>{control}"
            f'<div class="panels">{"".join(shown)}</div>{lines}'
            f"<figcaption><b>Figure {next(self.figures)}.</b> {rich(' '.join(caption.split()))}"
            f'<details class="call"><summary><span>Made by</span> <code>{last}</code></summary>'
            f'<pre tabindex="0"><code>{source}</code></pre></details></figcaption></figure>'
        )

    def printed(self, text: str) -> None:
        """Add what the library prints."""
        self.blocks.append(
            f'<pre class="print" tabindex="0">{html.escape(text, quote=False)}</pre>'
        )

    def trace(self, trace: calculus.Trace) -> None:
        """Add a trace, as a notebook shows it, in a box that scrolls."""
        # Each picture stands below its array's shape and range, which say in words what can be.
        table = trace._repr_html_().replace('role="img"', 'aria-hidden="true"')
        self.blocks.append(f'<div class="trace" tabindex="0">{table}</div>')

    def html(self, markup: str) -> None:
        """Add HTML as it is."""
        self.blocks.append(markup)

    def __str__(self) -> str:
        return (
            f'<section id="{self.key}"><h2><span class="number">{self.number}</span> '
            f"{html.escape(self.title, quote=False)}</h2>{''.join(self.blocks)}</section>"
        )


def page(title: str, lead: str, facts: Mapping[str, str], chapters: Sequence[Chapter]) -> str:
    """Return the whole page, which needs nothing beside it.

    Parameters
    ----------
    title : str
    lead : str
        What stands under the title, as `rich` takes it.
    facts : mapping of str to str
        What a reader should know of how the page was made.
    chapters : sequence of Chapter
    """
    style, script = (
        files(__package__).joinpath(name).read_text("utf-8") for name in ("style.css", "script.js")
    )
    entries = "".join(
        f'<li><a href="#{chapter.key}">{html.escape(chapter.title, quote=False)}</a></li>'
        for chapter in chapters
    )
    told = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in facts.items()
    )
    paragraphs = "".join(f"<p>{rich(' '.join(p.split()))}</p>" for p in lead.strip().split("\n\n"))
    body = "\n".join(map(str, chapters))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        # No icon, so that no browser asks a server for one.
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title>\n'
        f"<style>\n{style}</style></head>\n<body>"
        '<a class="skip" href="#main">Skip to the text</a>'
        f'<header><h1>{html.escape(title)}</h1><div class="lead">{paragraphs}</div>'
        f'<dl class="facts">{told}</dl></header>\n'
        f'<nav aria-label="Contents"><h2>Contents</h2><ol>{entries}</ol></nav>\n'
        f'<main id="main">{body}</main>\n'
        f"<script>\n{script}</script></body></html>\n"
    )
