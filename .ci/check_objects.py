"""Check the object files of a build for the hazards of one source and many instruction sets.

    python .ci/check_objects.py BUILD_FOLDER

(a) Objects of an instruction set define weak symbols only in its own namespace. The linker would
    keep one copy of an inline function that two instruction sets share.
(b) They have no static initializers, which would run at load, before the instruction set is chosen.
(c) Code that runs before the choice contains no AVX instruction.
(d) No object has sections of link-time optimization, which could undo the rules above.
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
            found.append(f"{path}: link-time optimization")
        if isa is None:
            wide = re.findall(r"%[yz]mm\d+", run("objdump", "-d", str(path)))
            if wide:
                found.append(f"{path}: {len(wide)} uses of AVX registers before the choice")
            continue
        seen.add(isa)
        if ".init_array" in sections or ".ctors" in sections:
            found.append(f"{path}: a static initializer")
        # Mangled names, because nm cannot demangle those of lambdas.
        own = re.compile(rf"_Z+NK?9chainrule{len(isa)}{isa}")
        for line in run("nm", str(path)).splitlines():
            match = re.match(r"[0-9a-f]+ [WVuw] (.*)", line)
            if match and not own.match(match.group(1)):
                found.append(f"{path}: weak symbol {match.group(1)}")
    if not seen:
        found.append(f"{build}: no kernel objects")
    print(f"{len(objects)} objects of {', '.join(sorted(seen))}: {len(found)} faults")
    return found


if __name__ == "__main__":
    problems = faults(pathlib.Path(sys.argv[1]))
    print("\n".join(problems))
    sys.exit(bool(problems))
