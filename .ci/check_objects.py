"""Hazards of one source compiled for many instruction sets, made impossible on the object files.

    python .ci/check_objects.py BUILD_FOLDER

(a) An inline function that two instruction sets share would be compiled for both, and the linker
    would keep either: outside an instruction set's own namespace its objects define nothing weak.
(b) A static initialiser would run at load, before the CPU is asked: there is none in them.
(c) What runs before the choice contains no AVX instruction.
(d) Link-time optimisation could undo all of this: no object carries its sections.
"""

import pathlib
import re
import subprocess
import sys

ISAS = ("scalar", "sse2", "avx2", "avx512", "neon")


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def faults(build: pathlib.Path) -> list[str]:
    found = []
    objects = sorted(build.rglob("*.o"))
    seen = set()
    for path in objects:
        isa = next((name for name in ISAS if f"cpu_{name}.dir" in str(path)), None)
        sections = run("objdump", "-h", str(path))
        if ".gnu.lto" in sections:
            found.append(f"{path}: link-time optimisation")
        if isa is None:
            wide = re.findall(r"%[yz]mm\d+", run("objdump", "-d", str(path)))
            if wide:
                found.append(f"{path}: {len(wide)} uses of AVX registers before the choice")
            continue
        seen.add(isa)
        if ".init_array" in sections or ".ctors" in sections:
            found.append(f"{path}: a static initialiser")
        # Mangled names: a lambda's own is more than nm can read back.
        own = re.compile(rf"_Z+NK?9chainrule{len(isa)}{isa}")
        for line in run("nm", str(path)).splitlines():
            match = re.match(r"[0-9a-f]+ [WVuw] (.*)", line)
            if match and not own.match(match.group(1)):
                found.append(f"{path}: weak symbol {match.group(1)}")
    if not seen:
        found.append(f"{build}: no kernel objects there")
    print(f"{len(objects)} objects of {', '.join(sorted(seen))}: {len(found)} faults")
    return found


if __name__ == "__main__":
    problems = faults(pathlib.Path(sys.argv[1]))
    print("\n".join(problems))
    sys.exit(bool(problems))
