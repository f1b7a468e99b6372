"""The check of what the compiler made of the CUDA kernels, on dumps of our own: it lets the good
one through, and each broken one is told from it by the kernel's name."""

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
    pytest.mark.skipif(shutil.which("c++filt") is None, reason="c++filt reads the kernels' names"),
]

PLAIN = "_ZN9chainrule4cuda10relu_floatIfEEvPKT_PS2_l"
STRICT = (
    "_ZN9chainrule4cuda4gemmIfNS0_4TileIfLi2ELi2ELi1ELb0EEENS0_6MatrixIfLb1EEENS4_IfLb0EEE"
    "NS0_12MatrixResultIfEEEEvT1_T2_T3_NS0_3CutEPT_"
)
TF32 = STRICT.replace("Lb0EEENS0_6MatrixIfLb1", "Lb1EEENS0_6MatrixIfLb1", 1)
NAMES = {
    PLAIN: "relu_float<float>",
    STRICT: "gemm<float, Tile<2, 2, 1, false>, Matrix<true>, Matrix<false>, MatrixResult>",
    TF32: "gemm<float, Tile<2, 2, 1, true>, Matrix<true>, Matrix<false>, MatrixResult>",
}
ARCHITECTURES = ("sm_80", "sm_90a", "sm_100")


@dataclass(frozen=True)
class Canned:
    """A kernel; what it is on sm_90a stands here, on the other architectures it is the good one."""

    name: str
    opcodes: tuple[str, ...]
    registers: int = 32
    stack: int = 0
    bounds: str = ".maxntid 256"


GOOD = (
    Canned(PLAIN, ("LDG.E.128.CONSTANT", "FFMA", "MUFU.EX2", "STG.E.128", "RED.E.OR.STRONG.SYS")),
    Canned(STRICT, ("LDGSTS.E.BYPASS.128", "FFMA", "HFMA2.MMA", "MUFU.RCP", "REDUX.SUM")),
    Canned(TF32, ("LDGSTS.E.BYPASS.128", "HMMA.1688.F32.TF32", "@!P0 STG.E.128")),
)


class Build:
    """A build folder whose cuobjdump prints what lies beside the object."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table = folder / "kernels.tsv"
        self.objects = folder / "CMakeFiles" / "cuda_kernels.dir" / "csrc" / "cuda"
        self.objects.mkdir(parents=True)
        self.tool = folder / "cuobjdump"
        self.tool.write_text('#!/bin/sh\ncat "$2$1"\n')
        self.tool.chmod(0o755)
        self.compiler("13.0.88")
        self.compile()

    def compiler(self, version: str) -> None:
        path = self.folder / "CMakeFiles" / "4.0" / "CMakeCUDACompiler.cmake"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'set(CMAKE_CUDA_COMPILER_VERSION "{version}")\n')

    def compile(
        self,
        *kernels: Canned,
        architectures: tuple[str, ...] = ARCHITECTURES,
        virtual: bool = True,
    ) -> None:
        resources = sass = ptx = ""
        kernels = kernels or GOOD
        good = {each.name: each for each in GOOD}
        for arch in architectures:
            head = f"\nFatbin elf code:\n================\narch = {arch}\n"
            resources += f"{head}\nResource usage:\n Common:\n  GLOBAL:0\n"
            sass += f"{head}\n\tcode for {arch}\n"
            for each in kernels:
                this = each if arch == "sm_90a" else good.get(each.name, each)
                resources += (
                    f" Function {this.name}:\n  REG:{this.registers} STACK:{this.stack} SHARED:1024"
                    " LOCAL:0 CONSTANT[0]:384 TEXTURE:0 SURFACE:0 SAMPLER:0\n"
                )
                sass += f"\t\tFunction : {this.name}\n"
                for i, opcode in enumerate(this.opcodes):
                    sass += f"        /*{16 * i:04x}*/    {opcode} R1, R2 ;  /* 0x0a00017624 */\n"
        if virtual:
            head = "\nFatbin ptx code:\n================\narch = sm_100\n"
            resources += head
            ptx = head + "".join(f".weak .entry {k.name}(\n{k.bounds}\n" for k in kernels)
        target = self.objects / "relu.cu.o"
        target.touch()
        for what, text in (("res-usage", resources), ("sass", sass), ("ptx", ptx)):
            target.with_name(f"{target.name}-{what}").write_text(text)

    def check(self, *options: str) -> tuple[int, str]:
        arguments = [str(self.folder), str(self.table), "--cuobjdump", str(self.tool), *options]
        done = subprocess.run(
            [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def build(tmp_path: Path) -> Build:
    made = Build(tmp_path)
    assert made.check("--write")[0] == 0
    return made


def with_one(changed: Canned) -> tuple[Canned, ...]:
    return tuple(changed if each.name == changed.name else each for each in GOOD)


def test_what_was_written_is_good(build: Build) -> None:
    text = build.table.read_text()
    code, output = build.check()
    assert code == 0, output
    assert output.startswith("3 CUDA kernels by nvcc 13.0.88, registers compared")
    head, _, *rows = (row.split("\t") for row in text.splitlines())
    assert head[0].startswith("# nvcc 13.0.88;")
    assert [row[:2] for row in rows] == sorted(["relu", name] for name in NAMES.values())
    expected = {PLAIN: "FFMA LDG.E.128 STG.E.128 MUFU", STRICT: "FFMA LDGSTS"}
    expected[TF32] = "HMMA LDGSTS STG.E.128"
    for row in rows:
        name = next(mangled for mangled, short in NAMES.items() if short == row[1])
        assert row[2:] == ["32 32 32", "1024 1024 1024", "0", expected[name]]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (replace(GOOD[0], registers=33), "33 registers on sm_90a, 32 in the table"),
        (replace(GOOD[0], stack=8), "8 bytes of stack on sm_90a, 0 are allowed"),
        (
            replace(GOOD[0], opcodes=(*GOOD[0].opcodes, "STL.64", "LDL")),
            "LDL, STL.64 on sm_90a: uses local memory",
        ),
        (replace(GOOD[0], opcodes=GOOD[0].opcodes[1:]), "lost LDG.E.128 on sm_90a"),
        (replace(GOOD[0], opcodes=("LDG.E", *GOOD[0].opcodes[1:])), "lost LDG.E.128 on sm_90a"),
        *(
            (
                replace(GOOD[0], opcodes=(*GOOD[0].opcodes, opcode)),
                f"{opcode.split()[-1]} on sm_90a: an atomic other than atomicOr",
            )
            for opcode in (
                "RED.E.ADD.F32.FTZ.RN.STRONG.GPU",
                "@P1 ATOMG.E.ADD.F64.RN.STRONG.GPU",
                "ATOMS.CAST.SPIN",
                "REDG.E.ADD.F32.FTZ.RN.STRONG.GPU",
            )
        ),
        (
            replace(GOOD[1], opcodes=(*GOOD[1].opcodes, "HMMA.1688.F32.TF32")),
            "HMMA on sm_90a: full precision on tensor cores",
        ),
        (
            replace(GOOD[2], opcodes=("LDGSTS.E", "FFMA", "STG.E.128")),
            "no HMMA on sm_90a: tf32 without tensor cores",
        ),
    ],
)
def test_what_is_worse_is_told_with_its_kernel(build: Build, changed: Canned, said: str) -> None:
    build.compile(*with_one(changed))
    code, output = build.check()
    assert code == 1
    assert f"relu {NAMES[changed.name]}: {said}\n" in output


def test_what_is_better_is_good(build: Build) -> None:
    changed = replace(GOOD[1], registers=30, opcodes=(*GOOD[1].opcodes, "STG.E.128"))
    build.compile(*with_one(changed))
    assert build.check()[0] == 0


def test_registers_are_compared_under_the_tables_compiler_only(build: Build) -> None:
    build.compiler("13.1.115")
    build.compile(*with_one(replace(GOOD[0], registers=40)))
    code, output = build.check()
    assert code == 0, output
    assert "registers not compared: table of 13.0.88" in output
    for bounds in (".maxntid 256, 4", ".maxntid 512\n.minnctapersm 4", ""):
        build.compile(*with_one(replace(GOOD[0], registers=72, bounds=bounds)))
        code, output = build.check()
        assert code == 1
        assert f"relu {NAMES[PLAIN]}: 72 registers on sm_90a: too many for " in output
    build.compile(*with_one(replace(GOOD[0], stack=8)))
    assert build.check()[0] == 1


def test_a_kernel_without_a_line_and_a_line_without_a_kernel(build: Build) -> None:
    build.compile(*GOOD[:2], Canned("_ZN9chainrule4cuda5otherEl", ("FFMA",)))
    code, output = build.check()
    assert code == 1
    assert "relu other: no line in kernels.tsv\n" in output
    assert f"relu {NAMES[TF32]}: a line in kernels.tsv, and no kernel\n" in output


def test_kernels_that_share_a_name(build: Build) -> None:
    build.compile(*GOOD, Canned("_ZN9chainrule4cuda10relu_floatIfEEvPKT_l", GOOD[0].opcodes))
    assert f"relu {NAMES[PLAIN]}: two kernels of this name\n" in build.check()[1]


def test_stack_is_allowed_by_hand(build: Build) -> None:
    build.compile(*with_one(replace(GOOD[0], stack=8, opcodes=(*GOOD[0].opcodes, "LDL"))))
    code, output = build.check("--write")
    assert code == 1
    assert "8 bytes of stack on sm_90a, 0 are allowed" in output
    line = f"{NAMES[PLAIN]}\t32 32 32\t1024 1024 1024\t"
    text = build.table.read_text()
    assert f"{line}0" in text
    build.table.write_text(text.replace(f"{line}0", f"{line}8"))
    assert build.check("--write")[0] == 0
    assert f"{line}8" in build.table.read_text()


def test_an_object_without_an_architecture(build: Build) -> None:
    build.compile(architectures=ARCHITECTURES[:2])
    output = build.check()[1]
    assert "relu.cu.o: holds no code for sm_100\n" in output
    assert f"relu {NAMES[PLAIN]}: no code for sm_100\n" in output
    build.compile(virtual=False)
    assert "relu.cu.o: holds no ptx sm_100\n" in build.check()[1]


def test_a_build_without_objects(build: Build) -> None:
    (build.objects / "relu.cu.o").unlink()
    code, output = build.check()
    assert code == 2
    assert "no object of cuda_kernels with a kernel" in output


def test_a_tool_that_fails(build: Build) -> None:
    (build.objects / "relu.cu.o-sass").unlink()
    code, output = build.check()
    assert code == 1
    assert output.splitlines()[-1].endswith("relu.cu.o failed: 1")
