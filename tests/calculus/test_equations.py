"""The list of equations: complete, cited in the docstrings, and printed in the README.

The tests of the equations are in ``test_equations_*.py``. Each is named by its number. Its
right-hand side is a loop of plain Python (`plain_python`), a central difference of such a loop, or
a number that was computed by hand. Its left-hand side is a name that `calculus.EQUATIONS` gives.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chainrule import calculus, ops
from chainrule.calculus.equations import resolve, table

NUMBERS = list(range(1, 68))


def test_no_equation_is_left_out() -> None:
    """Each number has one test in this folder and one entry in the list."""
    tested = [
        int(number)
        for path in Path(__file__).parent.glob("test_equations_*.py")
        for number in re.findall(r"^def test_eq_(\d\d)\(", path.read_text(encoding="utf-8"), re.M)
    ]
    assert sorted(tested) == NUMBERS
    assert [each.number for each in calculus.EQUATIONS] == NUMBERS


def cited(docstring: str) -> set[int]:
    """Return the equations that a docstring cites, such as "(37)" or "(37)-(39)"."""
    ranges = re.findall(r"\((\d+)\)(?:\s*[-–]\s*\((\d+)\))?", docstring)
    return {n for first, last in ranges for n in range(int(first), int(last or first) + 1)}


@pytest.mark.parametrize("number", NUMBERS)
def test_names_exist_and_cite_their_equation(number: int) -> None:
    docstrings = ""
    for name in calculus.equation(number).names:
        found = resolve(name)
        if isinstance(found, float):
            # A field with a default value has no docstring. That of its class cites the equation.
            found = resolve(name.rpartition(".")[0])
        docstrings += f"{found.__doc__} "
    assert number in cited(docstrings)


def test_the_readme_has_the_table() -> None:
    readme = Path(calculus.__file__).with_name("README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- equations: .*? -->\n(.*?)<!-- end of equations -->", readme, re.S)
    assert block is not None
    assert block[1].rstrip("\n") == table()


def test_an_equation_is_found_by_its_number() -> None:
    assert calculus.equation(37).name == "chainrule.ops.linear_backward"
    assert calculus.equation(37).resolve() is ops.linear_backward
    with pytest.raises(KeyError, match=r"equation: number must be in \[1, 67\], got 68"):
        calculus.equation(68)
