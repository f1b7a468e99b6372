"""No public call leaks memory, and each survives the lack of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SUPPORT = Path(__file__).resolve().parents[1] / "support"
# Larger numbers are for long runs by hand.
CALLS = os.environ.get("CHAINRULE_TEST_CALLS", "400")
# Bytes that the interpreter's own tables grow by during a series of few calls.
NOISE = 8192
STEPS = os.environ.get("CHAINRULE_TEST_LIMITS", "3")

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in /proc"),
    pytest.mark.skipif(
        bool(os.environ.get("CHAINRULE_BACKEND")),
        reason="CHAINRULE_BACKEND is set: kernels allocate nothing, so one backend is enough",
    ),
]


def report(script: str, *arguments: str, **environment: str) -> dict[str, Any]:
    """Return the JSON that a script of tests/support prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(SUPPORT / script), *arguments],
        capture_output=True,
        text=True,
        timeout=3600,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_no_call_leaks() -> None:
    """The smallest block of the C library's heap has 32 bytes."""
    found = report("leaks.py", CALLS, PYTHONMALLOC="malloc")
    assert len(found) > 70
    leaks = {
        name: (growth, calls)
        for name, (growth, _, calls) in found.items()
        if growth >= 30 and growth * calls > NOISE
    }
    assert leaks == {}


def test_every_call_survives_the_lack_of_memory() -> None:
    """MemoryError with a text, and the same call gives its result once there is memory."""
    outcomes = report("memory_sweep.py", STEPS)["outcomes"]
    assert len(outcomes) > 45
    faults = {
        name: text for name, found in outcomes.items() for text in found if text.startswith("fault")
    }
    assert faults == {}
    for name, found in outcomes.items():
        assert found.get("result"), name
    # Otherwise the limits were too high to fail anything.
    failed = [name for name, found in outcomes.items() if found.get("MemoryError")]
    assert len(failed) > 30, failed
