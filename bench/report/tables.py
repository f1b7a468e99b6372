"""The tables of README.md and bench/README.md, made from the committed results."""

from __future__ import annotations

from statistics import mean
from typing import Any

from bench.harness import machine, records
from bench.report import figures, goals

# The cases in README.md. bench/README.md has all cases.
SUMMARY = (
    "cnn",
    "lenet",
    "mlp",
    "mlp-10-32-32-10",
    "matmul-1024",
    "conv2d-n128c32-26-k64-3x3",
)


def committed(group: str) -> dict[str, Any]:
    """Return the committed results of a group by case name; an empty dict if there are none."""
    return records.read(machine.RESULTS / f"{group}.json")


def summary_table() -> list[str]:
    """Return a short table: the time per call and the ratio to the fastest peer."""
    measured = {**committed("training"), **committed("kernels")}
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
        for name, result in sorted(committed("accuracy").items())
    ]
    return [", ".join(means)]


def accuracy_table() -> list[str]:
    """Return the test accuracy of each network and seed, with the command that measured it."""
    results = committed("accuracy")
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
        machine_info = result["machine"]
        commit = machine_info["commit"]
        lines.append(
            f"- `{name}`: `{result['command']}` at commit {commit}, {_machine_text(machine_info)}"
        )
    return lines


def speed_table() -> list[str]:
    """Return the table of all cases; an empty list if nothing has been measured."""
    training, kernels = committed("training"), committed("kernels")
    measured = {**training, **kernels}
    if not measured:
        return []
    lines = _table(measured)
    for name, record in committed("import").items():
        values = ", ".join(_value_text(key, value) for key, value in record["values"].items())
        lines.append(f"- `{name}`: {values}")
    return lines + _origins(
        {"training": training, "kernels": kernels, "import": committed("import")}
    )


def gpu_table() -> list[str]:
    """Return the table of all cases on a GPU, geometric means of goals, and accuracies."""
    training, kernels = committed("cuda-training"), committed("cuda-kernels")
    measured = {**training, **kernels}
    lines = _table(measured) if measured else []
    for verdict in goals.verdicts(measured, "cuda"):
        if verdict.case not in measured:
            peer = verdict.figure.removeprefix("ratio to ")
            peer = "the fastest peer" if peer == "ratio" else peer
            value = verdict.text(verdict.value)
            lines.append(f"- {verdict.case}: {value} to {peer}, geometric mean")
    for name, result in sorted(committed("cuda-accuracy").items()):
        runs = result["runs"]
        accuracy, seconds = (mean(run[key] for run in runs) for key in ("accuracy", "seconds"))
        lines.append(
            f"- `{name}` after {result['epochs']} epochs: test accuracy {100 * accuracy:.2f} %, "
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


def _value_text(key: str, value: float) -> str:
    """Return "119 megabytes of chainrule", or "chainrule / torch = 0.236" for a ratio."""
    return f"{key} = {value:.3g}" if "/" in key else f"{value:.3g} {key}"


def _machine_text(info: dict[str, Any]) -> str:
    if "gpu" in info:
        gpu = info["gpu"]
        clock = f", at most {gpu['clock_khz'] / 1e6:.2f} GHz" if "clock_khz" in gpu else ""
        return f"on {gpu['description']} ({gpu['driver'] or 'no driver'}){clock}"
    return (
        f"on {info['cpus']} CPUs ({info['cpu']}), {info['threads']} threads, "
        f"backend {info['backend']}, {info['compiler']}"
    )


def _row(name: str, record: dict[str, Any]) -> list[str] | None:
    own, peer, ratio = figures.own_best(record), figures.fastest(record), figures.ratio(record)
    if own is None:
        return None
    seconds = float(own[1]["median"])
    unit = "GFLOP/s" if record["bound"] == "compute" else "GB/s"
    reached = figures.rate(record, seconds)
    row = [
        f"`{name}`" + (" (noisy)" if record["noisy"] else ""),
        figures.time_text(seconds),
        f"{reached / 1e9:,.{0 if reached >= 1e11 else 1}f} {unit}",
        f"{reached / figures.probe_rate(record):.0%}",
    ]
    if peer is None or ratio is None:
        return [*row, "-", "-", "-", "-"]
    default = figures.ratio(record, "torch default")
    return [
        *row,
        peer[0],
        figures.time_text(float(peer[1]["median"])),
        f"**{ratio.value:.2f}** ({ratio.low:.2f}–{ratio.high:.2f})",
        f"{default.value:.2f}" if default else "-",
    ]


def _origins(groups: dict[str, dict[str, Any]]) -> list[str]:
    """Return a line per command, commit and machine, with the cases measured there."""
    lines: list[str] = []
    for group, cases in groups.items():
        cases_of: dict[str, list[str]] = {}
        versions: dict[str, str] = {}
        for name, record in cases.items():
            info = record["machine"]
            command = record["command"].rpartition(" ")[0]
            versions |= record.get("versions", {})
            origin = f"`{command}` at commit {info['commit']}, {_machine_text(info)}"
            cases_of.setdefault(origin, []).append(name)
        most = max(cases_of.values(), key=len, default=[])
        for origin, names in sorted(cases_of.items(), key=lambda item: item[1] is most):
            label = ", ".join(f"`{name}`" for name in names)
            if names is most:
                label = group if len(cases_of) == 1 else f"the other {group} cases"
            lines.append(f"- {label}: {origin}")
        versions.pop("chainrule", None)
        if versions:
            peers = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
            lines[-1] += f"; peers: {peers}"
    return lines
