"""A killed process, a full disk and short memory leave a complete file and a usable library."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import chainrule as cr
from chainrule.training.history import Epoch, History

SUPPORT = Path(__file__).parents[1] / "support"


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SUPPORT / script), *arguments],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def fast_folder(tmp_path: Path) -> Iterator[str]:
    """Return a folder in memory if there is one: a kill needs no disk."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=base) as folder:
        yield folder


def test_200_kills_during_save(fast_folder: str) -> None:
    """More by hand: ``python tests/support/killed_saves.py FOLDER COUNT SEED``."""
    shown = run("killed_saves.py", fast_folder, "200", "1")
    assert shown.startswith("200 kills")
    assert " 0 of them" not in shown


@pytest.mark.parametrize(
    "operation", ["save", "load", "to_csv", "digits", "png", "jpeg", "bmp", "gif", "tiff", "webp"]
)
def test_short_memory(fast_folder: str, operation: str) -> None:
    shown = run("short_memory.py", fast_folder, operation).split()
    if shown == ["absent"]:
        pytest.skip("Pillow is not installed: pip install 'chainrule[cli]'")
    assert shown in (["ok"], ["MemoryError", "ok"])
    # A file is written from the memory of the parameters, in parts.
    assert "MemoryError" in shown or operation in {"save", "to_csv"}


def large(value: float) -> cr.Sequential:
    net = cr.Sequential(cr.Linear(600), input_shape=(600,))
    net.parameter_vector = np.full(net.parameter_vector.size, value, np.float32)
    return net


def test_limit_of_the_file_size(tmp_path: Path) -> None:
    path, table = tmp_path / "net.safetensors", tmp_path / "history.csv"
    history = History([Epoch(1, 0.5, None, None, None, 0.1, 2.0)] * 10_000)
    large(1.0).save(path)
    history.to_csv(table)
    before = path.read_bytes(), table.read_bytes()
    net = large(2.0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        for write, file in ((net.save, path), (history.to_csv, table)):
            with pytest.raises(OSError, match=f"{file.name}'$") as caught:
                write(file)
            assert caught.value.errno == errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (path.read_bytes(), table.read_bytes()) == before
    assert sorted(os.listdir(tmp_path)) == ["history.csv", "net.safetensors"]
    net.save(path)
    assert cr.load(path).parameter_vector[0] == 2.0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_full_disk(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        path = tmp_path / "net.safetensors"
        large(1.0).save(path)  # 1.4 MB
        with pytest.raises(OSError, match=r"No space left on device: '.*net\.safetensors'$"):
            large(2.0).save(path)
        assert cr.load(path).parameter_vector[0] == 1.0
        assert os.listdir(tmp_path) == ["net.safetensors"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
