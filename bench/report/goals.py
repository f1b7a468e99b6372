"""Compare measured cases with the goals in goals.toml, for the CPU or for a GPU."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from bench.harness import machine, records
from bench.harness.case import DEVICES, LIBRARIES
from bench.report import figures

FILE = Path(__file__).with_name("goals.toml")
NOTES = "bench/results/notes.md"
UNITS = {"seconds": 1.0, "milliseconds": 1e-3, "microseconds": 1e-6}


@dataclass(frozen=True)
class Verdict:
    """One figure of one case, its goal and its stretch goal.

    ``notes`` is the title of a section of `bench/results/notes.md`: why the goal is not met.
    """

    case: str
    figure: str
    value: float | None
    goal: float | None
    stretch: float | None
    notes: str = ""

    @property
    def at_least(self) -> bool:
        return self.figure.startswith(("ratio", "share"))

    def meets(self, goal: float | None) -> bool:
        if goal is None or self.value is None:
            return goal is None
        return self.value >= goal if self.at_least else self.value <= goal

    @property
    def result(self) -> str:
        if self.value is None:
            return "NOT MEASURED"
        if not self.meets(self.goal):
            return "NOT MET"
        if self.stretch is not None and self.meets(self.stretch):
            return "stretch goal met"
        return "met" if self.goal is not None else "stretch goal not met"

    def text(self, value: float | None) -> str:
        """Return a value of this figure with its unit."""
        if value is None:
            return "-"
        if self.figure.startswith("ratio"):
            return f"{value:.2f}x"
        if self.figure.startswith("share"):
            return f"{value:.0%}"
        return f"{value:.3g}"


def figure_of(record: Mapping[str, Any], figure: str) -> float | None:
    """Return a figure by its name in goals.toml; None if the record does not have it.

    "ratio" is the time of the fastest peer divided by ours, and "ratio to torch channels_last" that
    of a variant. "share" is the fraction of the probe that bounds the case. "seconds",
    "milliseconds" and "microseconds" are medians per call, and "mean seconds" is the mean of a
    complete training. Other names are keys of the record's ``values``.
    """
    if figure in record.get("values", {}):
        return float(record["values"][figure])
    if "variants" not in record or (own := figures.own_best(record)) is None:
        return None
    seconds = float(own[1]["median"])
    if figure == "mean seconds":
        rounds = own[1]["rounds"]
        return float(sum(rounds)) / len(rounds)
    if figure.startswith("ratio"):
        _, _, peer = figure.partition(" to ")
        # Without a variant, the ratio is to the fastest of all peers.
        compared = figures.ratio(record, peer or None)
        return compared.value if compared else None
    if figure == "share":
        return figures.rate(record, seconds) / figures.probe_rate(record)
    return seconds / UNITS[figure] if figure in UNITS else None


def verdicts(records: Mapping[str, Any], device: str, all_goals: bool = False) -> list[Verdict]:
    """Return the verdicts on the goals of the cases in ``records``, or on all goals.

    A goal with a name applies to the geometric mean of its cases. Unless all goals are requested,
    it requires a record of each case.
    """
    found = []
    for goal in tomllib.loads(FILE.read_text())["goal" if device == "cpu" else device]:
        values = {
            case: figure_of(records[case], goal["figure"]) if case in records else None
            for case in goal["cases"]
        }
        if "name" in goal:
            complete = set(values) <= set(records)
            values = {goal["name"]: _geometric_mean(list(values.values()))}
        else:
            complete = False
        for case, value in values.items():
            if complete or case in records or all_goals:
                numbers = value, goal.get("goal"), goal.get("stretch")
                found.append(Verdict(case, goal["figure"], *numbers, goal.get("notes", "")))
    return found


def _geometric_mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return geometric_mean(known) if known and len(known) == len(values) else None


def table(found: list[Verdict]) -> list[str]:
    rows = [("case", "figure", "value", "goal", "stretch goal", "result")]
    rows += [
        (v.case, v.figure, v.text(v.value), v.text(v.goal), v.text(v.stretch), v.result)
        for v in found
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    return [
        "  ".join(
            cell.rjust(width) if 1 < i < 5 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def show(records: Mapping[str, Any], device: str = "cpu", all_goals: bool = False) -> int:
    """Print the table and return how many goals are not met."""
    found = verdicts(records, device, all_goals)
    missed = [verdict for verdict in found if verdict.result in ("NOT MET", "NOT MEASURED")]
    print("\n".join(table(found)))
    print(f"{len(found) - len(missed)} of {len(found)} goals met")
    sections: dict[str, list[str]] = {}
    for verdict in missed:
        if verdict.result == "NOT MET" and verdict.notes:
            sections.setdefault(verdict.notes, []).append(verdict.case)
    for title, cases in sections.items():
        print(f'{", ".join(cases)}: see "{title}" in {NOTES}')
    noisy = [name for name, record in records.items() if record.get("noisy")]
    if noisy:
        print(f"noisy, measure again: {', '.join(noisy)}")
    unavailable = {library for library in LIBRARIES if _is_unavailable(records, library)}
    if unavailable:
        print(f"not compared with: {', '.join(sorted(unavailable))}")
    return len(missed)


def _is_unavailable(records: Mapping[str, Any], library: str) -> bool:
    return any(library in record.get("excluded", {}) for record in records.values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="the goals' device (cpu)")
    parser.add_argument(
        "--json", type=Path, action="append", help="file of results (default: all in bench/results)"
    )


def run(options: argparse.Namespace) -> int:
    """Compare stored results with all goals of a device."""
    measured: dict[str, Any] = {}
    groups = ["kernels", "training", "import"]
    if options.device != "cpu":
        groups = [f"{options.device}-{group}" for group in groups[:2]]
    for path in options.json or [machine.RESULTS / f"{group}.json" for group in groups]:
        measured |= records.read(path)
    return int(show(measured, options.device, all_goals=True) > 0)
