"""The seeds and the kept inputs of each fuzzer keep their promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent
TARGETS = ("load", "idx", "picture", "cli")


@pytest.mark.parametrize("target", TARGETS)
def test_every_kept_input_keeps_the_promises(target: str, tmp_path: Path) -> None:
    if target in ("picture", "cli"):
        pytest.importorskip("PIL")
        pytest.importorskip("click")
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"fuzz_{target}.py"), "--replay"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    count, _, rest = done.stdout.strip().splitlines()[-1].partition(" inputs, ")
    assert int(count) >= 10
    assert rest == "0 findings"


def test_the_kept_corpus_is_small() -> None:
    files = [path for path in (FOLDER / "corpus").rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(TARGETS)
    assert sum(path.stat().st_size for path in files) < 300_000
