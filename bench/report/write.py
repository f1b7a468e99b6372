"""Write the README's tables and the roofline from the committed results."""

from __future__ import annotations

import argparse
import json
from typing import Any

from bench.harness import machine
from bench.report import roofline, tables

README = machine.ROOT / "README.md"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")


def accuracy_table() -> list[str]:
    results: dict[str, Any] = json.loads((machine.RESULTS / "accuracy.json").read_text())
    seeds = max(len(result["runs"]) for result in results.values())
    heads = [
        "network",
        "epochs",
        *(f"seed {seed}" for seed in range(seeds)),
        "mean",
    ]
    lines = [
        "| " + " | ".join(heads) + " |",
        "| --- | --- |" + " ---: |" * (seeds + 1),
    ]
    for name, result in sorted(results.items()):
        runs = result["runs"]
        mean = sum(run["accuracy"] for run in runs) / len(runs)
        cells = [f"`{name}`", str(result["epochs"])]
        cells += [f"{100 * run['accuracy']:.2f}" for run in runs]
        cells += [f"**{100 * mean:.2f} %**"]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    for name, result in sorted(results.items()):
        m = result["machine"]
        lines.append(
            f"- `{name}`: `{result['command']}` at commit {m['commit']}, on {m['cpus']} CPUs "
            f"({m['cpu']}), {m['threads']} threads, backend {m['backend']}, {m['compiler']}"
        )
    return lines


TABLES = {"accuracy": accuracy_table, "speed": tables.speed_table, "gpu": tables.gpu_table}
GPU = """
On a GPU both libraries are timed as captured graphs, which go round inputs too large for the cache,
and multiply in strict float32. The fastest peer is PyTorch's fastest leg: eager, compiled, in a
graph, in either order of memory. The probe of memory is a copy within the GPU's; that of arithmetic
is worked out, not measured: all lanes at the highest clock.

<!-- gpu -->
<!-- end of gpu -->
"""


def filled(text: str) -> str:
    """The README with every table between its markers made anew; a GPU's is put in where one has
    been measured."""
    on_gpu = any(tables.kept(f"cuda-{group}") for group in ("kernels", "training", "accuracy"))
    if on_gpu and "<!-- gpu -->" not in text:
        text = text.replace("<!-- end of speed -->\n", f"<!-- end of speed -->\n{GPU}")
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        # Speeds are shown where they have been measured and the README asks for them.
        if name == "speed" and not found and not tables.kept("kernels"):
            continue
        if name == "gpu" and not on_gpu:
            continue
        if not found or not closed:
            raise SystemExit(f"report: README.md has no markers {begin.strip()} ... {end}")
        lines = table()
        text = head + begin + "".join(f"{line}\n" for line in lines) + end + tail
    return text


def run(options: argparse.Namespace) -> int:
    text = README.read_text()
    new = filled(text)
    if options.check:
        if new != text:
            print("report: README.md differs from bench/results; run `python -m bench report`")
        return int(new != text)
    README.write_text(new)
    if kernels := tables.kept("kernels"):
        roofline.draw(kernels, machine.RESULTS / "roofline.svg")
    return 0
