"""The IDX reader: valid files are read, and any other file raises IdxError."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chainrule.data import IdxError, read_idx
from chainrule.data.idx import LARGE, MAX_BYTES, sha256

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(array: np.ndarray[Any, Any]) -> bytes:
    big = array.astype(array.dtype.newbyteorder(">"))
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, CODES[array.dtype.str[1:]], array.ndim,
                         *array.shape)  # fmt: skip
    return header + big.tobytes()


def small() -> np.ndarray[Any, Any]:
    """Return an incompressible array of about 1 kB, so that its gzip also has about 1 kB."""
    return np.random.default_rng(0).integers(0, 256, (4, 15, 17), np.uint8)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (3, 0, 2), (2, 3, 5), (1,) * 8])
def test_read_idx_round_trip(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, packed: bool
) -> None:
    array = (np.random.default_rng(1).standard_normal(shape) * 100).astype(dtype)
    path = tmp_path / "any-name"
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    read = read_idx(path)
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype
    assert read.dtype.isnative
    assert not read.flags.writeable


def test_read_idx_of_many_chunks(tmp_path: Path) -> None:
    array = np.random.default_rng(2).integers(0, 256, (300, 1009), np.uint8)
    for data in (idx(array), gzip.compress(idx(array))):
        (tmp_path / "a").write_bytes(data)
        np.testing.assert_array_equal(read_idx(tmp_path / "a"), array)


def test_sha256_is_that_of_the_plain_file(tmp_path: Path) -> None:
    assert sha256(small()) == hashlib.sha256(idx(small())).hexdigest()


def header(code: int, *shape: int) -> bytes:
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


BAD = {
    "empty": (b"", "must begin with a 4-byte magic number, got 0 bytes"),
    "html": (b"<!DOCTYPE html><html>Not found</html>", "two zero bytes, got 3c21"),
    "png": (b"\x89PNG\r\n\x1a\n", "two zero bytes, got 8950"),
    "type code": (header(0x0A, 1) + b"\0", "type code must be one of 0x08, .*, got 0x0a"),
    "no dimension": (header(0x08), "must have 1 to 8 dimensions, got 0"),
    "nine dimensions": (header(0x08, *[1] * 9) + b"\0", "1 to 8 dimensions, got 9"),
    "255 dimensions": (b"\0\0\x08\xff", "must have 1 to 8 dimensions, got 255"),
    "header": (header(0x08, 2, 2)[:-1], "header must be complete, got a truncated one"),
    "truncated": (
        header(0x08, 2, 2) + b"abc",
        r"file of shape \(2, 2\) must have 16 bytes, got 15",
    ),
    "trailing": (header(0x08, 2, 2) + b"abcde", "must have 16 bytes, got 17"),
    "element size": (header(0x0D, 2) + bytes(7), "must have 16 bytes, got 15"),
    "length": (
        header(0x08, 2**32 - 1),
        rf"must have at most {MAX_BYTES} bytes, got shape \(4294967295,\)",
    ),
    "product of 2^64": (header(0x08, 2**16, 2**16, 2**16, 2**16), "at most"),
    "product with a zero": (header(0x08, 0, *[2**32 - 1] * 7), "at most"),
    "product by element size": (header(0x0E, 2**28 + 1), "at most .* of 8-byte elements"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", BAD)
def test_read_idx_rejects(tmp_path: Path, case: str, packed: bool) -> None:
    data, message = BAD[case]
    if packed:
        message = {
            "truncated": r"data of shape \(2, 2\) must have 4 bytes, got 3",
            "trailing": "gzip stream must end after the declared data, got more bytes",
            "element size": r"data of shape \(2,\) must have 8 bytes, got 7",
        }.get(case, message)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(IdxError, match=rf"^read_idx: {re.escape(str(path))}: .*{message}"):
        read_idx(path)


def test_read_idx_rejects_bad_gzip(tmp_path: Path) -> None:
    path = tmp_path / "file"
    good = gzip.compress(idx(small()))
    cases = {
        "gzip stream must be complete, got a truncated one": good[:-1],
        "file must end after its gzip stream, got more bytes": good + b"\0",
        "file must end after its gzip stream, got more bytes$": good + good,
        "gzip stream must be intact, got: .*incorrect data check": good[:-8] + bytes(8),
        "gzip stream must be intact, got: .*unknown compression": good[:2] + b"\1" + good[3:],
        "must begin with a 4-byte magic number, got 0 bytes": good[:2],
    }
    for message, data in cases.items():
        path.write_bytes(data)
        with pytest.raises(IdxError, match=message):
            read_idx(path)
    # The first byte after the stream can be beyond the last block that was read.
    big = np.random.default_rng(3).integers(0, 256, 1 << 17, np.uint8)
    for extra in (b"\0", bytes(1 << 17)):
        path.write_bytes(gzip.compress(idx(big)) + extra)
        with pytest.raises(IdxError, match="file must end after its gzip stream"):
            read_idx(path)


def peak_of_rejection(path: Path, message: str) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(IdxError, match=message):
            read_idx(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def zeros(head: bytes, mebibytes: int) -> bytes:
    compressor = zlib.compressobj(9, wbits=31)
    block = bytes(1 << 20)
    pieces = [compressor.compress(head), *(compressor.compress(block) for _ in range(mebibytes))]
    return b"".join([*pieces, compressor.flush()])


def test_read_idx_rejects_a_decompression_bomb(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(zeros(header(0x08, 100), 64))
    assert peak_of_rejection(path, "gzip stream must end after the declared data") < 1 << 20

    # All data is declared. The ratio is rejected before any allocation.
    path.write_bytes(zeros(header(0x08, 65, 1 << 20), 65))
    message = f"must expand at most 100 times, got {65 << 20} bytes of data"
    assert peak_of_rejection(path, message) < 1 << 20

    # The declared size is more than deflate can reach.
    path.write_bytes(gzip.compress(header(0x08, LARGE)))
    assert peak_of_rejection(path, "must expand at most 1032 times") < 1 << 20

    # Below that size an extreme ratio is valid: all labels can be equal.
    path.write_bytes(zeros(header(0x08, 4, 1 << 20), 4))
    assert read_idx(path).shape == (4, 1 << 20)


def test_read_idx_max_bytes_is_an_integer(tmp_path: Path) -> None:
    invalid: Any
    for invalid in ("9", 1e9, None):
        with pytest.raises(TypeError, match=r"^read_idx: max_bytes must be an integer, got"):
            read_idx(tmp_path / "absent", max_bytes=invalid)


def test_read_idx_max_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(idx(small()))
    assert read_idx(path, max_bytes=small().size).shape == small().shape
    with pytest.raises(IdxError, match=f"at most {small().size - 1} bytes"):
        read_idx(path, max_bytes=small().size - 1)


@pytest.mark.parametrize("packed", [False, True])
def test_read_idx_of_every_prefix(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "file"
    data = gzip.compress(idx(small()), mtime=0) if packed else idx(small())
    assert len(data) > 1000
    path.write_bytes(data)
    for length in reversed(range(len(data))):
        os.truncate(path, length)
        with pytest.raises(IdxError):
            read_idx(path)


@pytest.mark.parametrize("packed", [False, True])
def test_read_idx_of_every_flipped_byte(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "file"
    array = small()
    data = gzip.compress(idx(array), mtime=0) if packed else idx(array)
    path.write_bytes(data)
    accepted = 0
    # Overwrite one byte in place: 3,000 writes of the whole file take ten seconds.
    with open(path, "r+b", buffering=0) as file:
        for at in range(len(data)):
            for mask in (0x01, 0x80, 0xFF):
                os.pwrite(file.fileno(), bytes([data[at] ^ mask]), at)
                try:
                    read = read_idx(path)
                except IdxError:
                    continue
                accepted += 1
                if packed:  # fields of the gzip header without a checksum, such as the time
                    np.testing.assert_array_equal(read, array)
                else:  # another type of the same size, or another element
                    assert read.shape == array.shape
                    assert read.nbytes == array.nbytes
            os.pwrite(file.fileno(), data[at : at + 1], at)
    assert accepted < 40 or not packed
    np.testing.assert_array_equal(read_idx(path), array)


@given(st.binary(max_size=64), st.sampled_from([b"", b"\0\0\x08\x01", b"\x1f\x8b\x08\0"]))
@example(b"\0\0\0\0", b"\0\0\x08\x01")
def test_read_idx_of_any_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, start: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-bytes"
    for content in (start + data, gzip.compress(start + data)):
        path.write_bytes(content)
        try:
            read = read_idx(path)
        except IdxError:
            continue
        assert read.nbytes <= len(start + data)


def test_read_idx_rejects_without_asserts(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(idx(small())[:-1])
    code = "import sys; from chainrule.data import read_idx; read_idx(sys.argv[1])"
    run = subprocess.run(
        [sys.executable, "-O", "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "IdxError: read_idx" in run.stderr


def test_read_idx_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        read_idx(tmp_path)
