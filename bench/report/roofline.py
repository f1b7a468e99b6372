"""A picture of every kernel under its machine's roof, the fastest peer beside it."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from bench.report import figures


def draw(records: dict[str, Any], path: Path) -> None:
    """Write the roofline of measured kernels as SVG, the same bytes for the same records."""
    import matplotlib as mpl

    mpl.use("svg")
    # Otherwise every run would name its shapes anew.
    mpl.rcParams["svg.hashsalt"] = "chainrule"
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot as plt

    shown = {name: record for name, record in records.items() if figures.ours(record)}
    peak = max(figures.roof(record, "compute") for record in shown.values())
    # A copy too large for any cache: the roof of memory itself.
    largest = max(record["bytes"] for record in shown.values())
    bandwidth = median(
        figures.roof(record, "memory")
        for record in shown.values()
        if record["bytes"] >= min(largest, 5e7)
    )
    intensities = [record["flops"] / record["bytes"] for record in shown.values()]
    span = [min(intensities) / 2, max(intensities) * 2]
    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    ridge = peak / bandwidth
    corners = [span[0], *([ridge] if span[0] < ridge < span[1] else []), span[1]]
    roof = [min(peak, bandwidth * x) / 1e9 for x in corners]
    axes.plot(corners, roof, color="black", linewidth=1.5)
    axes.annotate(
        f"{peak / 1e9:.0f} GFLOP/s multiply-adds, {bandwidth / 1e9:.0f} GB/s copied",
        (corners[-1], roof[-1]),
        ha="right",
        va="bottom",
    )
    operations = sorted({name.partition("-")[0] for name in shown})
    colors = plt.get_cmap("tab10")
    for i, operation in enumerate(operations):
        first = True
        for name, record in shown.items():
            if name.partition("-")[0] != operation:
                continue
            mine, other = figures.ours(record), figures.fastest(record)
            assert mine is not None
            x = record["flops"] / record["bytes"]
            y = record["flops"] / mine[1]["median"] / 1e9
            if other is not None:
                theirs = record["flops"] / other[1]["median"] / 1e9
                axes.plot([x, x], [theirs, y], color=colors(i), linewidth=0.8)
                axes.plot(x, theirs, "o", markerfacecolor="none", color=colors(i))
            axes.plot(x, y, "o", color=colors(i), label=operation if first else None)
            first = False
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("floating-point operations a byte, every array touched once")
    axes.set_ylabel("GFLOP/s, counted densely")
    machine = next(iter(shown.values()))["machine"]
    axes.set_title(
        f"{machine['cpu']}, {machine['threads']} threads, {machine['backend']}: "
        "chainrule (full) and the fastest peer (open)"
    )
    axes.legend(loc="lower right", fontsize="small")
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
