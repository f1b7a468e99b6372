"""Measure chainrule's import time, the size of its wheel and the peak memory of a training."""

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
from bench.cases import all_cases
from bench.harness import machine
from bench.harness.driver import SEED
from bench.harness.library_process import LibraryProcess, Settings, UnavailableError
from bench.report import goals

CASES = ("import-time", "wheel-size", "peak-memory-cnn")
# A line of `python -X importtime`: own and cumulative microseconds, indentation, module.
IMPORT_TIME_LINE = re.compile(r"import time:\s*(\d+) \|\s*(\d+) \| ( *)(\S+)")
STEPS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    speed.add_common_arguments(parser)
    parser.add_argument("--wheel", type=Path, help="an existing wheel (default: build one)")


def import_seconds(python: str, module: str) -> float:
    """Return the time to import a module after NumPy, in seconds."""
    command = [python, "-X", "importtime", "-c", f"import numpy, {module}"]
    # In an empty folder, so that a folder of the source tree cannot shadow an installed package.
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=empty)
    total = 0
    for line in done.stderr.splitlines():
        match = IMPORT_TIME_LINE.match(line)
        if match and not match[3] and match[4] == module:
            total += int(match[2])
    if not total:
        raise RuntimeError(f"the output of -X importtime must have a line for {module}")
    return total / 1e6


def import_time(settings: Settings) -> dict[str, Any]:
    """Return the import times of chainrule and PyTorch, measured alternately in new processes.

    The first import of each only fills the file cache.
    """
    seconds: dict[str, list[float]] = {"chainrule": [], "torch": []}
    excluded: dict[str, str] = {}
    for _ in range(settings.rounds + 1):
        for module, times in seconds.items():
            if module != "chainrule" and (module not in settings.peers or module in excluded):
                continue
            try:
                times.append(import_seconds(settings.pythons.get(module, sys.executable), module))
            except subprocess.CalledProcessError:
                excluded[module] = "not installed"
    values = {"milliseconds beyond NumPy": 1e3 * median(seconds["chainrule"][1:])}
    if seconds["torch"]:
        values["milliseconds of torch"] = 1e3 * median(seconds["torch"][1:])
    return {"values": values, "excluded": excluded}


def wheel_size(settings: Settings, wheel: Path | None) -> dict[str, Any]:
    """Return the size of the wheel, with and without the compressed digits in it."""
    with tempfile.TemporaryDirectory() as folder:
        if wheel is None:
            command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder]
            command += [str(machine.ROOT), "-C", f"build-dir={folder}/build"]
            subprocess.run(command, check=True)
            (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            data = sum(
                file.compress_size
                for file in archive.infolist()
                if file.filename.startswith("chainrule/data/digits/")
            )
        size = wheel.stat().st_size
    values = {"megabytes without data": (size - data) / 1e6, "megabytes": size / 1e6}
    return {"values": values}


def peak_memory(settings: Settings) -> dict[str, Any]:
    """Return the peak memory of processes that import a library and train `cnn` for 20 steps."""
    module, _ = all_cases(quick=False)["cnn"]
    values: dict[str, float] = {}
    excluded: dict[str, str] = {}
    for name in ("chainrule", *(peer for peer in settings.peers if peer != "numpy")):
        try:
            process = LibraryProcess(name, settings, {})
        except UnavailableError as error:
            excluded[name] = str(error)
            continue
        answer = process.request("set_up_case", module=module, case="cnn", quick=False, seed=SEED)
        for variant in answer["variants"][:1]:
            process.request("build", variant=variant)
            timed = process.request("time", variant=variant, count=STEPS, warm_up=False)
            if "error" in timed:
                excluded[name] = timed["error"]
            else:
                values[f"megabytes of {name}"] = process.request("peak_memory")["bytes"] / 1e6
        process.close()
    own, peer = values.get("megabytes of chainrule"), values.get("megabytes of torch")
    if own and peer:
        values["chainrule / torch"] = own / peer
    return {"values": values, "excluded": excluded}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    names = getattr(options, "names", [])
    if unknown := set(names) - set(CASES):
        raise SystemExit(
            f"import: cases must be among {', '.join(CASES)}, got {', '.join(sorted(unknown))}"
        )
    settings = speed.settings("import", options)
    records: dict[str, Any] = {}
    for name in names or CASES:
        if name == "import-time":
            record = import_time(settings)
        elif name == "wheel-size":
            record = wheel_size(settings, getattr(options, "wheel", None))
        else:
            record = peak_memory(settings)
        info = machine.info() | {"threads": settings.threads}
        record |= {"command": f"{settings.command} {name}", "machine": info}
        records[name] = record
        print(name)
        for unit, value in record["values"].items():
            print(f"  {value:10.4g}  {unit}")
        for library, reason in record.get("excluded", {}).items():
            print(f"  {library}: {reason}")
        print(f"  $ {record['command']}", flush=True)
        if path := speed.results_path("import", options):
            speed.store(path, name, record)
    return records


def run(options: argparse.Namespace) -> int:
    records = measure(options)
    return int(options.goals and goals.show(records, "cpu") > 0)
