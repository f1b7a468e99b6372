"""Rooms of python/chainrule: no import circle, and no import of a room on a higher floor.

A room is a package, or a module directly in python/chainrule. A module may import modules of its
own floor and of lower floors. Imports inside functions and for annotations count too, and so does
``import_module`` of a constant name. Not counted: ``chainrule.examples`` is an attribute of
``__init__``, which imports that higher room when the attribute is first read.
``python tests/structure/test_rooms.py [FOLDER]`` prints rooms, circles and upward imports.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "python/chainrule"
if not SOURCES.is_dir():  # only the installed package is present
    spec = importlib.util.find_spec("chainrule")
    assert spec is not None
    assert spec.origin is not None
    SOURCES = Path(spec.origin).parent

# From the lowest floor to the highest. `_core` is the compiled module.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("_core", "_types", "_validation", "_optional", "_random", "_files"),
    ("ops", "cuda", "program"),
    ("available_memory", "devices", "system"),
    ("nn", "data"),
    ("plots", "calculus"),
    ("training",),
    ("recipes",),
    ("__init__",),
    ("examples",),
    ("tutorial",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

Graph = dict[str, set[str]]


def module_paths(package: Path) -> dict[str, Path]:
    """Return the path of each module by its name in the package: "nn.plan", "nn", "__init__"."""
    paths = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if len(parts) > 1 and parts[-1] == "__init__":
            parts = parts[:-1]
        paths[".".join(parts)] = path
    return paths


def room_of(module: str) -> str:
    """Return the room of a module."""
    return module.partition(".")[0]


def imported_names(path: Path, package: Path) -> set[str]:
    """Return the dotted names that a file imports, relative ones as ``chainrule.x``."""
    parents = ("chainrule", *path.relative_to(package).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else ()
            start = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{start}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            found |= {a.value for a in node.args[:1] if isinstance(a, ast.Constant)}
    return found


def import_graph(package: Path) -> Graph:
    """Return the modules of the package that each module imports."""
    paths = module_paths(package)
    known = {*paths, "_core"}

    def resolve(name: str) -> str | None:
        """Return the module that contains a dotted name. None means another package."""
        first, *rest = name.split(".")
        if first != "chainrule":
            return None
        for length in range(len(rest), 0, -1):
            if ".".join(rest[:length]) in known:
                return ".".join(rest[:length])
        return "__init__"

    graph = {}
    for module, path in paths.items():
        targets = {resolve(name) for name in imported_names(path, package)}
        graph[module] = {target for target in targets if target is not None} - {module}
    return graph


def room_graph(graph: Mapping[str, set[str]]) -> Graph:
    """Return the rooms that each room imports."""
    rooms: Graph = {}
    for module, targets in graph.items():
        room = room_of(module)
        rooms.setdefault(room, set()).update({room_of(target) for target in targets} - {room})
    return rooms


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return the strongly connected components of two or more modules (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in sorted(graph.get(module, ())):
            if target not in index:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            start = stack.index(module)
            if len(stack) - start > 1:
                found.append(sorted(stack[start:]))
            del stack[start:]

    for module in sorted(graph):
        if module not in index:
            visit(module)
    return sorted(found)


def upward_imports(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Return each import from a lower floor to a higher floor, as "a imports b"."""
    return [
        f"{module} imports {target}"
        for module in sorted(graph)
        for target in sorted(graph[module])
        if FLOOR[room_of(target)] > FLOOR[room_of(module)]
    ]


def report(package: Path) -> str:
    """Return rooms by floor, circles and upward imports as text."""
    graph = import_graph(package)
    rooms = {room_of(module) for module in graph}
    lines = [f"{len(graph)} modules in {len(rooms)} rooms on {len(FLOORS)} floors"]
    for floor in reversed(range(len(FLOORS))):
        counts = [
            (room, sum(room_of(module) == room for module in graph)) for room in FLOORS[floor]
        ]
        names = [f"{room} ({count})" if count > 1 else room for room, count in counts]
        lines.append(f"{floor:3}  {', '.join(names)}")
    unknown = sorted(rooms - set(FLOOR))
    both = [*circles(graph), *(c for c in circles(room_graph(graph)) if not unknown)]
    up = upward_imports(graph) if not unknown else []
    for title, items in (
        ("rooms without a floor", unknown),
        ("circles", [" - ".join(circle) for circle in both]),
        ("upward imports", up),
    ):
        lines += [f"{len(items)} {title}", *(f"     {item}" for item in items)]
    return "\n".join(lines)


def test_every_module_has_a_room_and_every_room_exists() -> None:
    rooms = {room_of(module) for module in module_paths(SOURCES)}
    assert rooms == set(FLOOR) - {"_core"}
    assert len(FLOOR) == sum(len(rooms) for rooms in FLOORS), "a room stands on two floors"


def test_no_module_and_no_room_is_in_an_import_circle() -> None:
    graph = import_graph(SOURCES)
    assert circles(graph) == []
    assert circles(room_graph(graph)) == []


def test_no_module_imports_a_higher_room() -> None:
    assert upward_imports(import_graph(SOURCES)) == []


def test_few_modules_lie_directly_in_the_package() -> None:
    assert len(list(SOURCES.glob("*.py"))) <= 14


def test_few_modules_import_the_compiled_core() -> None:
    graph = import_graph(SOURCES)
    importers = {module for module, names in graph.items() if "_core" in names}
    importers = {"ops" if room_of(module) == "ops" else module for module in importers}
    assert "ops" in importers
    assert importers <= {"ops", "program", "nn.training_memory", "cuda", "system", "__init__"}


def test_the_tutorial_uses_public_modules_and_only_the_command_line_imports_it() -> None:
    graph = import_graph(SOURCES)
    importers = {
        module
        for module, names in graph.items()
        if room_of(module) != "tutorial" and "tutorial" in map(room_of, names)
    }
    assert importers == {"cli.tutorial"}
    internal = {"nn.plan", "program", "calculus._passes"}
    for module, names in graph.items():
        if room_of(module) == "tutorial":
            assert not names & internal, module


def test_the_package_runs_no_code_from_data() -> None:
    for module, path in module_paths(SOURCES).items():
        text = path.read_text()
        assert "allow_pickle=True" not in text, module
        imported = {name.partition(".")[0] for name in imported_names(path, SOURCES)}
        assert not imported & {"pickle", "marshal", "shelve"}, module
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, module


def test_circles_and_upward_imports_are_found(tmp_path: Path) -> None:
    """Annotations, imports in functions and whole packages count."""
    files = {
        "__init__.py": "",
        "ops.py": "def f():\n    from .nn import layers\n",
        "cuda.py": "import importlib\n\nimportlib.import_module('chainrule.nn.plan')\n",
        "nn/__init__.py": "",
        "nn/layers.py": "if TYPE_CHECKING:\n    from . import plan\n",
        "nn/plan.py": "from .layers import Layer\nimport chainrule.ops\n",
        "training/__init__.py": "from chainrule import Sequential\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    graph = import_graph(tmp_path)
    assert graph["nn.plan"] == {"nn.layers", "ops"}
    assert circles(graph) == [["nn.layers", "nn.plan", "ops"]]
    assert circles(room_graph(graph)) == [["nn", "ops"]]
    assert upward_imports(graph) == [
        "cuda imports nn.plan",
        "ops imports nn.layers",
        "training imports __init__",
    ]


if __name__ == "__main__":
    print(report(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCES))
