"""Make the tables of README.md and bench/README.md from the committed results."""

from __future__ import annotations

from statistics import mean
from typing import Any

from bench.harness import machine, records
from bench.report import figures, goals

# The rows of README.md. All cases are in bench/README.md.
SUMMARY = (
    "cnn",
    "lenet",
    "mlp",
    "mlp-10-32-32-10",
    "matmul-1024",
    "conv2d-n128c32-26-k64-3x3",
)


def kept(group: str) -> dict[str, Any]:
    """Return the committed results of a group by case name; an empty dict if there are none."""
    return records.read(machine.RESULTS / f"{group}.json")


def summary_table() -> list[str]:
    """Return a short table: the time per call and the ratio to the fastest peer."""
    measured = {**kept("training"), **kept("kernels")}
    lines = [
        "| case | chainrule | fastest peer | its time | ratio |",
        "| --- | ---: | --- | ---: | ---: |",
    ]
    for name in SUMMARY:
        row = _row(name, measured[name]) if name in measured else None
        if row:
            lines.append("| " + " | ".join([row[0], row[1], *row[4:7]]) + " |")
    return lines


def accuracy_means() -> list[str]:
    """Return one line with the mean test accuracy of each network."""
    means = [
        f"`{name}` {100 * mean(run['accuracy'] for run in result['runs']):.2f} %"
        for name, result in sorted(kept("accuracy").items())
    ]
    return [", ".join(means)]


def accuracy_table() -> list[str]:
    """Return the test accuracy of each network and seed, with the command that measured it."""
    results = kept("accuracy")
    seeds = max(len(result["runs"]) for result in results.values())
    heads = ["network", "epochs", *(f"seed {seed}" for seed in range(seeds)), "mean"]
    lines = [
        "| " + " | ".join(heads) + " |",
        "| --- | --- |" + " ---: |" * (seeds + 1),
    ]
    for name, result in sorted(results.items()):
        shares = [run["accuracy"] for run in result["runs"]]
        cells = [f"`{name}`", str(result["epochs"]), *(f"{100 * share:.2f}" for share in shares)]
        lines.append("| " + " | ".join([*cells, f"**{100 * mean(shares):.2f} %**"]) + " |")
    lines.append("")
    for name, result in sorted(results.items()):
        found = result["machine"]
        lines.append(
            f"- `{name}`: `{result['command']}` at commit {found['commit']}, {_machine(found)}"
        )
    return lines


def speed_table() -> list[str]:
    """Return the table of all cases; an empty list if nothing has been measured."""
    training, kernels = kept("training"), kept("kernels")
    measured = {**training, **kernels}
    if not measured:
        return []
    lines = _table(measured)
    for name, record in kept("import").items():
        values = ", ".join(f"{value:.3g} {what}" for what, value in record["values"].items())
        lines.append(f"- `{name}`: {values}")
    return lines + _origins({"training": training, "kernels": kernels, "import": kept("import")})


def gpu_table() -> list[str]:
    """Return the same for a GPU, with its goals' geometric means and its trainings."""
    training, kernels = kept("cuda-training"), kept("cuda-kernels")
    measured = {**training, **kernels}
    lines = _table(measured) if measured else []
    for one in goals.verdicts(measured, "cuda"):
        if one.case not in measured:
            against = (
                "the fastest peer" if one.figure == "ratio" else one.figure[len("ratio to ") :]
            )
            lines.append(f"- {one.case}: {one.text(one.value)} to {against}, geometric mean")
    for name, result in sorted(kept("cuda-accuracy").items()):
        runs = result["runs"]
        right, seconds = (mean(run[what] for run in runs) for what in ("accuracy", "seconds"))
        lines.append(
            f"- `{name}` after {result['epochs']} epochs: {100 * right:.2f} % of the test images, "
            f"{seconds:.3g} s, means of {len(runs)} seeds: `{result['command']}`"
        )
    return lines + _origins({"training": training, "kernels": kernels})


def _table(measured: dict[str, Any]) -> list[str]:
    lines = [
        "| case | chainrule | rate | of the probe | fastest peer | its time | ratio "
        "| to PyTorch's default |",
        "| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    for name, record in measured.items():
        if row := _row(name, record):
            lines.append("| " + " | ".join(row) + " |")
    return [*lines, ""]


def _machine(found: dict[str, Any]) -> str:
    if "gpu" in found:
        card = found["gpu"]
        clock = f", at most {card['clock_khz'] / 1e6:.2f} GHz" if "clock_khz" in card else ""
        return f"on {card['description']} ({card['driver'] or 'no driver'}){clock}"
    return (
        f"on {found['cpus']} CPUs ({found['cpu']}), {found['threads']} threads, "
        f"backend {found['backend']}, {found['compiler']}"
    )


def _row(name: str, record: dict[str, Any]) -> list[str] | None:
    mine, other, ratio = figures.ours(record), figures.fastest(record), figures.ratio(record)
    if mine is None:
        return None
    seconds = float(mine[1]["median"])
    unit = "GFLOP/s" if record["bound"] == "compute" else "GB/s"
    reached = figures.rate(record, seconds)
    row = [
        f"`{name}`" + (" (noisy)" if record["noisy"] else ""),
        figures.time_text(seconds),
        f"{reached / 1e9:,.{0 if reached >= 1e11 else 1}f} {unit}",
        f"{reached / figures.roof(record):.0%}",
    ]
    if other is None or ratio is None:
        return [*row, "-", "-", "-", "-"]
    default = figures.ratio(record, "torch default")
    return [
        *row,
        other[0],
        figures.time_text(float(other[1]["median"])),
        f"**{ratio.value:.2f}** ({ratio.low:.2f}–{ratio.high:.2f})",
        f"{default.value:.2f}" if default else "-",
    ]


def _origins(groups: dict[str, dict[str, Any]]) -> list[str]:
    """Return a line for each commit and machine: a result may be newer than others."""
    lines: list[str] = []
    for group, cases in groups.items():
        found: dict[str, list[str]] = {}
        versions: dict[str, str] = {}
        for name, record in cases.items():
            m = record["machine"]
            command = record["command"].rpartition(" ")[0]
            versions |= record.get("versions", {})
            where = f"`{command}` at commit {m['commit']}, {_machine(m)}"
            found.setdefault(where, []).append(name)
        most = max(found.values(), key=len, default=[])
        for where, names in sorted(found.items(), key=lambda item: item[1] is most):
            which = ", ".join(f"`{name}`" for name in names)
            if names is most:
                which = group if len(found) == 1 else f"the other {group}"
            lines.append(f"- {which}: {where}")
        versions.pop("chainrule", None)
        if versions:
            beside = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
            lines[-1] += f"; beside {beside}"
    return lines
