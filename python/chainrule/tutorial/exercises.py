"""Exercises at the end of a chapter, which the page checks in the browser.

The right answers are computed when the page is made. A line of code to complete is the first line
of a function, which is run. Without a script, the page shows the questions and the answers to open.
"""

from __future__ import annotations

import html
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .markup import rich

__all__ = ["Exercise", "Line", "Number", "Setting", "exercises"]


@dataclass(frozen=True)
class Exercise:
    """A question, and what the reader sees after an answer.

    Attributes
    ----------
    question : str
        In the markup of `rich`.
    uses : sequence of int
        The equations that the answer requires.
    hint : str
        Shown after a wrong answer.
    solution : str
        Shown after the right answer, or when the reader opens it.
    """

    question: str
    uses: Sequence[int]
    hint: str
    solution: str

    def check(self) -> dict[str, object]:
        """Return the data by which the script checks an answer."""
        raise NotImplementedError

    def controls(self, key: str) -> str:
        """Return the HTML of the input, whose id is `key`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Number(Exercise):
    """A number to predict.

    Attributes
    ----------
    answer : float
    within : float
        The largest accepted difference.
    """

    answer: float
    within: float = 1e-9

    def check(self) -> dict[str, object]:
        return {"kind": "number", "answer": self.answer, "within": self.within}

    def controls(self, key: str) -> str:
        return (
            f'<label for="{key}">Your number</label>'
            f'<input id="{key}" type="text" inputmode="text" size="10" autocomplete="off">'
        )


@dataclass(frozen=True)
class Setting(Exercise):
    """A slider to set.

    Attributes
    ----------
    label : str
        The quantity that the slider sets.
    names : sequence of str
        Text per position.
    answers : sequence of int
        The right positions.
    """

    label: str
    names: Sequence[str]
    answers: Sequence[int]

    def check(self) -> dict[str, object]:
        return {"kind": "setting", "answers": list(self.answers), "names": list(self.names)}

    def controls(self, key: str) -> str:
        positions = range(len(self.names))
        if not self.answers or not set(self.answers) < set(positions):
            raise ValueError(
                f"tutorial: some of {len(self.names)} positions must be right and some wrong, got "
                f"{list(self.answers)}"
            )
        start = next(position for position in positions if position not in self.answers)
        return (
            f'<label for="{key}">{rich(self.label)}</label>'
            f'<input id="{key}" type="range" min="0" max="{len(self.names) - 1}" step="1" '
            f'value="{start}" aria-valuetext="{html.escape(self.names[start])}">'
            f'<output for="{key}">{html.escape(self.names[start])}</output>'
        )


@dataclass(frozen=True)
class Line(Exercise):
    """A line of code to complete.

    Attributes
    ----------
    function : callable
        A function of this package. The reader completes the first line of its body.
    blank : str
        The part of this line that the reader writes.
    correct : bool
        Whether a run of the function gave the result that the question describes.
    """

    function: Callable[..., Any]
    blank: str
    correct: bool

    def parts(self) -> tuple[str, str]:
        """Return the code before and after the blank."""
        line = inspect.getsource(self.function).splitlines()[1].strip()
        if not self.correct or line.count(self.blank) != 1:
            raise RuntimeError(
                f"tutorial: a line must contain {self.blank!r} once and be correct, got {line!r}"
            )
        before, _, after = line.partition(self.blank)
        return before, after

    def check(self) -> dict[str, object]:
        return {"kind": "line", "answers": [self.blank]}

    def controls(self, key: str) -> str:
        before, after = (html.escape(part, quote=False) for part in self.parts())
        return (
            f'<label for="{key}">The missing code</label><pre><code>{before}<input id="{key}" '
            f'type="text" size="{len(self.blank) + 2}" autocomplete="off" autocapitalize="off" '
            f'spellcheck="false">{after}</code></pre>'
        )


def exercises(key: str, items: Sequence[Exercise]) -> str:
    """Return the HTML of a chapter's exercises.

    Parameters
    ----------
    key : str
        The chapter's anchor.
    items : sequence of Exercise
    """
    rows = []
    for index, item in enumerate(items, 1):
        name = f"{key}-exercise-{index}"
        solution = f"`{item.blank}`: {item.solution}" if isinstance(item, Line) else item.solution
        data = {**item.check(), "hint": rich(item.hint), "solution": rich(solution)}
        links = ", ".join(f'<a href="#index-{number}">({number})</a>' for number in item.uses)
        plural = "Equation" if len(item.uses) == 1 else "Equations"
        rows.append(
            f'<li><form class="exercise" data-check="{html.escape(json.dumps(data))}">'
            f"<p>{rich(' '.join(item.question.split()))}</p>"
            f'<div class="controls {data["kind"]}">{item.controls(name)}'
            f'<button type="submit">Check</button></div>'
            f'<p class="verdict" role="status"></p>'
            f'<p class="uses">{plural} used: {links} in the index.</p>'
            f'<details class="solution"><summary>Answer</summary><p>{data["solution"]}</p>'
            "</details></form></li>"
        )
    return (
        f'<div class="exercises"><h3 id="{key}-exercises">Exercises</h3><ol>{"".join(rows)}</ol>'
        "</div>"
    )
