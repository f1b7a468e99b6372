"""Write the tables of README.md and bench/README.md, and the roofline, from committed results."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.harness import machine
from bench.report import roofline, tables

# The tables of each file. A table stands between the comments `<!-- NAME -->` and
# `<!-- end of NAME -->`.
TABLES = {
    "README.md": {"speed": tables.summary_table, "accuracy": tables.accuracy_means},
    "bench/README.md": {
        "accuracy": tables.accuracy_table,
        "speed": tables.speed_table,
        "gpu": tables.gpu_table,
    },
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 on a difference"
    )


def with_tables(name: str, text: str) -> str:
    """Return the text of the file `name` with new tables between its markers."""
    for table, make in TABLES[name].items():
        begin, end = f"<!-- {table} -->\n", f"<!-- end of {table} -->"
        head, has_begin, rest = text.partition(begin)
        _, has_end, tail = rest.partition(end)
        if not has_begin or not has_end:
            raise SystemExit(f"report: {name} must have the markers {begin.strip()} and {end}")
        text = head + begin + "".join(f"{line}\n" for line in make()) + end + tail
    return text


def run(options: argparse.Namespace) -> int:
    different = 0
    for name in TABLES:
        path = Path(machine.ROOT, name)
        text = path.read_text()
        new = with_tables(name, text)
        if options.check and new != text:
            print(f"report: {name} differs from bench/results: run `python -m bench report`")
            different = 1
        elif not options.check:
            path.write_text(new)
    if not options.check and (kernels := tables.committed("kernels")):
        roofline.draw(kernels, machine.RESULTS / "roofline.svg")
    return different
