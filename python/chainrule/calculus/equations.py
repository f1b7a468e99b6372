"""The map: every equation of the tutorial, (1) to (67), and the name that realises it here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from .equation_map import MAP


@dataclass(frozen=True)
class Equation:
    """One equation of *Machine Learning is Calculus Plus Linear Algebra*, in our own notation.

    Attributes
    ----------
    number : int, 1 to 67
    section : str, the part of the tutorial
    title : str, what it says
    latex : str, the equation
    names : tuple of str, what realises it in the library; the first is the closest
    """

    number: int
    section: str
    title: str
    latex: str
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        """The closest name, as "chainrule.ops.relu"."""
        return self.names[0]

    def resolve(self) -> object:
        """Return what `name` names."""
        return resolve(self.name)


def resolve(name: str) -> object:
    """Return the object of a dotted name; AttributeError where there is none."""
    parts = name.split(".")
    found: object = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], 1):
        try:
            found = getattr(found, part)
        except AttributeError:
            found = importlib.import_module(".".join(parts[: i + 1]))
    return found


EQUATIONS: tuple[Equation, ...] = tuple(
    Equation(number, section, title, latex, tuple(f"chainrule.{name}" for name in names.split()))
    for section, rows in MAP.items()
    for number, title, latex, names in rows
)


def equation(number: int) -> Equation:
    """Return the equation of that number; KeyError where the tutorial has none."""
    for found in EQUATIONS:
        if found.number == number:
            return found
    raise KeyError(f"the tutorial's equations are numbered 1 to {len(EQUATIONS)}, got {number}")


def table() -> str:
    """Return the map as a Markdown table, one line an equation."""
    lines = ["| eq. | what it says | name |", "| ---: | --- | --- |"]
    for each in EQUATIONS:
        names = ", ".join(f"`{name.removeprefix('chainrule.')}`" for name in each.names)
        lines.append(f"| ({each.number}) | {each.title} | {names} |")
    return "\n".join(lines)
