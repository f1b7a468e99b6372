"""Measure kernels or whole training steps beside other libraries, and keep the results."""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path
from typing import Any

from bench.harness import machine, records
from bench.harness.case import DEVICES, LIBRARIES, chosen
from bench.harness.driver import Driver
from bench.harness.library_process import Settings
from bench.report import figures, goals

PEERS = ",".join(name for name in LIBRARIES if name != "chainrule")


def common(parser: argparse.ArgumentParser) -> None:
    """Add the options of every measurement beside peers."""
    parser.add_argument("--peer", default=PEERS, help=f"libraries to run beside ({PEERS})")
    parser.add_argument(
        "--peer-python",
        action="append",
        default=[],
        metavar="LIBRARY=PYTHON",
        help="the interpreter that has a library (default: this one); may be given again",
    )
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where it runs (cpu)")
    parser.add_argument("--threads", type=int, default=2, help="threads of every library (2)")
    parser.add_argument("--json", type=Path, help="where results go (default: bench/results)")
    parser.add_argument("--goals", action="store_true", help="compare with bench/report/goals.toml")
    parser.add_argument("--quick", action="store_true", help="tiny cases, two rounds, no files")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="CASE", help="cases, or how they begin")
    common(parser)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of all legs in turn (9)")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--list", action="store_true", help="name the cases and end")


def settings(group: str, options: argparse.Namespace) -> Settings:
    peers = tuple(name for name in options.peer.split(",") if name)
    if unknown := set(peers) - set(LIBRARIES):
        raise SystemExit(f"{group}: unknown peers {sorted(unknown)}; there are {PEERS}")
    pythons = dict(one.partition("=")[::2] for one in options.peer_python)
    # How to run it again anywhere: without this machine's paths.
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


def keep(path: Path, name: str, record: dict[str, Any]) -> None:
    """Add a case to a file of results, which must be of the same processor or GPU."""
    results = records.read(path)
    for other in results.values():
        if (there := _where(other)) != _where(record):
            raise SystemExit(f"{path} holds results of another machine ({there}): name a --json")
    record["date"] = datetime.date.today().isoformat()
    results[name] = _rounded(record)
    records.write(path, results)


def _where(record: dict[str, Any]) -> str:
    found = record["machine"]
    return str(found["gpu"]["name"] if "gpu" in found else found["cpu"])


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def target(group: str, options: argparse.Namespace) -> Path | None:
    if options.json:
        return Path(options.json)
    prefix = "" if options.device == "cpu" else f"{options.device}-"
    return None if options.quick else machine.RESULTS / f"{prefix}{group}.json"


def measure(group: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure a group's cases; returns the records by name."""
    cases = chosen(group, getattr(options, "names", []), options.quick, options.device)
    measured: dict[str, Any] = {}
    with Driver(settings(group, options)) as driver:
        for name, (module, case) in cases.items():
            measured[name] = driver.measure(module, case)
            print("\n".join(figures.lines(name, measured[name])), flush=True)
            if path := target(group, options):
                keep(path, name, measured[name])
    return measured


def run(options: argparse.Namespace) -> int:
    group = options.group
    if options.list:
        print("\n".join(chosen(group, options.names, options.quick, options.device)))
        return 0
    measured = measure(group, options)
    wrong = [name for name, record in measured.items() if figures.ours(record) is None]
    for name in wrong:
        print(f"{group}: {name}: chainrule has no result", file=sys.stderr)
    short = goals.show(measured, options.device) if options.goals else 0
    return int(bool(wrong or short))
