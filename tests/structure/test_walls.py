"""Who may include and import whom: the walls between the rooms, kept by looking at the sources.

The rooms are named in the README under "How it is built". The tests of the C++ walls skip where
only the installed package is at hand.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import chainrule
import reference
from chainrule import ops

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
TESTS = ROOT / "tests"

needs_sources = pytest.mark.skipif(
    not CSRC.is_dir(), reason="csrc/ is not beside tests/: the C++ walls cannot be looked at"
)

# What a file over 500 lines has to say for itself.
LONG_FILES = {
    "python/chainrule/nn/network.py": "the class of all networks, most of it docstrings",
    "python/chainrule/ops.py": "every operation once, most of it docstrings",
    "tests/support/reference.py": "every operation's definition once",
}
LONGEST = 500


def sources(*rooms: str) -> Iterator[Path]:
    for room in rooms or ("",):
        for path in sorted((CSRC / room).rglob("*")):
            if path.suffix in {".cpp", ".h", ".inc", ".def", ".cu", ".cuh"}:
                yield path


def code(path: Path) -> str:
    """A C++ source without its comments and the insides of its string literals."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", path.read_text(), flags=re.DOTALL)
    return re.sub(r'(?<!include )"(?:\\.|[^"\\\n])*"', '""', text)


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), flags=re.MULTILINE)


def offenders(pattern: str, *rooms: str, but: tuple[str, ...] = ()) -> list[str]:
    allowed = [CSRC / room for room in but]
    return [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in sources(*rooms)
        if not any(path.is_relative_to(room) for room in allowed)
        for match in [re.search(pattern, code(path))]
        if match
    ]


@needs_sources
def test_the_sources_are_there() -> None:
    """So that no test below passes because it looked at nothing."""
    kernels = ("cpu/kernels", "cpu/kernels/gemm", "cpu/kernels/conv")
    for room in ("core", "cpu", "cpu/simd", *kernels, "cuda", "bindings"):
        assert list(sources(room)), room


@needs_sources
def test_vector_types_and_intrinsics_only_in_simd() -> None:
    pattern = (
        r"\b_mm\d*_\w+|\b__m(?:128|256|512)\w*|\bv(?:ld1|st1)q?_\w+|\w*intrin\.h|\barm_neon\.h"
        r"|\bvector_size\b"
    )
    assert offenders(pattern, but=("cpu/simd",)) == []
    assert offenders(pattern, "cpu/simd") != []


@needs_sources
def test_python_only_in_bindings() -> None:
    assert offenders(r"pybind11|\bPy[A-Z_]\w+|Python\.h", but=("bindings",)) == []
    assert offenders(r"pybind11", "bindings") != []


@needs_sources
def test_kernels_are_free_of_the_standard_containers() -> None:
    """An inline function of the library, compiled with AVX here, could be linked for everybody."""
    forbidden = {"vector", "algorithm", "string", "functional", "memory", "iostream", "map"}
    for path in sources("cpu/simd", "cpu/kernels"):
        assert not forbidden & set(includes(path)), path.name
    pattern = (
        r"\bstd::(?:vector|string|function|max|min|sort|fill|copy)\b|\bthrow\b|\btry\b|\bnew\b"
    )
    assert offenders(pattern, "cpu/simd", "cpu/kernels") == []


@needs_sources
def test_core_includes_nothing_but_core_and_integers() -> None:
    for path in sources("core"):
        for name in includes(path):
            assert name.startswith("core/") or name in {"cstdint", "cstddef"}, (path.name, name)


@needs_sources
def test_knowledge_runs_one_way() -> None:
    """core <- cpu <- bindings; kernels see core, simd, each other, scratch memory and threads."""
    for path in sources("cpu"):
        for name in includes(path):
            assert not name.startswith(("bindings/", "cuda/")), (path.name, name)
    for path in sources("cpu/kernels"):
        for name in includes(path):
            if "/" in name:
                allowed = ("core/", "cpu/simd/", "cpu/kernels/", "cpu/scratch.h", "cpu/threads.h")
                assert name.startswith(allowed), (path.name, name)
    for path in sources("cpu/kernels/gemm"):
        for name in includes(path):
            assert not name.startswith("cpu/kernels/conv/"), (path.name, name)
    for path in sources("cpu/simd"):
        for name in includes(path):
            assert name.startswith(("core/", "cpu/simd/")) or "/" not in name, (path.name, name)


@needs_sources
def test_the_gpus_room() -> None:
    """cuda sees core and itself; kernels launch through its headers, and allocate nothing."""
    for path in sources("cuda"):
        for name in includes(path):
            allowed = ("core/", "cuda/", "simt/shim.h")
            system = "/" not in name and not name.startswith("cuda")
            api = name.startswith("cuda") and path.name in {"simt.h", "runtime.cpp"}
            assert name.startswith(allowed) or system or api, (path.name, name)
    kernels = [path for path in sources("cuda") if path.suffix == ".cu"]
    assert kernels
    forbidden = r"<<<|\bcuda[A-Z]\w+|\bthrow\b|\bnew\b|\batomicAdd\s*\(\s*\(?(?:float|double)"
    for path in kernels:
        found = re.search(forbidden, code(path))
        assert not found, f"{path.name}: {found and found[0]}"


@needs_sources
def test_only_the_bindings_know_both_devices() -> None:
    for room in ("core", "cpu"):
        for path in sources(room):
            assert not [i for i in includes(path) if i.startswith("cuda")], path.name
    for path in sources("cuda"):
        assert not [i for i in includes(path) if i.startswith(("cpu/", "bindings/"))], path.name
    seam = {
        "cuda/gemm/precision.h",
        "cuda/runtime/limits.h",
        "cuda/runtime/runtime.h",
        "cuda/runtime/stream.h",
    }
    for path in sources("bindings"):
        assert {i for i in includes(path) if i.startswith("cuda")} <= seam, path.name


@needs_sources
def test_nothing_ends_the_process_or_prints() -> None:
    pattern = (
        r"\b(?:_?exit|abort|terminate|quick_exit|printf|fprintf|puts|assert)\s*\(|std::c(?:out|err)"
    )
    assert offenders(pattern) == []


@needs_sources
def test_no_fast_math_and_no_link_time_optimisation() -> None:
    cmake = "\n".join(
        line.split("#")[0] for line in (ROOT / "CMakeLists.txt").read_text().splitlines()
    )
    assert not re.search(r"-ffast-math|-Ofast|-flto|-march=native|-funsafe", cmake)
    assert "INTERPROCEDURAL_OPTIMIZATION OFF" in cmake
    assert offenders(r"fast-math|_MM_SET_FLUSH_ZERO_MODE\b", but=("cpu",)) == []


@needs_sources
def test_one_row_of_files_an_operation() -> None:
    """A kernel, its binding and its test have one basename."""
    kernels = {p.stem for p in (CSRC / "cpu/kernels").glob("*.cpp")} - {"table"}
    assert kernels
    for name in sorted(kernels):
        assert (CSRC / "bindings" / f"{name}.cpp").is_file(), f"csrc/bindings/{name}.cpp"
        assert (TESTS / f"ops/test_{name}.py").is_file(), f"tests/ops/test_{name}.py"


def public() -> set[str]:
    return set(ops.__all__)


def test_every_operation_is_in_all_three() -> None:
    """ops.def, chainrule.ops and the reference name the same operations."""
    listed = set(chainrule._core.op_names())
    assert "conv2d_backward_input" in listed
    assert listed <= public()
    # dropout is its own backward pass: the kernel is the same, only the caller's word differs.
    assert public() - listed == {"dropout_backward"}
    assert all(callable(getattr(reference, name)) for name in public())


def test_same_arguments_as_the_reference() -> None:
    """Names, order and defaults; ops has ``out`` besides, and what spares work."""
    for name in sorted(public()):
        mine = inspect.signature(getattr(ops, name)).parameters
        theirs = inspect.signature(getattr(reference, name)).parameters
        extra = {"out", "need_dx"}
        assert [n for n in mine if n not in extra] == list(theirs), name
        for n, parameter in theirs.items():
            assert mine[n].default == parameter.default, (name, n)
            assert mine[n].kind == parameter.kind, (name, n)
        if name != "sgd":
            assert mine["out"].default is None
            assert mine["out"].kind is inspect.Parameter.KEYWORD_ONLY


def files_of_the_project() -> list[Path]:
    rooms = [TESTS.rglob("*.py"), (ROOT / "python").rglob("*.py"), (ROOT / "bench").rglob("*.py")]
    return [*sources(), *(path for room in rooms for path in room)]


@needs_sources
def test_files_stay_short() -> None:
    for path in files_of_the_project():
        lines = len(path.read_text().splitlines())
        name = str(path.relative_to(ROOT))
        assert lines <= LONGEST or name in LONG_FILES, f"{name} has {lines} lines"


@needs_sources
def test_no_excuses() -> None:
    """Neither unfinished work nor switched-off code lies about."""
    words = ["TO" + "DO", "FIX" + "ME", "XX" + "X", "#if " + "0"]
    for path in files_of_the_project():
        text = path.read_text()
        assert not [word for word in words if word in text], path.name
