"""``.ci/check_kernels.py`` on canned dumps: each defect is reported with its kernel's name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "check_kernels.py"
pytestmark = [
    pytest.mark.skipif(not SCRIPT.is_file(), reason=".ci/ is not beside tests/"),
    pytest.mark.skipif(shutil.which("c++filt") is None, reason="c++filt demangles kernel names"),
]
ARCHITECTURES = ("sm_80", "sm_90a", "sm_100")

PLAIN = "_ZN9chainrule4cuda10relu_floatIfEEvPKT_PS2_l"
FULL = (
    "_ZN9chainrule4cuda11gemm_kernelIfNS0_4TileIfLi2ELi2ELi1ELb0EEENS0_12MatrixLoaderIfLb1EEENS4_"
    "IfLb0EEENS0_12MatrixOutputIfEEEEvT1_T2_T3_NS0_13TilePartitionEPT_"
)
TF32 = FULL.replace("Lb0EEENS0_12MatrixLoaderIfLb1", "Lb1EEENS0_12MatrixLoaderIfLb1", 1)
NAMES = {PLAIN: "relu_float<float>", FULL: "1, false>, ", TF32: "1, true>, "}


@dataclass(frozen=True)
class Kernel:
    """A kernel on sm_90a. On the other architectures the good kernel of this name is used."""

    name: str
    opcodes: tuple[str, ...]
    stack: int = 0


GOOD = (
    Kernel(PLAIN, ("LDG.E.128.CONSTANT", "FFMA", "MUFU.EX2", "STG.E.128", "RED.E.OR.STRONG.SYS")),
    Kernel(FULL, ("LDGSTS.E.BYPASS.128", "FFMA", "HFMA2.MMA", "MUFU.RCP", "REDUX.SUM")),
    Kernel(TF32, ("LDGSTS.E.BYPASS.128", "HMMA.1688.F32.TF32", "@!P0 STG.E.128")),
)


class Build:
    """A build folder with a cuobjdump that prints the canned dumps, and an object file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.object = folder / "CMakeFiles/cuda_kernels.dir/csrc/cuda/relu.cu.o"
        self.object.parent.mkdir(parents=True)
        self.tool = folder / "cuobjdump"
        self.tool.write_text('#!/bin/sh\ncat "$2$1"\n')
        self.tool.chmod(0o755)
        self.compile(*GOOD)

    def compile(self, *kernels: Kernel, architectures: tuple[str, ...] = ARCHITECTURES) -> None:
        resources = sass = ""
        good = {kernel.name: kernel for kernel in GOOD}
        for arch in architectures:
            head = f"\nFatbin elf code:\n================\narch = {arch}\n"
            resources += f"{head}\nResource usage:\n Common:\n  GLOBAL:0\n"
            sass += f"{head}\n\tcode for {arch}\n"
            for kernel in kernels:
                code = kernel if arch == "sm_90a" else good[kernel.name]
                resources += (
                    f" Function {code.name}:\n  REG:32 STACK:{code.stack} SHARED:1024 LOCAL:0"
                    " CONSTANT[0]:384 TEXTURE:0 SURFACE:0 SAMPLER:0\n"
                )
                sass += f"\t\tFunction : {code.name}\n"
                for i, opcode in enumerate(code.opcodes):
                    sass += f"        /*{16 * i:04x}*/    {opcode} R1, R2 ;  /* 0x0a00017624 */\n"
        self.object.touch()
        for what, text in (("res-usage", resources), ("sass", sass)):
            self.object.with_name(f"{self.object.name}-{what}").write_text(text)

    def check(self) -> tuple[int, str]:
        command = [sys.executable, str(SCRIPT), str(self.folder), "--cuobjdump", str(self.tool)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path)


def test_good_kernels_pass(build: Build) -> None:
    assert build.check() == (0, "3 CUDA kernels, 0 errors\n")


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        (replace(GOOD[0], stack=8), "8 bytes of stack"),
        (replace(GOOD[0], opcodes=("FFMA", "STL.64", "LDL")), "local memory: LDL, STL.64"),
        *(
            (replace(GOOD[0], opcodes=(opcode,)), f"atomic other than OR: {opcode.split()[-1]}")
            for opcode in (
                "RED.E.ADD.F32.FTZ.RN.STRONG.GPU",
                "@P1 ATOMG.E.ADD.F64.RN.STRONG.GPU",
                "ATOMS.CAST.SPIN",
                "REDG.E.ADD.F32.FTZ.RN.STRONG.GPU",
            )
        ),
        (
            replace(GOOD[1], opcodes=("FFMA", "HMMA.1688.F32.TF32")),
            "full precision on tensor cores: HMMA.1688.F32.TF32",
        ),
        (replace(GOOD[2], opcodes=("LDGSTS.E", "FFMA")), "TF32 without tensor cores"),
        (replace(GOOD[0], opcodes=()), "no instruction found"),
    ],
)
def test_a_defect_is_reported_with_its_kernel(build: Build, changed: Kernel, error: str) -> None:
    build.compile(*(changed if kernel.name == changed.name else kernel for kernel in GOOD))
    code, output = build.check()
    assert code == 1
    lines = output.splitlines()
    assert lines[-1] == "3 CUDA kernels, 1 errors"
    assert lines[0].startswith("relu.cu.o: ")
    assert NAMES[changed.name] in lines[0]
    assert lines[0].endswith(f": {error} on sm_90a")


def test_a_missing_architecture(build: Build) -> None:
    build.compile(*GOOD, architectures=ARCHITECTURES[:2])
    code, output = build.check()
    assert code == 1
    assert output.count(": no code on sm_100\n") == 3


def test_a_build_without_objects(build: Build) -> None:
    build.object.unlink()
    code, output = build.check()
    assert code == 2
    assert "no object of cuda_kernels with a kernel" in output


def test_a_tool_that_fails(build: Build) -> None:
    build.object.with_name("relu.cu.o-sass").unlink()
    code, output = build.check()
    assert code == 1
    assert output.splitlines()[-1].endswith("relu.cu.o failed: 1")
