"""Read and write the files of results.

A file has two parts. ``machines`` lists each machine, commit and set of library versions once.
``cases`` has one record per case, whose ``machine`` is an index into that list.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# The keys of a record that are stored in the list of machines.
SHARED = ("machine", "versions")


def read(path: Path) -> dict[str, Any]:
    """Return the records of a file by case name, each with its machine; {} if there is no file."""
    if not path.exists():
        return {}
    file = json.loads(path.read_text())
    machines: list[dict[str, Any]] = file["machines"]
    return {
        name: {**record, **machines[record["machine"]]} for name, record in file["cases"].items()
    }


def write(path: Path, records: dict[str, Any]) -> None:
    """Write records by case name. The write is atomic: an interrupt leaves the old file."""
    machines: list[dict[str, Any]] = []
    cases: dict[str, Any] = {}
    for name, record in records.items():
        shared = {key: record[key] for key in SHARED if key in record}
        if shared not in machines:
            machines.append(shared)
        own = {key: value for key, value in record.items() if key not in SHARED}
        cases[name] = {"machine": machines.index(shared), **own}
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"machines": machines, "cases": cases}, indent=1) + "\n")
    new.replace(path)
