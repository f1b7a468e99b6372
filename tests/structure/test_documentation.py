"""Every Python block of every README runs, and every example of every docstring.

The blocks of one README run in the order in which they stand, in one namespace and in an empty
folder. To keep this short, trainings run for one epoch and MNIST is the first digits of the
package. A comment before a block names what it requires: ``<!-- requires: cuda -->``.
"""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import calculus, data, examples, ops, plots, recipes
from chainrule.training import loop

ROOT = Path(__file__).resolve().parents[2]
READMES = sorted(
    str(path.relative_to(ROOT))
    for folder, pattern in ((".", ""), ("python", "**/"), ("csrc", "**/"), ("bench", ""))
    for path in (ROOT / folder).glob(f"{pattern}README.md")
)
BLOCK = re.compile(r"^(?:<!-- requires: ([\w, ]+) -->\n)?```python\n(.*?)^```$", re.M | re.S)
# Modules that need an extra of the package, and what else their examples need.
OPTIONAL = {
    "cli": "click",
    "data.images": "PIL",
    "data.table": "sklearn",
    "plots": "matplotlib",
    "tutorial": "matplotlib",
}

needs_sources = pytest.mark.skipif(not READMES, reason="README.md is not beside tests/")


def modules() -> list[str]:
    """Return the names of all modules of the package that can be imported without running."""
    names = [
        info.name
        for info in pkgutil.walk_packages(cr.__path__, "chainrule.")
        if not info.name.endswith("__main__") and info.name != "chainrule._core"
    ]
    return ["chainrule", *names]


def missing(requirement: str) -> bool:
    """Return whether a block's requirement is absent from this machine."""
    if requirement == "cuda":
        return not cr.cuda.is_available()
    return importlib.util.find_spec(requirement) is None


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in an empty folder, train for one epoch, on the first digits of the package."""
    monkeypatch.chdir(tmp_path)
    train, test = data.digits()
    monkeypatch.setattr(data, "mnist", lambda *_, **__: (train[:256], test[:64]))
    original = loop.fit

    def fit(*arguments: Any, **named: Any) -> Any:
        return original(*arguments, **{**named, "epochs": 1, "progress": False})

    monkeypatch.setattr(loop, "fit", fit)
    monkeypatch.setattr(cr, "fit", fit)


@needs_sources
@pytest.mark.parametrize("name", READMES)
@pytest.mark.usefixtures("short")
def test_the_blocks_of_a_readme_run_in_order(name: str) -> None:
    text = (ROOT / name).read_text()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    skipped = set()
    for found in BLOCK.finditer(text):
        absent = {r for r in re.findall(r"\w+", found[1] or "") if missing(r)}
        if absent:
            skipped |= absent
            continue
        # Blank lines, so that a traceback shows the line of the file.
        line = text.count("\n", 0, found.start(2))
        source = "\n" * line + found[2]
        exec(compile(source, str(ROOT / name), "exec"), namespace)
    if skipped:
        pytest.skip(f"blocks of {name} require {', '.join(sorted(skipped))}")


@needs_sources
def test_every_readme_is_looked_at() -> None:
    assert "README.md" in READMES
    text = (ROOT / "README.md").read_text()
    assert len(BLOCK.findall(text)) >= 3
    assert text.count("```python") == len(BLOCK.findall(text))


def doctests(module: str) -> Iterator[doctest.DocTest]:
    """Yield the examples of a module's own docstrings."""
    for found in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module)):
        if found.examples:
            yield found


@pytest.mark.parametrize("module", modules())
def test_the_examples_of_docstrings_run(
    module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    part = module.split(".")[1] if "." in module else ""
    for name in (part, module.removeprefix("chainrule.")):
        if name in OPTIONAL:
            pytest.importorskip(OPTIONAL[name])
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=flags, verbose=False)
    report: list[str] = []
    for found in doctests(module):
        # From an empty namespace: an example shows the imports that it needs.
        found.globs = {"__name__": "__main__"}
        with np.printoptions():
            runner.run(found, out=report.append)
    assert not report, "".join(report)


def public() -> dict[str, Any]:
    """Return every public object by its name."""
    found = {f"chainrule.{name}": getattr(cr, name) for name in cr.__all__}
    for module in (ops, calculus, data, examples, plots, recipes):
        for name in module.__all__:
            found[f"{module.__name__}.{name}"] = getattr(module, name)
    return {
        name: value
        for name, value in found.items()
        if callable(value) and getattr(value, "__module__", "").startswith("chainrule")
    }


@pytest.mark.parametrize("name", sorted(public()))
def test_every_public_name_has_an_example(name: str) -> None:
    assert ">>>" in (public()[name].__doc__ or ""), f"{name} has no example in its docstring"


@needs_sources
def test_the_main_readme_is_short_and_plain() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    for sentence in sentences(text):
        assert len(sentence.split()) <= 30, sentence


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a Markdown text, without code blocks, tables and comments."""
    text = re.sub(r"^```.*?^```$", "\n\n", text, flags=re.M | re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r"^\|.*$", "\n", text, flags=re.M)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for paragraph in re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.|#+) ", text, flags=re.M):
        yield from re.split(r"(?<=[.:!?]) +(?=[A-Z`*])", " ".join(paragraph.split()))


def test_a_block_that_fails_is_seen() -> None:
    """The pattern finds blocks and their requirements, and reports a failing line."""
    text = "text\n<!-- requires: cuda -->\n```python\nx = 1\n```\n\n```python\ny = 2\n```\n"
    assert BLOCK.findall(text) == [("cuda", "x = 1\n"), ("", "y = 2\n")]
