"""The wheel runs on older processors, emulated by ``qemu-x86_64`` in user mode.

An AVX instruction in code that runs before the backend is chosen kills the emulated interpreter
with SIGILL. Debian and Ubuntu have the emulator in ``qemu-user``. If
CHAINRULE_REQUIRE_QEMU=1, its absence is a failure.
"""

from __future__ import annotations

import json
import os
import platform
import shutil

import pytest

from run_subprocess import run_child

EMULATOR = "qemu-x86_64"
# The machine may set a processor type for NumPy's BLAS that differs from the emulated one.
NUMPY = {"OPENBLAS_CORETYPE": None}


@pytest.fixture
def emulator() -> str:
    """Return the path of the emulator. Skip or fail if it is not installed."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the interpreter to emulate is not an x86-64 one")
    path = shutil.which(EMULATOR)
    if path is None:
        problem = f"{EMULATOR} not found: apt-get install qemu-user"
        if os.environ.get("CHAINRULE_REQUIRE_QEMU") == "1":
            pytest.fail(problem)
        pytest.skip(problem)
    return path


@pytest.mark.parametrize(
    ("cpu", "possible"),
    [
        # Core i7 of 2008: SSE4.2 (NumPy's own floor), no AVX.
        ("Nehalem", ("scalar", "sse2")),
        # 2011: AVX without AVX2 or FMA. 2013: both, no AVX-512.
        ("SandyBridge", ("scalar", "sse2")),
        ("Haswell", ("scalar", "sse2", "avx2")),
    ],
)
def test_older_processors_choose_their_best_backend_and_train(
    emulator: str, cpu: str, possible: tuple[str, ...]
) -> None:
    output = run_child("emulated", emulator=(emulator, "-cpu", cpu), seconds=300,
                       CHAINRULE_BACKEND=None, CHAINRULE_NUM_THREADS="2", **NUMPY)  # fmt: skip
    report = json.loads(output)
    assert tuple(report["backends"]) == possible
    assert report["info"]["backend"] == possible[-1]
    before, after = report["losses"]
    assert after < before


def test_unsupported_backend_raises(emulator: str) -> None:
    with pytest.raises(AssertionError, match="backend must be one of scalar, sse2, got"):
        run_child("emulated", emulator=(emulator, "-cpu", "Nehalem"), seconds=300,
                  CHAINRULE_BACKEND="avx2", **NUMPY)  # fmt: skip
