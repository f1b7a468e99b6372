"""The equations of the tutorial, (1) to (67), and the names that compute them here.

The data is in ``equations.toml``. It is read on first use, so that an import stays fast.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from .._optional import importing, lazy_import


@dataclass(frozen=True)
class Equation:
    """One equation of *Machine Learning is Calculus Plus Linear Algebra*, in this notation.

    Attributes
    ----------
    number : int
        The number, 1 to 67.
    section : str
        The part of the tutorial.
    title : str
        The statement of the equation in words.
    latex : str
        The equation in LaTeX.
    names : tuple of str
        The names in the library that compute it. The first is the closest.

    Examples
    --------
    >>> import chainrule as cr
    >>> equation = cr.calculus.equation(16)
    >>> equation.title
    'The derivative of the rectifier, which is 0 at 0'
    >>> equation.latex
    "\\\\sigma'(z) = \\\\mathbf{1}\\\\{z > 0\\\\}"
    >>> equation.resolve() is cr.ops.relu_backward
    True
    """

    number: int
    section: str
    title: str
    latex: str
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        """The closest name, such as "chainrule.ops.relu"."""
        return self.names[0]

    def resolve(self) -> object:
        """Return the object that `name` refers to."""
        return resolve(self.name)


def resolve(name: str) -> object:
    """Return the object of a dotted name. Raise ModuleNotFoundError if it does not exist."""
    parts = name.split(".")
    found: object = lazy_import(parts[0])
    for i, part in enumerate(parts[1:], 1):
        try:
            found = getattr(found, part)
        except AttributeError:
            found = lazy_import(".".join(parts[: i + 1]))
    return found


@functools.cache
def equations() -> tuple[Equation, ...]:
    """Return all equations, in the order of their numbers."""
    # Imported here, because few programs read the equations.
    with importing:
        import tomllib

    data = tomllib.loads(Path(__file__).with_name("equations.toml").read_text(encoding="utf-8"))
    return tuple(
        Equation(
            each["number"],
            section["title"],
            each["title"],
            each["latex"],
            tuple(f"chainrule.{name}" for name in each["names"]),
        )
        for section in data["section"]
        for each in section["equation"]
    )


def equation(number: int) -> Equation:
    """Return the equation with this number.

    Parameters
    ----------
    number : int
        The number, 1 to 67.

    Returns
    -------
    Equation
        The equation.

    Raises
    ------
    KeyError
        If the tutorial has no equation with this number.

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.calculus.equation(37).name
    'chainrule.ops.linear_backward'
    """
    for found in equations():
        if found.number == number:
            return found
    raise KeyError(f"equation: number must be in [1, {len(equations())}], got {number!r}")


def table() -> str:
    """Return all equations as a Markdown table with one line per equation."""
    lines = ["| eq. | statement | name |", "| ---: | --- | --- |"]
    for each in equations():
        names = ", ".join(f"`{name.removeprefix('chainrule.')}`" for name in each.names)
        lines.append(f"| ({each.number}) | {each.title} | {names} |")
    return "\n".join(lines)
