"""The benchmark's modules: no import circle, and the same networks as `chainrule.recipes`."""

from __future__ import annotations

import ast
import re
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"

pytestmark = pytest.mark.skipif(not BENCH.is_dir(), reason="bench/ is not beside tests/")


@pytest.fixture(autouse=True)
def source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the folder bench/ importable."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])


def modules() -> dict[str, Path]:
    """Return the files of bench by module name."""
    files = {}
    for path in BENCH.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        files[name.removesuffix(".__init__")] = path
    return files


def imports(name: str, files: dict[str, Path]) -> set[str]:
    """Return the modules of bench that a file imports, at any level, also for annotations."""
    found = set()
    for node in ast.walk(ast.parse(files[name].read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [str(node.module)]
        else:
            continue
        # `from bench.harness import timing` depends on the module, not on the empty package.
        found |= {n for n in names if n in files and files[n].read_text().strip()}
    return found - {name}


def test_no_import_circle() -> None:
    files = modules()
    graph = {name: imports(name, files) for name in files}
    assert "bench.harness.case" in graph["bench.cases.matmul"]
    # Raises CycleError if there is a circle.
    TopologicalSorter(graph).prepare()


def test_networks_equal_recipes() -> None:
    """The neutral table for interpreters without chainrule agrees with the package."""
    from bench.harness.networks import IMAGE, RECIPES
    from bench.peers.step_chainrule import layers_of

    import chainrule as cr

    assert set(RECIPES) == set(cr.recipes.RECIPES)
    for name, network in RECIPES.items():
        recipe = cr.recipes.RECIPES[name].network()
        assert network.layers == layers_of(recipe), name
        assert network.input_shape == recipe.input_shape == IMAGE


def test_notes_of_goals() -> None:
    """Each section that a goal refers to exists in bench/results/notes.md."""
    goals = (BENCH / "report" / "goals.toml").read_text()
    titles = re.findall(r"^## (.*)$", (BENCH / "results/notes.md").read_text(), flags=re.MULTILINE)
    references = re.findall(r'^notes = "(.*)"$', goals, flags=re.MULTILINE)
    assert references
    assert set(references) == set(titles)
