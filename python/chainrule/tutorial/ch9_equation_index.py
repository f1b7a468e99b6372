"""Chapter 9: the index from the tutorial's equations to the library's names."""

from __future__ import annotations

import html
import re

import numpy as np

import chainrule as cr
import chainrule.examples  # so that type checkers find cr.examples

from .. import calculus
from .._types import Array
from .exercises import Line, Number, Setting
from .page import Chapter


def _breakable(name: str) -> str:
    """Return a name as HTML with optional line breaks after dots and underscores."""
    return re.sub("([._])", r"\1<wbr>", html.escape(name))


def write(chapter: Chapter, quick: bool) -> None:
    """Fill the chapter."""
    del quick
    chapter.prose(
        f"""
        The index lists all {len(calculus.EQUATIONS)} equations, with the names in `chainrule` that
        implement them. In a program, the list is `cr.calculus.EQUATIONS`. The docstrings cite the
        equation numbers, and a test per equation compares the library with an independent
        computation.
        """
    )
    rows = []
    for equation in calculus.EQUATIONS:
        names = " ".join(
            f"<code>{_breakable(name.replace('chainrule.', 'cr.', 1))}</code>"
            for name in equation.names
        )
        rows.append(
            f'<tr id="index-{equation.number}">'
            f'<td><a href="#eq-{equation.number}">({equation.number})</a></td>'
            f"<td>{html.escape(equation.title, quote=False)}</td><td>{names}</td></tr>"
        )
    chapter.html(
        '<div class="scroll" tabindex="0"><table class="names-table"><thead><tr><th>eq.</th>'
        f"<th>statement</th><th>in code</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
        "</div>"
    )
    _exercises(chapter)


def every_quantity(net: cr.Sequential, x: Array, y: Array) -> cr.calculus.Trace:
    quantities = cr.calculus.trace(net, x, y, cr.SquaredError())
    return quantities


def _exercises(chapter: Chapter) -> None:
    descent = next(each for each in calculus.EQUATIONS if "chainrule.fit" in each.names)
    sizes = [each for each in calculus.EQUATIONS if "chainrule.data.one_hot" in each.names]
    network, x, y = cr.examples.three_unit_network(), np.array([1.0, 2.0]), np.array([1.0])
    chapter.exercises(
        Number(
            "Predict, then look up: what is the number of the equation that `cr.fit` repeats?",
            (descent.number,),
            "Its title is “Gradient descent”.",
            f"Equation ({descent.number}): {descent.title}.",
            answer=descent.number,
        ),
        Setting(
            "Set the number of the equation that `cr.data.one_hot` implements.",
            [each.number for each in sizes],
            "Search the index for the name.",
            f"Equation ({sizes[0].number}): {sizes[0].title}.",
            label="equation",
            names=[f"({each.number})" for each in calculus.EQUATIONS],
            answers=[each.number - 1 for each in sizes],
        ),
        Line(
            """Complete the line, so that it computes every quantity of a training step with its
            equation number.""",
            (14, 21),
            "The figure of the three units was computed by this function of `cr.calculus`.",
            "`print(trace)` shows the quantities, each with its equation number.",
            function=every_quantity,
            blank="trace",
            correct="(22)" in str(every_quantity(network, x, y)),
        ),
    )
