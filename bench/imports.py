"""Measure what chainrule costs before it computes: import, wheel, and the memory of training."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from statistics import median
from typing import Any

from bench import speed
from bench.harness import machine
from bench.harness.case import all_cases
from bench.harness.driver import SEED
from bench.harness.library_process import AbsentError, Library, Settings
from bench.report import goals

CASES = ("import-time", "wheel-size", "peak-memory-cnn")
LINE = re.compile(r"import time:\s*(\d+) \|\s*(\d+) \| ( *)(\S+)")
STEPS = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    speed.common(parser)
    parser.add_argument("--wheel", type=Path, help="a built wheel (default: build one)")


def import_seconds(python: str, module: str) -> float:
    """Return the seconds of importing a module where NumPy is loaded already."""
    command = [python, "-X", "importtime", "-c", f"import numpy, {module}"]
    # Not from the source tree, whose folders might be imported in place of what is installed.
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=empty)
    total = 0
    for line in done.stderr.splitlines():
        found = LINE.match(line)
        if found and not found[3] and found[4] == module:
            total += int(found[2])
    if not total:
        raise RuntimeError(f"-X importtime names no module {module}")
    return total / 1e6


def import_time(settings: Settings) -> dict[str, Any]:
    """Fresh processes, chainrule and the peer in turn; the first of each warms the disk's cache."""
    seconds: dict[str, list[float]] = {"chainrule": [], "torch": []}
    refused: dict[str, str] = {}
    for _ in range(settings.rounds + 1):
        for module, times in seconds.items():
            if module != "chainrule" and (module not in settings.peers or module in refused):
                continue
            try:
                times.append(import_seconds(settings.pythons.get(module, sys.executable), module))
            except subprocess.CalledProcessError:
                refused[module] = "not installed"
    values = {"milliseconds beyond NumPy": 1e3 * median(seconds["chainrule"][1:])}
    if seconds["torch"]:
        values["torch's"] = 1e3 * median(seconds["torch"][1:])
    return {"values": values, "refused": refused}


def wheel_size(settings: Settings, wheel: Path | None) -> dict[str, Any]:
    """The wheel's bytes less those of the digits that it carries, as they are compressed in it."""
    with tempfile.TemporaryDirectory() as folder:
        if wheel is None:
            command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder]
            command += [str(machine.ROOT), "-C", f"build-dir={folder}/build"]
            subprocess.run(command, check=True)
            (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as opened:
            data = sum(
                one.compress_size
                for one in opened.infolist()
                if one.filename.startswith("chainrule/data/digits/")
            )
        size = wheel.stat().st_size
    values = {"megabytes without data": (size - data) / 1e6, "megabytes": size / 1e6}
    return {"values": values}


def peak_memory(settings: Settings) -> dict[str, Any]:
    """The most memory of a fresh process that imports a library and trains `cnn` for a while."""
    module, _ = all_cases(quick=False)["cnn"]
    values: dict[str, float] = {}
    refused: dict[str, str] = {}
    for name in ("chainrule", *(peer for peer in settings.peers if peer != "numpy")):
        try:
            library = Library(name, settings, {})
        except AbsentError as why:
            refused[name] = str(why)
            continue
        answer = library.ask("setup", module=module, case="cnn", quick=False, seed=SEED)
        for variant in answer["variants"][:1]:
            library.ask("build", variant=variant)
            timed = library.ask("time", variant=variant, count=STEPS, warm=False)
            if "error" in timed:
                refused[name] = timed["error"]
            else:
                values[f"{name}'s megabytes"] = library.ask("memory")["peak"] / 1e6
        library.close()
    own, other = values.get("chainrule's megabytes"), values.get("torch's megabytes")
    if own and other:
        values["peak over torch's"] = own / other
    return {"values": values, "refused": refused}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    names = getattr(options, "names", [])
    if unknown := set(names) - set(CASES):
        raise SystemExit(f"import: unknown cases {sorted(unknown)}; there are {', '.join(CASES)}")
    settings = speed.settings("import", options)
    records: dict[str, Any] = {}
    for name in names or CASES:
        if name == "import-time":
            record = import_time(settings)
        elif name == "wheel-size":
            record = wheel_size(settings, getattr(options, "wheel", None))
        else:
            record = peak_memory(settings)
        facts = machine.facts() | {"threads": settings.threads}
        record |= {"command": f"{settings.command} {name}", "machine": facts}
        records[name] = record
        print(name)
        for what, value in record["values"].items():
            print(f"  {value:10.4g}  {what}")
        for library, why in record.get("refused", {}).items():
            print(f"  {library}: {why}")
        print(f"  $ {record['command']}", flush=True)
        if path := speed.target("import", options):
            speed.keep(path, name, record)
    return records


def run(options: argparse.Namespace) -> int:
    records = measure(options)
    return int(options.goals and goals.show(records, "cpu") > 0)
