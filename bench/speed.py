"""Measure kernels or training steps of chainrule and other libraries, and store the results."""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path
from typing import Any

from bench import cases
from bench.harness import machine, records
from bench.harness.case import DEVICES, LIBRARIES
from bench.harness.driver import Driver
from bench.harness.library_process import Settings
from bench.report import figures, goals

PEERS = ",".join(name for name in LIBRARIES if name != "chainrule")


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of every measurement that has peers."""
    parser.add_argument("--peer", default=PEERS, help=f"libraries to compare with ({PEERS})")
    parser.add_argument(
        "--peer-python",
        action="append",
        default=[],
        metavar="LIBRARY=PYTHON",
        help="an interpreter that has the library (default: this one); repeatable",
    )
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="the device (cpu)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each library (2)")
    parser.add_argument("--json", type=Path, help="file of results (default: in bench/results)")
    parser.add_argument("--goals", action="store_true", help="compare with bench/report/goals.toml")
    parser.add_argument("--quick", action="store_true", help="tiny cases, two rounds, no files")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="CASE", help="names or prefixes of cases")
    add_common_arguments(parser)
    parser.add_argument("--rounds", type=int, default=9, help="timings of each variant (9)")
    parser.add_argument("--no-compile", action="store_true", help="exclude torch.compile")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and exit")


def settings(group: str, options: argparse.Namespace) -> Settings:
    """Return the settings of a measurement from its options.

    Raises SystemExit if a peer is unknown.
    """
    peers = tuple(name for name in options.peer.split(",") if name)
    if unknown := set(peers) - set(LIBRARIES):
        raise SystemExit(f"{group}: peers must be among {PEERS}, got {', '.join(sorted(unknown))}")
    pythons = dict(pair.partition("=")[::2] for pair in options.peer_python)
    # The command to reproduce the result on any machine, so without local paths.
    command = f"python -m bench {group} --threads {options.threads}"
    if options.device != "cpu":
        command = f"python -m bench {group} --device {options.device}"
    if options.peer != PEERS:
        command += f" --peer {options.peer}"
    if options.quick:
        command += " --quick"
    return Settings(
        threads=options.threads,
        peers=peers,
        pythons=pythons,
        rounds=2 if options.quick else getattr(options, "rounds", 9),
        seconds=0.002 if options.quick else 0.1 if options.device == "cpu" else 0.025,
        quick=options.quick,
        compile=not (options.quick or getattr(options, "no_compile", False)),
        command=command,
        device=options.device,
    )


def store(path: Path, name: str, record: dict[str, Any]) -> None:
    """Write a record to a file of results.

    Raises SystemExit if the file has results of another processor or GPU.
    """
    results = records.read(path)
    for other in results.values():
        if (processor := _processor(other)) != _processor(record):
            raise SystemExit(f"{path} has results of {processor}: name another file with --json")
    record["date"] = datetime.date.today().isoformat()
    results[name] = _rounded(record)
    records.write(path, results)


def _processor(record: dict[str, Any]) -> str:
    info = record["machine"]
    return str(info["gpu"]["name"] if "gpu" in info else info["cpu"])


def _rounded(value: Any) -> Any:
    """Return a JSON value with all floats rounded to five significant digits."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def results_path(group: str, options: argparse.Namespace) -> Path | None:
    """Return the file for the results of a group; None if they are not stored."""
    if options.json:
        return Path(options.json)
    prefix = "" if options.device == "cpu" else f"{options.device}-"
    return None if options.quick else machine.RESULTS / f"{prefix}{group}.json"


def measure(group: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure the selected cases of a group, print and store each, and return records by name."""
    selected = cases.select(group, getattr(options, "names", []), options.quick, options.device)
    measured: dict[str, Any] = {}
    with Driver(settings(group, options)) as driver:
        for name, (module, case) in selected.items():
            measured[name] = driver.measure(module, case)
            print("\n".join(figures.report_lines(name, measured[name])), flush=True)
            if path := results_path(group, options):
                store(path, name, measured[name])
    return measured


def run(options: argparse.Namespace) -> int:
    group = options.group
    if options.list:
        print("\n".join(cases.select(group, options.names, options.quick, options.device)))
        return 0
    measured = measure(group, options)
    failed = [name for name, record in measured.items() if figures.own_best(record) is None]
    for name in failed:
        print(f"{group}: {name}: chainrule has no result", file=sys.stderr)
    missed = goals.show(measured, options.device) if options.goals else 0
    return int(bool(failed or missed))
