"""Train on tables of numbers in chainrule and scikit-learn, and store scores and seconds.

Each library has its own process with one thread. The processes alternate: each seed trains once in
each of them. A ratio of speed is that of the seconds per epoch, because the rule that stops may end
the two trainings in different epochs.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from bench import speed
from bench.harness import machine, timing
from bench.harness.library_process import LibraryProcess, Settings, UnavailableError
from bench.peers.tables import TABLES

LIBRARIES = ("chainrule", "sklearn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}")
    parser.add_argument("--seeds", type=int, default=10, help="runs with seeds 0 .. N-1 (10)")
    parser.add_argument("--small", action="store_true", help="two seeds, three epochs, no files")
    parser.add_argument("--json", type=Path, help="file of results (default: in bench/results)")


def measure(
    processes: dict[str, LibraryProcess], name: str, seeds: int, small: bool
) -> dict[str, Any]:
    """Return the runs of each library, one per seed."""
    runs: dict[str, list[dict[str, Any]]] = {library: [] for library in LIBRARIES}
    for seed in range(seeds):
        # The first one alternates too: neither always follows the other's idle time.
        for library in LIBRARIES if seed % 2 == 0 else LIBRARIES[::-1]:
            answer = processes[library].request("train_table", table=name, seed=seed, small=small)
            if "error" in answer:
                raise SystemExit(f"tables: {name}: {library}: {answer['error']}")
            runs[library].append({"seed": seed, **answer})
    return runs


def ratios(runs: dict[str, list[dict[str, Any]]]) -> list[float]:
    """Return scikit-learn's seconds per epoch divided by ours, for each seed."""
    ours, theirs = (
        [run["seconds"] / run["epochs"] for run in runs[library]] for library in LIBRARIES
    )
    return [peer / own for own, peer in zip(ours, theirs, strict=True)]


def report(name: str, runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return the lines that are printed about one table."""
    lines = [f"{name} ({TABLES[name].description})"]
    for library in LIBRARIES:
        scores = [run["score"] for run in runs[library]]
        spread = stdev(scores) if len(scores) > 1 else 0.0
        epochs = mean(run["epochs"] for run in runs[library])
        each = median(run["seconds"] / run["epochs"] for run in runs[library])
        lines.append(
            f"  {library:9}  score {mean(scores):.4f} (standard deviation {spread:.4f})  "
            f"{epochs:.1f} epochs  {1e3 * each:.3g} ms per epoch"
        )
    low, high = timing.quartiles(ratios(runs))
    lines.append(
        f"  ratio of the times of an epoch {median(ratios(runs)):.2f} ({low:.2f}-{high:.2f})"
    )
    return lines


def run(options: argparse.Namespace) -> int:
    names = options.names or list(TABLES)
    if unknown := set(names) - set(TABLES):
        got = ", ".join(sorted(unknown))
        raise SystemExit(f"tables: tables must be among {', '.join(TABLES)}, got {got}")
    if options.seeds < 1:
        raise SystemExit(f"tables: --seeds must be at least 1, got {options.seeds}")
    seeds = min(options.seeds, 2) if options.small else options.seeds
    path = options.json or (None if options.small else machine.RESULTS / "tables.json")
    settings = Settings(threads=1, peers=("sklearn",), pythons={})
    processes: dict[str, LibraryProcess] = {}
    try:
        for library in LIBRARIES:
            try:
                processes[library] = LibraryProcess(library, settings, {})
            except UnavailableError as error:
                raise SystemExit(f"tables: {library}: {error}") from None
        info = machine.info() | {"threads": settings.threads}
        for name in names:
            runs = measure(processes, name, seeds, options.small)
            print("\n".join(report(name, runs)), flush=True)
            if path:
                small = " --small" if options.small else ""
                record = {
                    "command": f"python -m bench tables {name} --seeds {seeds}{small}",
                    "machine": info,
                    "versions": {"sklearn": processes["sklearn"].info["version"]},
                    "table": dataclasses.asdict(TABLES[name]),
                    "ratio": median(ratios(runs)),
                    "runs": runs,
                }
                speed.store(path, name, record)
    finally:
        for process in processes.values():
            process.close()
    return 0
