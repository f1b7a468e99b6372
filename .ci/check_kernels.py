"""Check the compiled CUDA kernels of a build, without a GPU.

    python .ci/check_kernels.py BUILD_FOLDER [--cuobjdump PATH]

On every architecture each kernel must
- use no local memory: no stack and no spilled registers;
- use no atomic except OR, because the order of a floating-point sum by atomics is not fixed;
- use tensor cores if it is a TF32 kernel, and only then.
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

# Patterns of whole opcodes. HFMA2.MMA moves a constant; it is not a matrix product.
LOCAL_MEMORY = r"(LDL|STL)\b"
TENSOR_CORE = r"[A-Z]*MMA\b"
# Float sums in shared memory are loops around a CAS.
ATOMIC = r"(ATOM[A-Z]*|REDG?|REDS|UBLKRED|UTMAREDG)\b(?!.*\.OR\b)"
TF32_KERNEL = r"\bTile<[^<>]*\btrue>"


@dataclass
class Code:
    """A kernel on one architecture."""

    stack: int = 0
    opcodes: set[str] = field(default_factory=set)

    def matching(self, pattern: str) -> str:
        return ", ".join(sorted(opcode for opcode in self.opcodes if re.match(pattern, opcode)))


def parse(resources: str, sass: str) -> dict[tuple[str, str], Code]:
    """Parse cuobjdump's output; return the code by mangled name and architecture."""
    kernels: dict[tuple[str, str], Code] = {}
    arch = name = ""
    for line in resources.splitlines():
        if match := re.match(r"arch = (\w+)", line):
            arch = match[1]
        elif match := re.match(r"\s*Function (\S+):", line):
            name = match[1]
        elif match := re.match(r"\s*REG:\d+ STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", line):
            kernels[name, arch] = Code(int(match[1]) + int(match[2]))
    code = Code()
    for line in sass.splitlines():
        if match := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", line):
            code.opcodes.add(match[1])
        elif match := re.match(r"arch = (\w+)", line):
            arch = match[1]
        elif match := re.match(r"\s+Function : (\S+)", line):
            code = kernels[match[1], arch]
    return kernels


def errors_of(name: str, code: Code) -> list[str]:
    """Return what is wrong with a kernel; ``name`` is demangled."""
    errors = []
    if not code.opcodes:
        errors.append("no instruction found")
    if code.stack:
        errors.append(f"{code.stack} bytes of stack")
    if local := code.matching(LOCAL_MEMORY):
        errors.append(f"local memory: {local}")
    if atomic := code.matching(ATOMIC):
        errors.append(f"atomic other than OR: {atomic}")
    tensor_core = code.matching(TENSOR_CORE)
    if re.search(TF32_KERNEL, name):
        if not tensor_core:
            errors.append("TF32 without tensor cores")
    elif tensor_core:
        errors.append(f"full precision on tensor cores: {tensor_core}")
    return errors


def run(*command: str, stdin: str | None = None) -> str:
    # cuobjdump runs nvdisasm, which is installed in the same folder.
    path = os.pathsep.join([str(pathlib.Path(command[0]).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, input=stdin, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.returncode}")
    return done.stdout


def check(build: pathlib.Path, cuobjdump: str) -> tuple[int, list[str]]:
    """Check all objects of a build; return the number of kernels and the errors."""
    count, errors = 0, []
    for path in sorted(build.glob("**/cuda_kernels.dir/**/*.o")):
        kernels = parse(*(run(cuobjdump, what, str(path)) for what in ("-res-usage", "-sass")))
        mangled = sorted({name for name, _ in kernels})
        count += len(mangled)
        demangled = run("c++filt", stdin="\n".join(mangled)).splitlines()
        for key, name in zip(mangled, demangled, strict=True):
            for arch in ARCHITECTURES:
                code = kernels.get((key, arch))
                found = ["no code"] if code is None else errors_of(name, code)
                errors += [f"{path.name}: {name}: {error} on {arch}" for error in found]
    return count, errors


def find_cuobjdump() -> str | None:
    packages = pathlib.Path(sysconfig.get_path("purelib"))
    folders = [*map(str, packages.glob("nvidia/*/bin")), os.environ["PATH"], "/usr/local/cuda/bin"]
    return shutil.which("cuobjdump", path=os.pathsep.join(folders))


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the compiled CUDA kernels of a build")
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--cuobjdump", default=find_cuobjdump(), metavar="PATH")
    options = parser.parse_args()
    if not options.cuobjdump:
        parser.error("no cuobjdump: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")
    count, errors = check(options.build, options.cuobjdump)
    if not count:
        parser.error(f"{options.build}: no object of cuda_kernels with a kernel")
    print("\n".join([*errors, f"{count} CUDA kernels, {len(errors)} errors"]))
    return bool(errors)


if __name__ == "__main__":
    sys.exit(main())
