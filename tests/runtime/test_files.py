"""Paths have one meaning, readers open regular files only, and writers replace or leave a file."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import _files, data
from chainrule._files import expanded, expanded_path, open_regular, replace_file, shown
from chainrule.training.history import Epoch, History

HISTORY = History([Epoch(1, 0.5, None, None, None, 0.1, 2.0)])


def tiny(value: float = 0.0) -> cr.Sequential:
    net = cr.Sequential(cr.Linear(2), input_shape=(3,))
    net.parameter_vector = np.full(8, value, np.float32)
    return net


WRITERS: dict[str, Callable[[Any], None]] = {
    "save": lambda path: tiny().save(path),
    "to_csv": HISTORY.to_csv,
}
READERS: dict[str, Callable[[Any], object]] = {"load": cr.load, "read_idx": data.read_idx}

# Names

NAMES = {
    "255 bytes": "n" * 255,
    "255 bytes of UTF-8": "ä" * 127 + "x",
    "one letter": "m",
    "format characters": "%s{0}%(x)d.safetensors",
    "spaces": " a b ",
    "leading dot": ".hidden",
    "leading hyphen": "-rf",
    "no user": "~nobody-of-this-name",
    "pattern": "net[1]*?.safetensors",
    "line feed": "a\nb",
    "not UTF-8": os.fsdecode(b"\xff\xfe.safetensors"),
    "temporary": ".m.0123456789abcdef.tmp",
}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("writer", WRITERS)
def test_every_legal_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name = NAMES[kind]
    for path in (name, tmp_path / name, os.fsencode(name), os.fsencode(tmp_path / name)):
        WRITERS[writer](path)
        assert os.listdir(tmp_path) == [name]
        if writer == "save":
            assert cr.load(path).output_shape == (2,)
        os.unlink(name)


@pytest.mark.parametrize("writer", WRITERS)
def test_long_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    # The path has the largest legal length. One that is only a little longer would fail.
    folder = str(tmp_path)
    while len(folder) < 4093:
        folder += "/" + "d" * min(200, 4092 - len(folder))
        os.mkdir(folder)
    WRITERS[writer](folder + "/m")
    assert os.listdir(folder) == ["m"]
    monkeypatch.chdir(folder)
    os.mkdir("deeper")
    monkeypatch.chdir("deeper")  # its absolute path is too long for the system
    WRITERS[writer]("m")
    assert os.listdir() == ["m"]


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("", ValueError, "path must not be empty"),
        (b"", ValueError, "path must not be empty"),
        ("a\0b", ValueError, r"path must not contain a null character, got 'a\\x00b'"),
        ("a\ud800", ValueError, "path must have valid characters"),
        (3, TypeError, "path must be a str, bytes or os.PathLike, got int"),
        (None, TypeError, "path must be a str, bytes or os.PathLike, got NoneType"),
    ],
)
@pytest.mark.parametrize("name", [*WRITERS, *READERS])
def test_invalid_paths(name: str, path: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{name}: {message}"):
        (WRITERS | READERS)[name](path)


def test_shown_escapes_what_cannot_be_printed() -> None:
    assert shown(b"a b\x1b[31m\xff\n\xc3\xa4") == r"a b\x1b[31m\udcff\nä"


# The home folder


def test_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    tiny(1.0).save("~/net.safetensors")
    HISTORY.to_csv(Path("~/history.csv"))
    assert sorted(os.listdir(tmp_path)) == ["history.csv", "net.safetensors"]
    assert cr.load(b"~/net.safetensors").parameter_vector[0] == 1.0
    assert expanded("load", "~") == str(tmp_path)
    assert expanded("load", "~root/x") == os.path.expanduser("~root/x")
    assert expanded("load", "a/~") == "a/~"
    assert expanded("load", "./~") == "./~"
    assert expanded_path("load", "./~/x") == tmp_path / "~" / "x"
    monkeypatch.setenv("HOME", "/")
    assert (expanded("load", "~"), expanded("load", "~/x")) == ("/", "/x")


def test_unknown_home_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(user: int) -> None:
        raise KeyError(user)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    for home in ("", "relative"):
        monkeypatch.setenv("HOME", home)
        for name, function in (WRITERS | READERS).items():
            with pytest.raises(
                ValueError, match=f"^{name}: path must not begin with ~ if the home folder is un"
            ):
                function("~/x")
        with pytest.raises(ValueError, match=r"^mnist: path must not begin with ~"):
            data.mnist("~/x", download=False)
    assert os.listdir(tmp_path) == []


# Kinds of files


@pytest.fixture
def special(tmp_path: Path) -> dict[str, Path]:
    """Return files that are not regular, by the name that a message has for them."""
    found = {"a named pipe": tmp_path / "pipe", "a socket": tmp_path / "socket"}
    os.mkfifo(found["a named pipe"])
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(found["a socket"]))
    if os.geteuid() == 0:
        found["a device"] = tmp_path / "zero"
        os.mknod(found["a device"], stat.S_IFCHR | 0o666, os.makedev(1, 5))
    link = tmp_path / "link"
    link.symlink_to("pipe")
    return found


@pytest.mark.parametrize("name", [*WRITERS, *READERS])
def test_special_files_are_refused_and_stay(name: str, special: dict[str, Path]) -> None:
    folder = special["a socket"].parent
    before = {path: os.lstat(folder / path).st_mode for path in os.listdir(folder)}
    for kind, path in special.items():
        with pytest.raises(ValueError, match=f"^{name}: {path}: path must be a regular file, got"):
            (WRITERS | READERS)[name](path)
        with pytest.raises(ValueError, match=f"got {kind}$"):
            (WRITERS | READERS)[name](path)
    with pytest.raises(ValueError, match=r"link: path must be a regular file, got a named pipe$"):
        (WRITERS | READERS)[name](folder / "link")
    error = ValueError if name == "load" else IsADirectoryError
    for path in (folder, f"{folder}/", f"{folder}/.", f"{folder}/.."):
        with pytest.raises(error, match=f"^{name}: .*path must be a regular file, got a folder$"):
            (WRITERS | READERS)[name](path)
    assert {path: os.lstat(folder / path).st_mode for path in os.listdir(folder)} == before


def test_the_current_folder_is_named_in_the_message() -> None:
    with pytest.raises(ValueError, match=r"^load: \.: path must be a regular file, got a folder$"):
        cr.load(".")


def test_a_file_that_becomes_a_pipe_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    os.mkfifo(path)
    regular = os.stat(__file__)
    monkeypatch.setattr(_files.os, "stat", lambda _: regular)  # before the pipe had the name
    with pytest.raises(ValueError, match=r"^load: .*: path must be a regular file, got a named"):
        open_regular("load", path)


# Replacing


@pytest.mark.parametrize("writer", WRITERS)
def test_links(tmp_path: Path, writer: str) -> None:
    (tmp_path / "folder").mkdir()
    real, link, hard = tmp_path / "folder" / "real", tmp_path / "link", tmp_path / "hard"
    real.write_text("old")
    os.link(real, hard)
    link.symlink_to("folder/middle")
    (tmp_path / "folder" / "middle").symlink_to("real")
    WRITERS[writer](link)
    assert link.is_symlink()
    assert real.read_bytes() != b"old"
    assert hard.read_text() == "old"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=r"loop'$") as caught:
        WRITERS[writer](tmp_path / "loop")
    assert caught.value.errno == errno.ELOOP
    assert sorted(os.listdir(tmp_path / "folder")) == ["middle", "real"]


@pytest.mark.parametrize("mode", [0o444, 0o600, 0o640, 0o755])
def test_mode_and_owner_stay(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "net.safetensors"
    path.write_text("old")
    path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, 12345, 23456)
    before = path.stat()
    tiny().save(path)
    after = path.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode, before.st_uid, before.st_gid
    )  # fmt: skip


IN_A_FOLDER_THAT_CANNOT_BE_LISTED = """
import os, sys
import chainrule as cr, chainrule.nn.serialization
folder = sys.argv[1]
net = cr.Sequential(cr.Linear(3), input_shape=(4,))
net.vector
if os.geteuid() == 0:
    os.setgid(12345)
    os.setuid(12345)
os.chmod(folder, 0o300)
for _ in range(2):
    net.save(folder + "/m.safetensors")
os.chmod(folder, 0o700)
print(os.listdir(folder))
"""


def test_folder_that_cannot_be_listed() -> None:
    folder = tempfile.mkdtemp()  # tmp_path is below a folder of this user only
    try:
        if os.geteuid() == 0:
            os.chown(folder, 12345, 12345)
        done = subprocess.run(
            [sys.executable, "-c", IN_A_FOLDER_THAT_CANNOT_BE_LISTED, folder],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.stdout == "['m.safetensors']\n", done.stderr
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("free", [0, 1, 2])
def test_without_spare_descriptors(tmp_path: Path, free: int) -> None:
    path = tmp_path / "net.safetensors"
    tiny(1.0).save(path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(free):
            os.close(held.pop())
        if free:
            tiny(2.0).save(path)
        else:
            with pytest.raises(OSError, match=r"net\.safetensors'$"):
                tiny(2.0).save(path)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert cr.load(path).parameter_vector[0] == 1.0 + (free > 0)
    assert os.listdir(tmp_path) == ["net.safetensors"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.EIO])
def test_folder_that_cannot_be_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fsync = os.fsync

    def folder_fails(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", folder_fails)
    tiny(3.0).save(tmp_path / "net.safetensors")
    assert cr.load(tmp_path / "net.safetensors").parameter_vector[0] == 3.0


@pytest.mark.parametrize("call", ["fsync", "fchmod", "fchown"])
def test_file_systems_without_a_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "net.safetensors"
    path.write_text("old")
    path.chmod(0o640)

    def unsupported(*arguments: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, call, unsupported)
    tiny(4.0).save(path)
    assert cr.load(path).parameter_vector[0] == 4.0


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_errors_have_the_path_as_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.chdir(tmp_path)
    original = getattr(os, call)

    def fails(*arguments: Any, **options: Any) -> Any:
        if call == "open" and not arguments[1] & os.O_CREAT:
            return original(*arguments, **options)
        raise OSError(errno.EDQUOT, "Disk quota exceeded", ".x.tmp")

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(OSError, match=r"^\[Errno \d+\] Disk quota exceeded: 'net'$") as caught:
        tiny().save("net")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert os.listdir() == []


def test_missing_folder_and_file_as_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, function in (WRITERS | READERS).items():
        with pytest.raises(FileNotFoundError, match=r"none/x'$"):
            function(tmp_path / "none/x")
        with pytest.raises(NotADirectoryError, match=r"file/x'$"):
            function(tmp_path / "file/x")
        if name in WRITERS:
            with pytest.raises(IsADirectoryError, match="got a folder"):
                function(f"{tmp_path}/new/")


def test_temporary_files_of_killed_writers_are_removed_for_long_names(tmp_path: Path) -> None:
    name = "é" * 100 + "x" * 55  # 255 bytes
    start = _files._temporary_start(name)
    stray, young = (tmp_path / f"{start}{digit * 16}.tmp" for digit in "01")
    assert len(os.fsencode(stray.name)) <= 255
    stray.write_bytes(b"")
    young.write_bytes(b"")
    os.utime(stray, (time.time() - 7200,) * 2)
    replace_file("save", tmp_path / name, [b"x"])
    assert sorted(os.listdir(tmp_path)) == sorted([young.name, name])


def test_two_writers_at_once(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    tiny(1.0).save(path)

    def write(value: float) -> None:
        net = tiny(value)
        for _ in range(100):
            net.save(path)

    threads = [threading.Thread(target=write, args=(value,)) for value in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        values = np.unique(cr.load(path).parameter_vector)
        assert values.size == 1
        seen.add(float(values[0]))
    assert seen <= {1.0, 2.0}
    assert os.listdir(tmp_path) == ["net.safetensors"]
