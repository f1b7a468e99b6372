"""What the compiler made of the CUDA kernels, looked at where no GPU is.

    python .ci/check_kernels.py BUILD_FOLDER TABLE [--write] [--cuobjdump PATH]

TABLE has a line for each kernel: its registers and static shared bytes on each architecture, the
bytes of stack that it may use (spilled registers lie there), and the classes of instructions that
must stay. What is wrong whatever the table says: a sum in floating point by atomics, whose order is
chance; a matrix product on tensor cores in a kernel of full precision, or none in one of tf32.

`--write` makes the table anew. It allows no stack that the table did not: that is written by hand.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field

ARCHITECTURES = ("sm_80", "sm_90a", "sm_100")
PTX = "sm_100"  # what later GPUs compile for themselves
COLUMNS = "file\tkernel\tregisters\tshared\tstack\tclasses"

# By the whole opcode. HFMA2.MMA is no matrix product but a way to move a constant, and MUFU.RCP
# shows wherever integers are divided.
CLASSES = {
    "FFMA": r"FFMA2?\b",
    "DFMA": r"DFMA\b",
    "HMMA": r"[A-Z]*MMA\b",
    "LDGSTS": r"LDGSTS\b",
    "LDG.E.128": r"LDG\b.*\.(128|256)\b",
    "STG.E.128": r"STG\b.*\.(128|256)\b",
    "SHFL": r"SHFL\b",
    "MUFU": r"MUFU\.(?!RCP)",
}
LOCAL = r"(LDL|STL)\b"
# With OR the order does not matter. Sums of floats in shared memory are loops around a CAS.
ATOMIC = r"(ATOM[A-Z]*|REDG?|REDS|UBLKRED|UTMAREDG)\b(?!.*\.OR\b)"

Key = tuple[str, str]  # the source's name, the kernel's


@dataclass
class Code:
    """A kernel on one architecture."""

    registers: int = 0
    stack: int = 0
    shared: int = 0
    opcodes: set[str] = field(default_factory=set)

    def having(self, pattern: str) -> list[str]:
        return sorted(opcode for opcode in self.opcodes if re.match(pattern, opcode))

    def classes(self) -> set[str]:
        return {name for name, pattern in CLASSES.items() if self.having(pattern)}


@dataclass
class Kernel:
    code: dict[str, Code] = field(default_factory=dict)
    block: int = 1024  # threads, and blocks on a multiprocessor: its __launch_bounds__
    blocks: int = 1

    def on_each(self, figure: str) -> tuple[int, ...]:
        return tuple(getattr(self.code[a], figure) if a in self.code else 0 for a in ARCHITECTURES)

    def classes(self) -> set[str]:
        return set.intersection(*(code.classes() for code in self.code.values()))


@dataclass
class Line:
    """Of the table."""

    registers: tuple[int, ...]
    shared: tuple[int, ...]
    stack: int
    classes: set[str]


def short(demangled: str) -> str:
    """A kernel's name without what goes without saying: namespaces, parameters, its element type
    where it comes again."""
    name = re.sub(r"chainrule::cuda::|\(anonymous namespace\)::|^void ", "", demangled)
    depth = 0
    for i, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            name = name[:i]
            break
    name = name.replace(" >", ">")
    if element := re.match(r"\w+<(float|double)\b", name):
        start = element.end()
        rest = re.sub(rf"<{element[1]}(, |>)", lambda m: "<" if m[1] == ", " else "", name[start:])
        name = name[:start] + rest
    return name


def read(resources: str, sass: str, ptx: str) -> tuple[dict[str, Kernel], set[str]]:
    """The kernels of an object by their mangled names, and what code it holds: as "elf sm_80"."""
    kernels: dict[str, Kernel] = {}
    held = set()
    arch = name = ""
    for line in resources.splitlines():
        if match := re.match(r"Fatbin (\w+) code:", line):
            kind = match[1]
        elif match := re.match(r"arch = (\w+)", line):
            arch = match[1]
            held.add(f"{kind} {arch}")
        elif match := re.match(r"\s*Function (\S+):", line):
            name = match[1]
        elif match := re.match(r"\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            registers, stack, shared, local = map(int, match.groups())
            code = Code(registers, stack + local, shared)
            kernels.setdefault(name, Kernel()).code[arch] = code
    code = Code()
    for line in sass.splitlines():
        if match := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", line):
            code.opcodes.add(match[1])
        elif match := re.match(r"arch = (\w+)", line):
            arch = match[1]
        elif match := re.match(r"\s+Function : (\S+)", line):
            code = kernels[match[1]].code[arch]
    for line in ptx.splitlines():
        if match := re.match(r"(?:\.\w+ )*\.entry (\w+)", line):
            name = match[1]
        elif match := re.match(r"\.maxntid (\d+)(?:, *(\d+))?(?:, *(\d+))?", line):
            x, y, z = (int(size or 1) for size in match.groups())
            kernels[name].block = x * y * z
        elif match := re.match(r"\.minnctapersm (\d+)", line):
            kernels[name].blocks = int(match[1])
    return kernels, held


def look(build: pathlib.Path, cuobjdump: str) -> tuple[dict[Key, Kernel], list[str]]:
    """All kernels of a build, and what is wrong with its objects."""
    objects = sorted(build.glob("**/cuda_kernels.dir/**/*.o"))
    kernels: dict[Key, Kernel] = {}
    faults = []
    # cuobjdump asks nvdisasm, which comes beside it.
    path = os.pathsep.join([str(pathlib.Path(cuobjdump).parent), os.environ["PATH"]])

    def run(*command: str, given: str | None = None) -> str:
        environment = {**os.environ, "PATH": path}
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, input=given, env=environment
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed: {done.returncode}")
        return done.stdout

    for each in objects:
        dumps = (run(cuobjdump, what, str(each)) for what in ("-res-usage", "-sass", "-ptx"))
        found, held = read(*dumps)
        for missing in sorted({*(f"elf {a}" for a in ARCHITECTURES), f"ptx {PTX}"} - held):
            faults.append(f"{each.name}: holds no {missing.replace('elf', 'code for')}")
        names = run("c++filt", given="\n".join(found)).splitlines()
        for name, kernel in zip(names, found.values(), strict=True):
            key = (each.name.split(".")[0], short(name))
            if key in kernels:
                faults.append(f"{' '.join(key)}: two kernels of this name")
            kernels[key] = kernel
    return kernels, faults


def wrong(kernel: Kernel, allowed_stack: int) -> list[str]:
    """What no compiler's version excuses; without the kernel's name."""
    faults = []
    for arch in ARCHITECTURES:
        if arch not in kernel.code:
            faults.append(f"no code for {arch}")
    for arch, code in kernel.code.items():
        if not code.opcodes:
            faults.append(f"no instruction was read on {arch}")
        if code.stack > allowed_stack:
            faults.append(f"{code.stack} bytes of stack on {arch}, {allowed_stack} are allowed")
        elif not allowed_stack and (local := code.having(LOCAL)):
            faults.append(f"{', '.join(local)} on {arch}: uses local memory")
        if atomic := code.having(ATOMIC):
            faults.append(f"{', '.join(atomic)} on {arch}: an atomic other than atomicOr")
        # Registers come by eight, threads by warps.
        warps = -(-kernel.block // 32) * kernel.blocks
        if -(-code.registers // 8) * 8 * 32 * warps > 65536:
            faults.append(
                f"{code.registers} registers on {arch}: too many for {kernel.blocks} x "
                f"{kernel.block} threads, its __launch_bounds__ (1 x 1024 where it has none)"
            )
    return faults


def precision_faults(name: str, kernel: Kernel) -> list[str]:
    tf32 = re.search(r"\bTile<[^<>]*\btrue>", name) is not None
    return [
        f"no HMMA on {arch}: tf32 without tensor cores"
        if tf32
        else f"HMMA on {arch}: full precision on tensor cores"
        for arch, code in kernel.code.items()
        if tf32 != ("HMMA" in code.classes())
    ]


def compare(kernel: Kernel, line: Line, same_compiler: bool) -> list[str]:
    faults = []
    for figure, word in (("registers", "registers"), ("shared", "static shared bytes")):
        now, then = kernel.on_each(figure), getattr(line, figure)
        for arch, new, old in zip(ARCHITECTURES, now, then, strict=True):
            if same_compiler and new > old:
                faults.append(f"{new} {word} on {arch}, {old} in the table")
    for arch, code in kernel.code.items():
        for lost in sorted(line.classes - code.classes()):
            faults.append(f"lost {lost} on {arch}")
    return faults


def check(
    kernels: dict[Key, Kernel], lines: dict[Key, Line], same_compiler: bool, table: str
) -> list[str]:
    faults = []
    for key, kernel in sorted(kernels.items()):
        line = lines.get(key)
        found = wrong(kernel, line.stack if line else 0) + precision_faults(key[1], kernel)
        found += compare(kernel, line, same_compiler) if line else [f"no line in {table}"]
        faults += [f"{' '.join(key)}: {fault}" for fault in found]
    for key in sorted(lines.keys() - kernels.keys()):
        faults.append(f"{' '.join(key)}: a line in {table}, and no kernel")
    return faults


def parse_table(text: str) -> tuple[str, dict[Key, Line]]:
    """The compiler's version, and the lines."""
    head, *rows = text.splitlines() or [""]
    version = re.match(r"# nvcc ([\d.]+)", head)
    lines = {}
    for row in rows:
        if row in ("", COLUMNS):
            continue
        file, name, registers, shared, stack, classes = row.split("\t")
        figures = [tuple(map(int, each.split())) for each in (registers, shared)]
        lines[file, name] = Line(figures[0], figures[1], int(stack), set(classes.split()))
    return version[1] if version else "", lines


def format_table(version: str, kernels: dict[Key, Kernel], old: dict[Key, Line]) -> str:
    rows = [f"# nvcc {version}; registers and static shared bytes on {' '.join(ARCHITECTURES)}"]
    rows.append(COLUMNS)
    for key, kernel in sorted(kernels.items()):
        registers, shared = (
            " ".join(map(str, kernel.on_each(each))) for each in ("registers", "shared")
        )
        classes = " ".join(name for name in CLASSES if name in kernel.classes())
        stack = old[key].stack if key in old else 0
        rows.append("\t".join([*key, registers, shared, str(stack), classes]))
    return "\n".join(rows) + "\n"


def compiler(build: pathlib.Path) -> str:
    """The version of the build's nvcc, as CMake found it."""
    for path in build.glob("CMakeFiles/*/CMakeCUDACompiler.cmake"):
        if match := re.search(r'CMAKE_CUDA_COMPILER_VERSION "([\d.]+)"', path.read_text()):
            return match[1]
    return "unknown"


def find_cuobjdump() -> str | None:
    packages = pathlib.Path(sysconfig.get_path("purelib"))
    folders = [*map(str, packages.glob("nvidia/*/bin")), os.environ["PATH"], "/usr/local/cuda/bin"]
    return shutil.which("cuobjdump", path=os.pathsep.join(folders))


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the CUDA kernels of a build with a table")
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("table", type=pathlib.Path)
    parser.add_argument("--write", action="store_true", help="make the table anew")
    parser.add_argument("--cuobjdump", default=find_cuobjdump(), metavar="PATH")
    options = parser.parse_args()
    if not options.cuobjdump:
        parser.error("no cuobjdump: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")
    version = compiler(options.build)
    kernels, faults = look(options.build, options.cuobjdump)
    if not kernels:
        parser.error(f"{options.build}: no object of cuda_kernels with a kernel")
    text = options.table.read_text() if options.table.exists() else ""
    written_by, lines = parse_table(text)
    if options.write:
        options.table.write_text(format_table(version, kernels, lines))
        written_by, lines = parse_table(options.table.read_text())
    faults += check(kernels, lines, version == written_by, options.table.name)
    compared = "compared" if version == written_by else f"not compared: table of {written_by}"
    print(f"{len(kernels)} CUDA kernels by nvcc {version}, registers {compared}")
    print("\n".join([*faults, f"{len(faults)} faults"]))
    if faults and not options.write:
        print("Where the change is meant, --write makes the table anew; its diff says what it is.")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
