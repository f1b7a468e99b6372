"""Compare measured cases with the goals of goals.toml, for the CPU or for a GPU."""

from __future__ import annotations

import argparse
import textwrap
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
SCALES = {"seconds": 1.0, "milliseconds": 1e-3, "microseconds": 1e-6}


@dataclass(frozen=True)
class Verdict:
    """One figure of one case beside its goal."""

    case: str
    figure: str
    value: float | None
    goal: float | None
    aim: float | None
    limit: str = ""  # why it is short where it is, and what was tried

    @property
    def at_least(self) -> bool:
        return self.figure.startswith(("ratio", "share"))

    def reaches(self, wanted: float | None) -> bool:
        if wanted is None or self.value is None:
            return wanted is None
        return self.value >= wanted if self.at_least else self.value <= wanted

    @property
    def word(self) -> str:
        if self.value is None:
            return "NOT MEASURED"
        if not self.reaches(self.goal):
            return "SHORT"
        if self.aim is not None and self.reaches(self.aim):
            return "met, aim too"
        return "met" if self.goal is not None else "aim open"

    def text(self, value: float | None) -> str:
        if value is None:
            return "-"
        if self.figure.startswith("ratio"):
            return f"{value:.2f}x"
        if self.figure.startswith("share"):
            return f"{value:.0%}"
        return f"{value:.3g}"


def figure_of(record: Mapping[str, Any], figure: str) -> float | None:
    """Return a figure by its name in goals.toml; None if this run has not measured it.

    ratio, or "ratio to torch channels_last": a peer's seconds over ours; share: of the probe that
    bounds the case; seconds, milliseconds or microseconds a
    call, means for a whole training; any other is a value of the record's own.
    """
    if figure in record.get("values", {}):
        return float(record["values"][figure])
    if "legs" not in record or (mine := figures.ours(record)) is None:
        return None
    seconds = float(mine[1]["median"])
    if figure == "mean seconds":
        rounds = mine[1]["rounds"]
        return float(sum(rounds)) / len(rounds)
    if figure.startswith("ratio"):
        _, _, peer = figure.partition(" to ")
        # A default is each library's own; a bare ratio is to the fastest of all.
        compared = figures.ratio(record, peer or None)
        return compared.value if compared else None
    if figure == "share":
        return figures.rate(record, seconds) / figures.roof(record)
    return seconds / SCALES[figure] if figure in SCALES else None


def verdicts(records: Mapping[str, Any], device: str, everything: bool = False) -> list[Verdict]:
    """Return the verdict on each goal of the cases that are there; or on all goals.

    A goal with a name is for the geometric mean of its cases, once all of them are there.
    """
    out = []
    for goal in tomllib.loads(FILE.read_text())["goal" if device == "cpu" else device]:
        values = {
            case: figure_of(records[case], goal["figure"]) if case in records else None
            for case in goal["cases"]
        }
        if "name" in goal:
            found = {goal["name"]: _mean(list(values.values()))}
            there = set(values) <= set(records)
        else:
            found, there = values, False
        for case, value in found.items():
            if there or case in records or everything:
                numbers = value, goal.get("goal"), goal.get("aim")
                out.append(Verdict(case, goal["figure"], *numbers, goal.get("limit", "")))
    return out


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return geometric_mean(known) if known and len(known) == len(values) else None


def table(found: list[Verdict]) -> list[str]:
    rows = [("case", "figure", "here", "goal", "aim", "")]
    rows += [
        (one.case, one.figure, one.text(one.value), one.text(one.goal), one.text(one.aim), one.word)
        for one in found
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    return [
        "  ".join(
            cell.rjust(width) if 1 < i < 5 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def show(records: Mapping[str, Any], device: str = "cpu", everything: bool = False) -> int:
    """Print the table; return how many goals are not met."""
    found = verdicts(records, device, everything)
    short = [one for one in found if one.word in ("SHORT", "NOT MEASURED")]
    print("\n".join(table(found)))
    print(f"{len(found) - len(short)} of {len(found)} goals met")
    reasons: dict[str, list[str]] = {}
    for one in short:
        if one.word == "SHORT" and one.limit:
            reasons.setdefault(one.limit, []).append(one.case)
    for limit, cases in reasons.items():
        print(textwrap.fill(f"{', '.join(cases)}: {limit}", 100, subsequent_indent="  "))
    noisy = [name for name, record in records.items() if record.get("noisy")]
    if noisy:
        print(f"noisy, measure again: {', '.join(noisy)}")
    refused = {library for library in LIBRARIES if _absent(records, library)}
    if refused:
        print(f"not compared with: {', '.join(sorted(refused))}")
    return len(short)


def _absent(records: Mapping[str, Any], library: str) -> bool:
    return any(library in record.get("refused", {}) for record in records.values())


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="whose goals (cpu)")
    parser.add_argument(
        "--json", type=Path, action="append", help="results (default: all of bench/results)"
    )


def run(options: argparse.Namespace) -> int:
    """Compare kept results with all goals of a device."""
    measured: dict[str, Any] = {}
    groups = ["kernels", "training", "import"]
    if options.device != "cpu":
        groups = [f"{options.device}-{group}" for group in groups[:2]]
    for path in options.json or [machine.RESULTS / f"{group}.json" for group in groups]:
        measured |= records.read(path)
    return int(show(measured, options.device, everything=True) > 0)
