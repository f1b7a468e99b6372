"""Build the page: chapters of prose, equations, figures and tables in one HTML file."""

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
from .exercises import Exercise, exercises
from .listing import highlighted, listing
from .markup import rich
from .svg import dark_filter, page_color, svg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

__all__ = ["Chapter", "Panel", "Slider", "page"]


@dataclass(frozen=True)
class Panel:
    """One picture of a figure. Panels are laid out in a row, on a phone in a column.

    Attributes
    ----------
    picture : Figure
        The matplotlib figure.
    alt : str
        Text alternative.
    kind : str
        CSS classes.
    label : str
        Text above the picture, in the markup of `rich`.
    position : int, optional
        The only slider position at which the panel is visible. The default is all positions.
    """

    picture: Figure
    alt: str
    kind: str = ""
    label: str = ""
    position: int | None = None


@dataclass(frozen=True)
class Slider:
    """A slider above a figure.

    Attributes
    ----------
    label : str
        The quantity that it sets.
    names : sequence of str
        Text per position.
    start : int
        Initial position.
    static : int, optional
        Position without a script, and in print if the slider was not moved. The default is
        `start`.
    """

    label: str
    names: Sequence[str]
    start: int = 0
    static: int | None = None


def frames(position: int, start: int) -> str:
    """Return class and data attributes of an element that is visible at one slider position."""
    return f' frame{" on" * (position == start)}" data-from="{position}" data-to="{position}'


def _page_style(match: re.Match[str]) -> str:
    """Return a style attribute that replaces the color attributes of an SVG element."""
    colors = re.findall(r'(\w+)="#(\w+)"', match[0])
    long = [(kind, d if len(d) == 6 else "".join(2 * each for each in d)) for kind, d in colors]
    return f'style="{"; ".join(page_color(f"#{digits}", kind) for kind, digits in long)}" '


@dataclass
class Chapter:
    """One section of the page. Each method appends to it.

    Attributes
    ----------
    key : str
        Anchor.
    title : str
    number : int
    figures : iterator of int
        Figure numbers, shared by all chapters.
    blocks : list of str
        HTML of the section so far.
    """

    key: str
    title: str
    number: int
    figures: Iterator[int] = field(default_factory=lambda: count(1))
    blocks: list[str] = field(default_factory=list)

    def prose(self, text: str) -> None:
        """Add paragraphs in the markup of `rich`, separated by blank lines."""
        for paragraph in re.split(r"\n\s*\n", text.strip()):
            self.blocks.append(f"<p>{rich(' '.join(paragraph.split()))}</p>")

    def heading(self, text: str) -> None:
        """Add a subheading."""
        self.blocks.append(f"<h3>{rich(text)}</h3>")

    def equations(self, *numbers: int) -> None:
        """Add equations by number, followed by the names that implement them."""
        rows: list[str] = []
        names: list[str] = []
        for number in numbers:
            equation = calculus.equation(number)
            lines = "".join(
                f'<div class="line">{line}</div>' for line in mathml.lines(equation.latex)
            )
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
        notes: Sequence[str] = (),
        readout: str = "",
        data: object = None,
    ) -> None:
        """Add a figure.

        Parameters
        ----------
        key : str
            Unique name of the figure.
        *panels : Panel or str
            Pictures, or HTML between them.
        caption : str
            In the markup of `rich`.
        code : sequence of callable
            Functions that computed the figure. The page shows their source.
        call : str
            Code that calls them.
        slider : Slider, optional
            Selects the visible frame of the panels.
        notes : sequence of str
            One text per slider position, or one text for a figure without a slider.
        readout : str
            Initial text of a line that the script updates when the pointer moves over a panel.
        data : JSON-serializable, optional
            Numbers from which the script computes the readout.
        """
        start = 0
        if slider:
            start = slider.start if slider.static is None else slider.static
        shown = []
        for index, panel in enumerate(panels):
            if isinstance(panel, str):
                shown.append(panel)
                continue
            picture = svg(panel.picture, f"{key}{index}", panel.alt, start)
            kind = " ".join(["panel", *panel.kind.split()])
            label = f'<div class="label">{rich(panel.label)}</div>' if panel.label else ""
            visible = "" if panel.position is None else frames(panel.position, start)
            shown.append(f'<div class="{kind}{visible}">{label}{picture}</div>')
        attributes = f' id="fig-{key}"'
        control = ""
        if slider:
            names = html.escape(json.dumps(list(slider.names), ensure_ascii=False))
            attributes += f' data-slider="{names}" data-static="{start}"'
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
        for position, text in enumerate(notes):
            visible = frames(position, start) if slider else ""
            lines += f'<p class="{visible}">{"<br>".join(map(rich, text.split(chr(10))))}</p>'
        if readout:
            lines += f'<p class="readout">{rich(readout)}</p>'
        if lines:
            lines = f'<div class="notes" aria-live="polite">{lines}</div>'
        source = highlighted(listing(code, call))
        last = html.escape(call.strip().splitlines()[-1], quote=False)
        self.blocks.append(
            f"<figure{attributes}>{control}"
            f'<div class="panels">{"".join(shown)}</div>{lines}'
            f"<figcaption><b>Figure {next(self.figures)}.</b> {rich(' '.join(caption.split()))}"
            f'<details class="call"><summary><span>Code:</span> <code>{last}</code></summary>'
            f'<pre tabindex="0"><code>{source}</code></pre></details></figcaption></figure>'
        )

    def exercises(self, *items: Exercise) -> None:
        """Add the exercises at the end of the chapter."""
        self.blocks.append(exercises(self.key, items))

    def output(self, text: str) -> None:
        """Add printed output of the library."""
        self.blocks.append(
            f'<pre class="output" tabindex="0">{html.escape(text, quote=False)}</pre>'
        )

    def trace(self, trace: calculus.Trace) -> None:
        """Add a trace as a notebook shows it, in a scrollable box."""
        # Hide the thumbnails from screen readers: the text above each gives shape and range.
        table = trace._repr_html_().replace('role="img"', 'aria-hidden="true"')
        table = re.sub(r'(?:\b(?:fill|stroke)="#[0-9a-f]+" ?)+', _page_style, table)
        self.blocks.append(f'<div class="trace" tabindex="0">{table}</div>')

    def html(self, markup: str) -> None:
        """Add HTML without escaping."""
        self.blocks.append(markup)

    def __str__(self) -> str:
        return (
            f'<section id="{self.key}"><h2><span class="number">{self.number}</span> '
            f"{html.escape(self.title, quote=False)}</h2>{''.join(self.blocks)}</section>"
        )


def _dark_colors(style: str) -> dict[str, str]:
    """Return the colors of the dark scheme by CSS variable."""
    dark = style[style.index("(prefers-color-scheme: dark)") :]
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", dark[: dark.index("}")]))


def page(title: str, lead: str, facts: Mapping[str, str], chapters: Sequence[Chapter]) -> str:
    """Return the whole page, without references to other files.

    Parameters
    ----------
    title : str
    lead : str
        Paragraphs below the title, in the markup of `rich`.
    facts : mapping of str to str
        How the page was computed: name and value.
    chapters : sequence of Chapter
    """
    style, script = (
        files(__package__).joinpath(name).read_text("utf-8") for name in ("style.css", "script.js")
    )
    entries = "".join(
        f'<li><a href="#{chapter.key}">{html.escape(chapter.title, quote=False)}</a></li>'
        for chapter in chapters
    )
    rows = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in facts.items()
    )
    paragraphs = "".join(f"<p>{rich(' '.join(p.split()))}</p>" for p in lead.strip().split("\n\n"))
    body = "\n".join(map(str, chapters))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        # An empty icon: the browser does not request one from a server.
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title>\n'
        f"<style>\n{style}</style></head>\n<body>"
        '<svg width="0" height="0" aria-hidden="true" style="position: absolute">'
        '<filter id="palette" color-interpolation-filters="sRGB">'
        f'<feColorMatrix values="{dark_filter(_dark_colors(style))}"/></filter></svg>'
        '<a class="skip" href="#main">Skip to content</a>'
        f'<header><h1>{html.escape(title)}</h1><div class="lead">{paragraphs}</div>'
        f'<dl class="facts">{rows}</dl></header>\n'
        f'<nav aria-label="Contents"><h2>Contents</h2><ol>{entries}</ol></nav>\n'
        f'<main id="main">{body}</main>\n'
        f"<script>\n{script}</script></body></html>\n"
    )
