"""The README's table of speed, from the kept results."""

from __future__ import annotations

import json
from typing import Any

from bench import figures, machine


def kept(group: str) -> dict[str, Any]:
    path = machine.RESULTS / f"{group}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def speed_table() -> list[str]:
    """Return the lines between the markers; a sentence if nothing has been measured."""
    training, kernels = kept("training"), kept("kernels")
    measured = {**training, **kernels}
    if not measured:
        return []
    lines = [
        "| case | chainrule | rate | of the probe | fastest peer | its time | ratio "
        "| to PyTorch's default |",
        "| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    for name, record in measured.items():
        if row := _row(name, record):
            lines.append("| " + " | ".join(row) + " |")
    lines.append("")
    for name, record in kept("import").items():
        values = ", ".join(f"{value:.3g} {what}" for what, value in record["values"].items())
        lines.append(f"- `{name}`: {values}")
    return lines + _origins({"training": training, "kernels": kernels, "import": kept("import")})


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
        f"{reached / 1e9:.3g} {unit}",
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
    for group, records in groups.items():
        found: dict[str, list[str]] = {}
        versions: dict[str, str] = {}
        for name, record in records.items():
            m = record["machine"]
            command = record["command"].rpartition(" ")[0]
            versions |= record.get("versions", {})
            where = (
                f"`{command}` at commit {m['commit']}, on {m['cpus']} CPUs ({m['cpu']}), "
                f"{m['threads']} threads, backend {m['backend']}, {m['compiler']}"
            )
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
