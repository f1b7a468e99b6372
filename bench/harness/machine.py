"""What a figure was measured on."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

import chainrule as cr

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def commit() -> str:
    """The commit that is checked out, with a plus sign if tracked files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "csrc", "python")
    return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")


def facts() -> dict[str, Any]:
    info = cr.info()
    return {
        "cpu": cpu(),
        "cpus": info["cpus"],
        "threads": info["threads"],
        "backend": info["backend"],
        "compiler": info["compiler"],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "commit": commit(),
    }
