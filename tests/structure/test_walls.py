"""Rules of the C++ folders, one row of files per operation, and short files.

`test_rooms.py` has the import rules of the Python package. Tests of the sources are skipped if only
the installed package is present.
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

needs_sources = pytest.mark.skipif(not CSRC.is_dir(), reason="csrc/ is not beside tests/")

LONGEST = 500  # lines of a file


def sources(*folders: str) -> Iterator[Path]:
    """Yield the C++ and CUDA sources of some folders of csrc, or of all."""
    for folder in folders or ("",):
        for path in sorted((CSRC / folder).rglob("*")):
            if path.suffix in {".cpp", ".h", ".inc", ".def", ".cu", ".cuh"}:
                yield path


def code(path: Path) -> str:
    """Return a C++ source without comments and without the content of string literals."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", path.read_text(), flags=re.DOTALL)
    return re.sub(r'(?<!include )"(?:\\.|[^"\\\n])*"', '""', text)


def includes(path: Path) -> list[str]:
    """Return the headers that a source includes, as written."""
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), flags=re.MULTILINE)


def violations(pattern: str, *folders: str, allowed: tuple[str, ...] = ()) -> list[str]:
    """Return "file: match" for each source that matches, except in allowed folders."""
    skipped = [CSRC / folder for folder in allowed]
    return [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in sources(*folders)
        if not any(path.is_relative_to(folder) for folder in skipped)
        for match in [re.search(pattern, code(path))]
        if match
    ]


@needs_sources
def test_each_folder_has_sources() -> None:
    """Otherwise the tests below would check nothing."""
    kernels = ("cpu/kernels", "cpu/kernels/gemm", "cpu/kernels/conv")
    for folder in ("core", "cpu", "cpu/simd", *kernels, "cuda", "bindings"):
        assert list(sources(folder)), folder


@needs_sources
def test_vector_types_and_intrinsics_only_in_simd() -> None:
    pattern = (
        r"\b_mm\d*_\w+|\b__m(?:128|256|512)\w*|\w*intrin\.h"
        r"|\bv[a-z]\w*q?_[fsu](?:8|16|32|64)\b|\b(?:float|u?int)\d+x\d+_t\b|\barm_neon\.h"
        r"|\bvector_size\b|\bext_vector_type\b"
    )
    assert violations(pattern, allowed=("cpu/simd",)) == []
    assert violations(pattern, "cpu/simd") != []


@needs_sources
def test_python_only_in_bindings() -> None:
    assert violations(r"pybind11|\bPy[A-Z_]\w+|Python\.h", allowed=("bindings",)) == []
    assert violations(r"pybind11", "bindings") != []


@needs_sources
def test_kernels_are_free_of_the_standard_containers() -> None:
    """The linker could use a standard inline function compiled with AVX in code for any CPU."""
    forbidden = {"vector", "algorithm", "string", "functional", "memory", "iostream", "map"}
    for path in sources("cpu/simd", "cpu/kernels"):
        assert not forbidden & set(includes(path)), path.name
    pattern = (
        r"\bstd::(?:vector|string|function|max|min|sort|fill|copy)\b|\bthrow\b|\btry\b|\bnew\b"
    )
    assert violations(pattern, "cpu/simd", "cpu/kernels") == []


@needs_sources
def test_core_includes_nothing_but_core_and_integers() -> None:
    for path in sources("core"):
        for name in includes(path):
            assert name.startswith("core/") or name in {"cstdint", "cstddef"}, (path.name, name)


@needs_sources
def test_no_header_of_a_higher_folder_is_included() -> None:
    """core <- cpu <- bindings; kernels include core, simd, each other and parts of the runtime."""
    for path in sources("cpu"):
        for name in includes(path):
            assert not name.startswith(("bindings/", "cuda/")), (path.name, name)
    for path in sources("cpu/kernels"):
        for name in includes(path):
            if "/" in name:
                runtime = ("cpu/convolution_precision.h", "cpu/scratch.h", "cpu/threads.h")
                allowed = ("core/", "cpu/simd/", "cpu/kernels/", *runtime)
                assert name.startswith(allowed), (path.name, name)
    for path in sources("cpu/kernels/gemm"):
        for name in includes(path):
            assert not name.startswith("cpu/kernels/conv/"), (path.name, name)
    for path in sources("cpu/simd"):
        for name in includes(path):
            assert name.startswith(("core/", "cpu/simd/")) or "/" not in name, (path.name, name)


@needs_sources
def test_cuda_sources_include_core_and_cuda_only() -> None:
    """Kernels are launched through the headers of csrc/cuda, and allocate nothing."""
    for path in sources("cuda"):
        for name in includes(path):
            allowed = ("core/", "cuda/", "simt/shim.h")
            system = "/" not in name and not name.startswith("cuda")
            api = name.startswith("cuda") and path.name in {"simt.h", "runtime.cpp"}
            assert name.startswith(allowed) or system or api, (path.name, name)
    kernels = [path for path in sources("cuda") if path.suffix == ".cu"]
    assert kernels
    forbidden = r"<<<|\bcuda[A-Z]\w+|\bthrow\b|\bnew\b"
    for path in kernels:
        found = re.search(forbidden, code(path))
        assert not found, f"{path.name}: {found and found[0]}"
    # The order of a sum of floats must not depend on the schedule of threads.
    assert violations(r"\batomicAdd\s*\(\s*\(?(?:float|double)", "cuda") == []


@needs_sources
def test_only_the_bindings_include_both_devices() -> None:
    for folder in ("core", "cpu"):
        for path in sources(folder):
            assert not [i for i in includes(path) if i.startswith("cuda")], path.name
    for path in sources("cuda"):
        assert not [i for i in includes(path) if i.startswith(("cpu/", "bindings/"))], path.name
    allowed = {
        "cuda/gemm/precision.h",
        "cuda/runtime/limits.h",
        "cuda/runtime/runtime.h",
        "cuda/runtime/stream.h",
    }
    for path in sources("bindings"):
        assert {i for i in includes(path) if i.startswith("cuda")} <= allowed, path.name


@needs_sources
def test_nothing_ends_the_process_or_prints() -> None:
    pattern = (
        r"\b(?:_?exit|abort|terminate|quick_exit|printf|fprintf|puts|assert)\s*\(|std::c(?:out|err)"
    )
    assert violations(pattern) == []


@needs_sources
def test_no_fast_math_and_no_link_time_optimization() -> None:
    cmake = "\n".join(
        line.split("#")[0] for line in (ROOT / "CMakeLists.txt").read_text().splitlines()
    )
    assert not re.search(r"-ffast-math|-Ofast|-flto|-march=native|-funsafe", cmake)
    assert "INTERPROCEDURAL_OPTIMIZATION OFF" in cmake
    assert violations(r"fast-math|_MM_SET_FLUSH_ZERO_MODE\b", allowed=("cpu",)) == []


@needs_sources
def test_one_row_of_files_per_operation() -> None:
    """Kernel, CUDA kernel, binding and test of an operation have one basename."""
    kernels = {p.stem for p in (CSRC / "cpu/kernels").glob("*.cpp")} - {"table"}
    assert kernels
    for name in sorted(kernels):
        assert (CSRC / f"cuda/{name}.cu").is_file(), f"csrc/cuda/{name}.cu"
        assert (CSRC / f"bindings/{name}.cpp").is_file(), f"csrc/bindings/{name}.cpp"
        assert (TESTS / f"ops/test_{name}.py").is_file(), f"tests/ops/test_{name}.py"


def public_operations() -> set[str]:
    return set(ops.__all__)


def test_every_operation_is_in_all_three() -> None:
    """ops.def, chainrule.ops and the reference name the same operations."""
    listed = set(chainrule._core.op_names())
    assert "conv2d_backward_input" in listed
    assert listed <= public_operations()
    # The backward pass of dropout is the same kernel as the forward pass.
    assert public_operations() - listed == {"dropout_backward"}
    assert all(callable(getattr(reference, name)) for name in public_operations())


def test_same_arguments_as_the_reference() -> None:
    """Names, order and defaults are equal, except for ``out`` and ``need_dx`` of ops."""
    for name in sorted(public_operations()):
        parameters = inspect.signature(getattr(ops, name)).parameters
        expected = inspect.signature(getattr(reference, name)).parameters
        extra = {"out", "need_dx"}
        assert [n for n in parameters if n not in extra] == list(expected), name
        for n, parameter in expected.items():
            assert parameters[n].default == parameter.default, (name, n)
            assert parameters[n].kind == parameter.kind, (name, n)
        if name not in ("sgd", "adam"):
            assert parameters["out"].default is None
            assert parameters["out"].kind is inspect.Parameter.KEYWORD_ONLY


def all_sources() -> list[Path]:
    """Return all files of source code."""
    found = [*sources(), *(TESTS / "simt").glob("*"), *(ROOT / ".ci").glob("*")]
    for folder in ("tests", "python", "bench"):
        for suffix in ("py", "js", "css", "cpp", "sh"):
            found += (ROOT / folder).rglob(f"*.{suffix}")
    return sorted({ROOT / "CMakeLists.txt", *(path for path in found if path.is_file())})


@needs_sources
def test_files_stay_short() -> None:
    for path in all_sources():
        lines = len(path.read_text().splitlines())
        assert lines <= LONGEST, f"{path.relative_to(ROOT)} has {lines} lines"


@needs_sources
def test_no_unfinished_work_and_no_disabled_code() -> None:
    words = ["TO" + "DO", "FIX" + "ME", "XX" + "X", "#if " + "0"]
    for path in all_sources():
        text = path.read_text()
        assert not [word for word in words if word in text], path.name
