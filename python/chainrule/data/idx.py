"""Read the IDX format of MNIST, with every field of the file validated.

A file starts with two zero bytes, a type code and the number of dimensions. The dimensions follow
as big-endian 32-bit integers, then the elements, big-endian and in row-major order. The file is
uncompressed, or one gzip member.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import zlib
from typing import BinaryIO, NoReturn

import numpy as np

from .._files import PathLike, explained_memory_errors, open_regular, shown
from .._types import Array
from .._validation import integer
from ..available_memory import require

# 2 GiB: nearly four times the images of EMNIST ByClass, the largest known data set in this format.
MAX_BYTES = 2 << 30
MAX_DIMENSIONS = 8
# Deflate expands at most 1032 times. Images reach a ratio of 5, sorted labels several hundred. A
# large ratio is therefore an error only for data that would also fill memory.
DEFLATE_RATIO, LARGE, LARGE_RATIO = 1032, 64 << 20, 100

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CHUNK = 1 << 16


class IdxError(ValueError):
    """An IDX file is invalid. The message names the file and the fault.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from chainrule.data import IdxError, read_idx
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "labels")
    ...     _ = path.write_bytes(b"<html>")
    ...     try:
    ...         read_idx(path)
    ...     except IdxError as error:
    ...         print(str(error).rpartition(": ")[2])
    file must begin with two zero bytes, got 3c68
    """


class _Plain:
    """Reader of an uncompressed file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def trailing_fault(self) -> str:
        """Return the fault after the last declared byte, or an empty string."""
        return "file must end after the declared data, got more bytes" if self._file.read(1) else ""


class _Gzip:
    """Reader of one gzip member, which inflates no more bytes than requested."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._zlib = zlib.decompressobj(wbits=31)
        self._input = b""

    def read(self, size: int) -> bytes:
        """Return `size` > 0 bytes, or fewer at the end of the member or the file."""
        pieces = []
        while size and not self._zlib.eof:
            piece = self._zlib.decompress(self._input, size)
            self._input = self._zlib.unconsumed_tail
            # zlib can buffer output after it has consumed all input. Only an empty piece shows
            # that it needs more input.
            if not piece and not self._input and not self._zlib.eof:
                self._input = self._file.read(_CHUNK)
                if not self._input:
                    break
            size -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def trailing_fault(self) -> str:
        """Return the fault after the last declared byte, or an empty string."""
        if self.read(1):
            return "gzip stream must end after the declared data, got more bytes"
        if not self._zlib.eof:
            return "gzip stream must be complete, got a truncated one"
        if self._zlib.unused_data or self._file.read(1):
            return "file must end after its gzip stream, got more bytes"
        return ""


def read_idx(path: PathLike, *, max_bytes: int = MAX_BYTES) -> Array:
    """Read one IDX file, uncompressed or gzip.

    The content of the file, not its name, determines whether it is gzip. Memory beyond the array
    stays below 1 MB, whatever the file declares or inflates to.

    Parameters
    ----------
    path : path-like
        The file.
    max_bytes : int
        Largest size of the data, in bytes.

    Returns
    -------
    ndarray
        The data, read-only, with the declared shape, in native byte order.

    Raises
    ------
    IdxError
        If the file is invalid: magic number, type code, dimensions, size, or gzip stream. It is a
        `ValueError`.
    TypeError
        If `max_bytes` is not an integer.
    ValueError
        If the path is a pipe, a socket or a device, or if `max_bytes` is negative.
    OSError
        If the file cannot be opened or read.
    MemoryError
        If the data does not fit in memory.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from chainrule.data import read_idx
    >>> header = bytes([0, 0, 0x08, 1]) + (3).to_bytes(4, "big")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "labels-idx1-ubyte")
    ...     _ = path.write_bytes(header + bytes([5, 0, 4]))
    ...     read_idx(path)
    array([5, 0, 4], dtype=uint8)
    """
    name = f"read_idx: {shown(path)}"
    with explained_memory_errors(f"{name}: memory must suffice to read, got too little"):
        return _read(name, path, integer("read_idx", "max_bytes", max_bytes, 0, sys.maxsize))


def _read(name: str, path: PathLike, max_bytes: int) -> Array:
    def fail(rule: str) -> NoReturn:
        raise IdxError(f"{name}: {rule}")

    with open_regular("read_idx", path) as file:
        size = os.fstat(file.fileno()).st_size
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        source = _Gzip(file) if packed else _Plain(file)
        try:
            magic = source.read(4)
            if len(magic) < 4:
                fail(f"file must begin with a 4-byte magic number, got {len(magic)} bytes")
            if magic[:2] != b"\0\0":
                fail(f"file must begin with two zero bytes, got {magic[:2].hex()}")
            if magic[2] not in _TYPES:
                known = ", ".join(f"0x{code:02x}" for code in _TYPES)
                fail(f"type code must be one of {known}, got 0x{magic[2]:02x}")
            dimensions = magic[3]
            if not 1 <= dimensions <= MAX_DIMENSIONS:
                fail(f"data must have 1 to {MAX_DIMENSIONS} dimensions, got {dimensions}")

            lengths = source.read(4 * dimensions)
            if len(lengths) < 4 * dimensions:
                fail("header must be complete, got a truncated one")
            shape = tuple(int(n) for n in np.frombuffer(lengths, ">u4"))
            dtype = np.dtype(_TYPES[magic[2]])
            # Python integers do not overflow. Zeros count as 1, because NumPy also multiplies the
            # lengths of empty arrays.
            if math.prod(max(n, 1) for n in shape) * dtype.itemsize > max_bytes:
                fail(
                    f"data must have at most {max_bytes} bytes, got shape {shape} of "
                    f"{dtype.itemsize}-byte elements"
                )
            declared = math.prod(shape) * dtype.itemsize

            header = 4 + 4 * dimensions
            if not packed and size != header + declared:
                fail(f"file of shape {shape} must have {header + declared} bytes, got {size}")
            ratio = LARGE_RATIO if declared > LARGE else DEFLATE_RATIO
            if packed and declared > ratio * size:
                fail(
                    f"gzip file must expand at most {ratio} times, got {declared} bytes of data "
                    f"in {size} bytes"
                )

            require(f"{name} needs", declared)
            array = np.empty(declared, np.uint8)
            filled = 0
            while filled < declared:
                piece = source.read(min(_CHUNK, declared - filled))
                if not piece:
                    fail(f"data of shape {shape} must have {declared} bytes, got {filled}")
                array[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
                filled += len(piece)
            if fault := source.trailing_fault():
                fail(fault)
        except zlib.error as error:
            raise IdxError(f"{name}: gzip stream must be intact, got: {error}") from error

    elements = array.view(dtype).reshape(shape)
    if not elements.dtype.isnative:
        elements = elements.byteswap(inplace=True).view(dtype.newbyteorder("="))
    elements.flags.writeable = False
    return elements


def sha256(array: Array) -> str:
    """Return the SHA-256 (hexadecimal) of the uncompressed IDX file of a uint8 array."""
    header = bytes([0, 0, 0x08, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    digest = hashlib.sha256(header)
    digest.update(array.reshape(-1).data)  # hashlib accepts only one axis
    return digest.hexdigest()
