"""Information about the machine, the build and the commit of a measurement."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

import chainrule as cr

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def commit() -> str:
    """Return the current commit, with a plus sign if files in csrc or python differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "csrc", "python")
    return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")


def info() -> dict[str, Any]:
    build = cr.info()
    return {
        "cpu": cpu_model(),
        "cpus": build["cpus"],
        "threads": build["threads"],
        "backend": build["backend"],
        "compiler": build["compiler"],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "commit": commit(),
    }
