"""Plant the faults of `faults.toml` one by one, and count those that the tests notice.

``python tests/planted_faults/run.py [WORD ...]`` copies the repository, builds it with the CUDA
kernels on the CPU, and runs the tests that each fault names. A WORD selects faults by a part of
their name or file. It takes about an hour on 2 cores. Requirements: the development tools and the
build requirements of pyproject.toml.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("faults.toml")
WANTED = 0.95
# A fault can make a test hang. The slowest file takes a tenth of this.
TIMEOUT = 900
ON_X86 = platform.machine() in ("x86_64", "AMD64")

# The copy has two backends in place of four, and less optimization: a fault in a header of the
# kernels is then compiled in a quarter of the time.
FASTER_BUILD = (
    ("CMakeLists.txt", "set(optimization -O3)", "set(optimization -O1)"),
    (
        "CMakeLists.txt",
        "  cpu_backend(avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma)\n",
        "",
    ),
    ("CMakeLists.txt", "  cpu_backend(sse2)\n", ""),
    ("CMakeLists.txt", "cpu_backend(scalar)", "cpu_backend(scalar -O0)"),
    ("csrc/cpu/dispatch.cpp", "CR_DECLARE(sse2)\n", ""),
    ("csrc/cpu/dispatch.cpp", "CR_DECLARE(avx512)\n", ""),
    ("csrc/cpu/dispatch.cpp", "    {&sse2::backend, [] { return true; }},\n", ""),
    ("csrc/cpu/dispatch.cpp", "{&avx512::backend,", "{&avx2::backend,"),
)


@dataclass(frozen=True)
class Fault:
    """One replacement of a text in a file, and the tests that must notice it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def is_compiled(self) -> bool:
        return self.file.startswith("csrc/")

    @property
    def on_gpu(self) -> bool:
        return self.file.startswith("csrc/cuda/")


def faults() -> list[Fault]:
    """Return the list."""
    entries = tomllib.loads(LIST.read_text())["fault"]
    return [Fault(**entry | {"tests": tuple(entry["tests"])}) for entry in entries]


def occurrences(root: Path) -> dict[str, int]:
    """Return how often the old text of each fault and of the faster build occurs, by its name."""
    counts = {fault.name: (root / fault.file).read_text().count(fault.old) for fault in faults()}
    for file, old, _ in FASTER_BUILD:
        counts[f"{file}: {old}"] = (root / file).read_text().count(old)
    return counts


class Copy:
    """A copy of the repository with its own build. Files that have not changed keep their time."""

    def __init__(self, folder: Path, prefix: list[str]) -> None:
        self.prefix = prefix
        self.root, self.build, self.clean = (
            folder / name for name in ("copy", "build", "clean_build")
        )
        names = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.split("\0")
        for name in filter(None, names):
            content = (ROOT / name).read_bytes()
            for file, old, new in FASTER_BUILD if ON_X86 else ():
                if file == name:
                    content = content.replace(old.encode(), new.encode())
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_bytes() != content:
                path.write_bytes(content)
        for library in (ROOT / "python/chainrule").glob("_core*.so"):
            self.install(library)

    def install(self, library: Path) -> None:
        """Copy a compiled library. It is replaced, not overwritten: it may be in use."""
        target = self.root / "python/chainrule" / library.name
        target.unlink(missing_ok=True)
        shutil.copy2(library, target)

    def replace(self, file: str, old: str, new: str) -> None:
        path = self.root / file
        text = path.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{file}: text must occur once, got {text.count(old)}: {old}")
        path.write_text(text.replace(old, new))

    def configure(self) -> None:
        pybind11 = subprocess.run(
            [sys.executable, "-m", "pybind11", "--cmakedir"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        options = {
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_CXX_FLAGS_RELEASE": "-O1",  # the kernels have flags of their own
            "CHAINRULE_SIMT": "ON",
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11,
        }
        defined = [f"-D{name}={value}" for name, value in options.items()]
        command = ["cmake", "-S", self.root, "-B", self.build, "-G", "Ninja", *defined]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def compile(self) -> None:
        done = subprocess.run(
            [*self.prefix, "cmake", "--build", self.build, "--parallel", "2"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"the build failed:\n{done.stdout[-3000:]}")
        for library in self.build.glob("_core*.so"):
            self.install(library)

    def failure(self, tests: tuple[str, ...], on_gpu: bool) -> str:
        """Run tests. Return "" if they pass, else the first failure, a crash or a hang."""
        pytest = [sys.executable, "-m", "pytest"]
        command = [*self.prefix, *pytest, "-q", "-x", "-p", "no:cacheprovider", *tests]
        environment = os.environ | {
            "PYTHONPATH": str(self.root / "python"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CHAINRULE_TEST_CUDA": "1" if on_gpu else "0",
        }
        if ON_X86:
            environment["CHAINRULE_BACKEND"] = "avx2"
        if on_gpu:
            command += ["-k", "cuda"]
        try:
            done = subprocess.run(
                command,
                cwd=self.root,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            return "hang"
        if done.returncode > 1:
            raise RuntimeError(f"pytest could not run {tests}:\n{done.stdout[-3000:]}")
        if done.returncode < 0:
            return f"signal {-done.returncode}"
        failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return "" if done.returncode == 0 else (failed or ["failed"])[0]

    def noticed_by(self, fault: Fault) -> str:
        """Return the first failure of a fault's tests, or "" if they pass. Undo the fault."""
        path = self.root / fault.file
        text, stat = path.read_text(), path.stat()
        try:
            self.replace(fault.file, fault.old, fault.new)
            if fault.is_compiled:
                self.compile()
            return self.failure(fault.tests, fault.on_gpu)
        finally:
            path.write_text(text)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            if fault.is_compiled:
                # With the old times of the source and of the objects, nothing is compiled again.
                shutil.rmtree(self.build)
                shutil.copytree(self.clean, self.build)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="parts of names or files: default all faults")
    parser.add_argument("--folder", help="folder for the copy and its build, which are kept")
    parser.add_argument("--prefix", default="", help='command before each step, as "nice -n 9"')
    parser.add_argument(
        "--skip-baseline", action="store_true", help="do not run the tests without a fault first"
    )
    arguments = parser.parse_args()
    chosen = [
        fault
        for fault in faults()
        if not arguments.words
        or any(word in fault.name or word in fault.file for word in arguments.words)
    ]
    survivors = []
    with tempfile.TemporaryDirectory() as temporary:
        copy = Copy(Path(arguments.folder or temporary).resolve(), arguments.prefix.split())
        if any(fault.is_compiled for fault in chosen):
            copy.configure()
            copy.compile()
            shutil.rmtree(copy.clean, ignore_errors=True)
            shutil.copytree(copy.build, copy.clean)
        for on_gpu in () if arguments.skip_baseline else (False, True):
            tests = sorted({t for fault in chosen if fault.on_gpu == on_gpu for t in fault.tests})
            if tests and (failure := copy.failure(tuple(tests), on_gpu)):
                raise RuntimeError(f"the tests must pass without a fault, got {failure}")
        for number, fault in enumerate(chosen, 1):
            started = time.monotonic()
            failure = copy.noticed_by(fault)
            if not failure:
                survivors.append(fault)
            print(
                f"{number:2}/{len(chosen)} {time.monotonic() - started:4.0f} s  {fault.file}: "
                f"{fault.name}: {failure or 'SURVIVED'}",
                flush=True,
            )
    caught_count = len(chosen) - len(survivors)
    print(f"{caught_count} of {len(chosen)} faults caught")
    for fault in survivors:
        print(f"survived: {fault.name} ({fault.file}; {', '.join(fault.tests)})")
    return caught_count < WANTED * len(chosen)


if __name__ == "__main__":
    sys.exit(main())
