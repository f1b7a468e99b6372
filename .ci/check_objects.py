"""Check the files of a build: instruction sets that mix, and hardening that is absent.

    python .ci/check_objects.py BUILD_FOLDER

(a) Objects of an instruction set define weak symbols only in its own namespace. The linker would
    keep one copy of an inline function that two instruction sets share.
(b) They have no static initializers, which would run at load, before the instruction set is chosen.
(c) Code that runs before the choice contains no AVX instruction.
(d) No object has sections of link-time optimization, which could undo the rules above.
(e) The bindings, which receive arguments, are compiled with a protected stack.
(f) The library has full RELRO, no executable stack, no text relocations and no search path.
(g) The library names no folder of this machine, so another folder gives the same bytes.
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
    bindings = "".join(run("nm", str(path)) for path in objects if "bindings.dir" in str(path))
    if " U __stack_chk_fail\n" not in bindings:
        found.append("the bindings have no protected stack")
    libraries = sorted(build.glob("_core*.so"))
    if len(libraries) != 1:
        found.append(f"{build}: one library is expected, got {len(libraries)}")
    for path in libraries:
        found += library_faults(path, build)
    print(f"{len(objects)} objects of {', '.join(sorted(seen))}: {len(found)} faults")
    return found


def library_faults(path: pathlib.Path, build: pathlib.Path) -> list[str]:
    """Return the faults of a linked library, rules (f) and (g)."""
    dynamic = run("readelf", "-dW", str(path))
    segments = run("readelf", "-lW", str(path))
    cache = (build / "CMakeCache.txt").read_text()
    folders = re.findall(r"^CMAKE_(?:HOME_DIRECTORY|CACHEFILE_DIR):INTERNAL=(.*)", cache, re.M)
    stack = re.search(r"GNU_STACK.*? (R?W?E?) +0x", segments)
    problems = {
        "no immediate binding": not re.search(r"BIND_NOW|Flags:.*\bNOW\b", dynamic),
        "no RELRO segment": "GNU_RELRO" not in segments,
        "an executable stack": stack is None or "E" in stack[1],
        "text relocations": "TEXTREL" in dynamic,
        "a search path for libraries": bool(re.search(r"\((RPATH|RUNPATH)\)", dynamic)),
        "the name of a folder": any(name.encode() in path.read_bytes() for name in folders),
    }
    return [f"{path}: {problem}" for problem, present in problems.items() if present]


if __name__ == "__main__":
    problems = faults(pathlib.Path(sys.argv[1]))
    print("\n".join(problems))
    sys.exit(bool(problems))
