"""The roofline plot: every measured kernel and its fastest peer below the machine's limits."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from bench.report import figures


def draw(records: dict[str, Any], path: Path) -> None:
    """Write the roofline of measured kernels as SVG. The same records give the same bytes."""
    import matplotlib as mpl

    mpl.use("svg")
    # Without a fixed salt, the identifiers of the shapes would differ in every run.
    mpl.rcParams["svg.hashsalt"] = "chainrule"
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot as plt

    measured = {name: record for name, record in records.items() if figures.own_best(record)}
    peak = max(figures.probe_rate(record, "compute") for record in measured.values())
    # Only copies that exceed the caches measure the memory bandwidth.
    largest = max(record["bytes"] for record in measured.values())
    bandwidth = median(
        figures.probe_rate(record, "memory")
        for record in measured.values()
        if record["bytes"] >= min(largest, 5e7)
    )
    intensities = [record["flops"] / record["bytes"] for record in measured.values()]
    span = [min(intensities) / 2, max(intensities) * 2]
    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    ridge = peak / bandwidth
    corners = [span[0], *([ridge] if span[0] < ridge < span[1] else []), span[1]]
    limits = [min(peak, bandwidth * x) / 1e9 for x in corners]
    axes.plot(corners, limits, color="black", linewidth=1.5)
    axes.annotate(
        f"{peak / 1e9:.0f} GFLOP/s multiply-adds, {bandwidth / 1e9:.0f} GB/s copied",
        (corners[-1], limits[-1]),
        ha="right",
        va="bottom",
    )
    operations = sorted({name.partition("-")[0] for name in measured})
    colors = plt.get_cmap("tab10")
    for i, operation in enumerate(operations):
        first = True
        for name, record in measured.items():
            if name.partition("-")[0] != operation:
                continue
            own, peer = figures.own_best(record), figures.fastest(record)
            assert own is not None
            x = record["flops"] / record["bytes"]
            y = record["flops"] / own[1]["median"] / 1e9
            if peer is not None:
                peer_y = record["flops"] / peer[1]["median"] / 1e9
                axes.plot([x, x], [peer_y, y], color=colors(i), linewidth=0.8)
                axes.plot(x, peer_y, "o", markerfacecolor="none", color=colors(i))
            axes.plot(x, y, "o", color=colors(i), label=operation if first else None)
            first = False
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("floating-point operations per byte (each array read or written once)")
    axes.set_ylabel("GFLOP/s (dense operation count)")
    machine = next(iter(measured.values()))["machine"]
    axes.set_title(
        f"{machine['cpu']}, {machine['threads']} threads, {machine['backend']}: "
        "chainrule (filled) and the fastest peer (open)"
    )
    axes.legend(loc="lower right", fontsize="small")
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
