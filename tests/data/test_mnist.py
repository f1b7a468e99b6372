"""Loading MNIST: search folders, checksums, download from failing mirrors, torchvision."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import importlib.util
import os
import re
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.data import Dataset, digits, mnist, sources

NAMES = tuple(sources.CHECKSUMS)
REAL = os.environ.get("CHAINRULE_DATA")
needs_mnist = pytest.mark.skipif(not REAL, reason="CHAINRULE_DATA is not set")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    """The .gz files of the embedded digits, with their checksums patched in, and empty folders."""
    folder = Path(sources.__file__).parent / "digits"
    files = {name: (folder / f"{name}.gz").read_bytes() for name in NAMES}
    sums = {
        name: (hashlib.sha256(data).hexdigest(), hashlib.sha256(gzip.decompress(data)).hexdigest())
        for name, data in files.items()
    }
    monkeypatch.setattr(sources, "CHECKSUMS", sums)
    monkeypatch.setattr(sources, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("CHAINRULE_DATA", raising=False)
    return files


def write_files(folder: Path, files: dict[str, bytes], packed: bool = True) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(data if packed else gzip.decompress(data))
    return folder


def assert_digits(pair: tuple[Dataset, Dataset]) -> None:
    for got, expected in zip(pair, digits(), strict=True):
        np.testing.assert_array_equal(got.images, expected.images)
        np.testing.assert_array_equal(got.labels, expected.labels)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("below", ["MNIST/raw", "raw", "."])
def test_mnist_folder_layouts(
    small: dict[str, bytes], tmp_path: Path, below: str, packed: bool
) -> None:
    write_files(tmp_path / "root" / below, small, packed)
    assert_digits(mnist(tmp_path / "root", download=False))
    assert_digits(mnist(str(tmp_path / "root"), download=False))


def test_mnist_searches_root_then_environment_then_cache(
    small: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, data, cache = (tmp_path / name for name in ("root", "data", "cache"))
    monkeypatch.setenv("CHAINRULE_DATA", str(data))
    write_files(cache / "MNIST" / "raw", small)
    assert_digits(mnist(root, download=False))
    # A damaged file in an earlier folder is an error, even if a later folder is valid.
    for folder, name in ((data, NAMES[2]), (root, NAMES[1])):
        write_files(folder, {**small, name: small[NAMES[3]]})
        with pytest.raises(ValueError, match=re.escape(str(folder / name))):
            mnist(root, download=False)


def test_mnist_checksum_names_file_and_both_hashes(small: dict[str, bytes], tmp_path: Path) -> None:
    wrong = bytearray(gzip.decompress(small[NAMES[0]]))
    wrong[5000] ^= 1
    write_files(tmp_path / "root", {**small, NAMES[0]: gzip.compress(wrong, 1)})
    path = tmp_path / "root" / f"{NAMES[0]}.gz"
    actual, expected = hashlib.sha256(wrong).hexdigest(), sources.CHECKSUMS[NAMES[0]][1]
    message = (
        f"^mnist: {re.escape(str(path))}: SHA-256 of the data must be {expected}, got {actual}; "
        ".*data.idx_folder"
    )
    with pytest.raises(ValueError, match=message):
        mnist(tmp_path / "root", download=False)


def test_mnist_not_found_lists_folders_and_remedies(
    small: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path / "root" / "raw", dict(list(small.items())[:3]))
    monkeypatch.setenv("CHAINRULE_DATA", str(tmp_path / "absent"))
    (tmp_path / "cache").mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        mnist(tmp_path / "root", download=False)
    text = str(caught.value)
    assert f"root: {tmp_path / 'root'} (3 of 4 files)" in text
    assert f"CHAINRULE_DATA: {tmp_path / 'absent'} (no such folder)" in text
    assert f"cache: {tmp_path / 'cache'} (0 of 4 files)" in text
    for remedy in ("download=True", "set CHAINRULE_DATA", "data.digits()", "--embedded"):
        assert remedy in text


def test_mnist_source_is_checked() -> None:
    keras: Any = "keras"
    with pytest.raises(ValueError, match="source must be None or \"torchvision\", got 'keras'"):
        mnist(source=keras)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="XDG folders exist only on Linux")
def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert sources.cache_folder() == Path("/somewhere/chainrule")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert sources.cache_folder() == Path("/home/me/.cache/chainrule")


class Mirrors:
    """A local HTTP server with one folder per fault, which records the requested paths."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.requested: list[str] = []
        self.closing = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fault, name = self.path.strip("/").split("/")
                outer.requested.append(f"{fault}/{name}")
                data = files[name.removesuffix(".gz")]
                length = len(data)
                if fault == "silent":
                    if name.startswith(NAMES[0]):  # one timeout is enough
                        outer.closing.wait()
                        return
                    fault = "404"
                if fault == "html":
                    data = b"<!DOCTYPE html><html><body>This domain is for sale</body></html>"
                    length = len(data)
                elif fault == "short":
                    data = data[: len(data) // 2]
                    length = len(data)
                elif fault == "404":
                    data, length = b"", 0
                elif fault == "cut":
                    data = data[: len(data) // 2]
                self.send_response(404 if fault == "404" else 200)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def url(self, fault: str) -> str:
        # No server listens on port 9 (discard) of the loopback address.
        port = 9 if fault == "refused" else self.server.server_port
        return f"http://127.0.0.1:{port}/{fault}/"

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def mirrors(small: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirrors]:
    pytest.importorskip("pooch")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(sources, "TIMEOUT", 2)
    server = Mirrors(small)
    yield server
    server.close()


FAULTS = ("404", "html", "short", "cut", "refused", "silent")


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("fault", FAULTS)
def test_mnist_download_falls_back_to_the_second_mirror(
    mirrors: Mirrors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(sources, "MIRRORS", (mirrors.url(fault), mirrors.url("good")))
    assert_digits(mnist())
    raw = tmp_path / "cache" / "MNIST" / "raw"
    assert files_below(tmp_path) == files_below(raw) == sorted(f"{name}.gz" for name in NAMES)
    expected = [f"{mirror}/{name}.gz" for name in NAMES for mirror in (fault, "good")]
    assert mirrors.requested == [path for path in expected if not path.startswith("refused")]

    mirrors.requested.clear()  # the second call finds the files without a request
    assert_digits(mnist())
    assert mirrors.requested == []


@pytest.mark.parametrize("fault", FAULTS)
def test_mnist_failed_download_lists_errors_and_leaves_no_file(
    mirrors: Mirrors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(sources, "MIRRORS", (mirrors.url(fault), mirrors.url("404")))
    with pytest.raises(
        FileNotFoundError,
        match=r"^mnist: the data set must be in a known folder or on a mirror, got",
    ) as caught:
        mnist()
    text = str(caught.value)
    assert f"cache: {tmp_path / 'cache'} (no such folder)" in text
    assert f"{mirrors.url(fault)}{NAMES[0]}.gz: " in text
    assert f"{mirrors.url('404')}{NAMES[0]}.gz: 404" in text
    if fault in ("html", "short"):
        assert sources.CHECKSUMS[NAMES[0]][0] in text
    assert files_below(tmp_path) == []


def test_mnist_downloads_missing_files_to_root(
    mirrors: Mirrors,
    small: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sources, "MIRRORS", (mirrors.url("good"),))
    raw = write_files(tmp_path / "root" / "MNIST" / "raw", dict(list(small.items())[:2]))
    assert_digits(mnist(tmp_path / "root"))
    assert len(files_below(raw)) == 4
    assert mirrors.requested == [f"good/{name}.gz" for name in NAMES[2:]]
    assert not (tmp_path / "cache").exists()


def test_mnist_without_pooch(
    small: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r'pooch.*pip install "chainrule\[cli\]"') as caught:
        mnist()
    assert str(tmp_path / "cache") in caught.value.__notes__[0]


class FakeTorchvision(types.ModuleType):
    """A replacement of torchvision.datasets for tests without PyTorch."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__("torchvision.datasets")

        class MNIST:
            def __init__(self, root: str, train: bool, download: bool) -> None:
                self.raw_folder = os.path.join(root, "MNIST", "raw")
                if download:
                    write_files(Path(self.raw_folder), files, packed=False)
                elif not os.path.exists(self.raw_folder):
                    raise RuntimeError("Dataset not found.")

        self.MNIST = MNIST


def test_mnist_through_torchvision(
    small: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", FakeTorchvision(small))
    with pytest.raises(FileNotFoundError, match=r"torchvision, in .*cache: Dataset not found"):
        mnist(source="torchvision", download=False)
    assert_digits(mnist(source="torchvision"))
    assert_digits(mnist(tmp_path / "root", source="torchvision"))
    (tmp_path / "root" / "MNIST" / "raw" / NAMES[0]).unlink()
    with pytest.raises(FileNotFoundError, match=r"torchvision, in .*root: 3 files"):
        mnist(tmp_path / "root", source="torchvision", download=False)


def test_mnist_without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(ImportError, match=r'pip install "chainrule\[torchvision\]"'):
        mnist(source="torchvision")


@needs_mnist
def test_mnist_of_the_real_files() -> None:
    train, test = mnist(REAL, download=False)
    assert train.images.shape == (60000, 28, 28, 1)
    assert test.images.shape == (10000, 28, 28, 1)
    assert train.images.dtype == train.labels.dtype == np.uint8
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    # The mean gray value with which MNIST is usually normalized.
    assert round(float(train.images.mean() / 255), 4) == 0.1307


# A subprocess, because PyTorch has its own threads and warnings. PyPI's torchvision may fail to
# load its extension with a CPU-only PyTorch. It can be imported if its two operators are defined.
TORCHVISION = """
import subprocess, sys
import numpy as np
import torch
if subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode:
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import torchvision
from chainrule import data

root, empty = sys.argv[1:]
train, test = data.mnist(root, download=False, source="torchvision")
assert (len(train), len(test)) == (60000, 10000), (train, test)

theirs = torchvision.datasets.MNIST(root, train=False)
ours = data.from_dataset(theirs)
assert np.array_equal(ours.images, test.images) and ours.images.dtype == np.uint8
assert np.array_equal(ours.labels, test.labels)

to_tensor = torchvision.transforms.ToTensor()
theirs = torchvision.datasets.MNIST(root, train=False, transform=to_tensor)
ours = data.from_dataset(torch.utils.data.Subset(theirs, range(100)))
assert ours.images.dtype == np.float32 and ours.images.shape == (100, 28, 28, 1)
assert np.array_equal(ours.images, test.images[:100] / np.float32(255))

try:
    data.mnist(empty, download=False, source="torchvision")
except FileNotFoundError as error:
    assert "torchvision, in" in str(error), error
    print("works with torchvision", torchvision.__version__)
"""


@needs_mnist
def test_the_real_torchvision(tmp_path: Path) -> None:
    for module in ("torch", "torchvision", "PIL"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    folders = {"root": Path(str(REAL))}
    found, _ = sources._find(folders)
    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, path in found.items():
        data = path.read_bytes()
        (raw / name).write_bytes(gzip.decompress(data) if path.suffix == ".gz" else data)
    run = subprocess.run(
        [sys.executable, "-c", TORCHVISION, str(tmp_path / "root"), str(tmp_path / "empty")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("works"), run.stdout
