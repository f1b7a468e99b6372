"""The IDX format of MNIST and its relatives: `read_idx`, which trusts no byte of a file.

A file is two zero bytes, a type code, the number of dimensions, that many big-endian 32-bit
lengths, then the elements in row order, big-endian. It comes plain or as one gzip member.
"""

from __future__ import annotations

import hashlib
import math
import os
import zlib
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from .._types import Array

# 2 GiB: nearly four times the images of EMNIST ByClass, the largest known set in this format.
MAX_BYTES = 2 << 30
MAX_DIMENSIONS = 8
# Deflate cannot expand more than 1032 times. Pictures reach 5 and sorted labels several hundred,
# so a large ratio is refused only where it would also fill memory.
DEFLATE_RATIO, LARGE, LARGE_RATIO = 1032, 64 << 20, 100

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CHUNK = 1 << 16


class IdxError(ValueError):
    """A file is not a sound IDX file; the text names the file and what is wrong with it."""


class _Plain:
    """Reads a file as it is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def rest(self) -> str:
        """What is wrong after the last byte that was declared; empty where nothing is."""
        return "bytes follow the data it declares" if self._file.read(1) else ""


class _Gzip:
    """Reads one gzip member, and never inflates more than was asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._zlib = zlib.decompressobj(wbits=31)
        self._input = b""

    def read(self, size: int) -> bytes:
        """Up to `size` > 0 bytes; fewer only where the member or the file ends."""
        pieces = []
        while size and not self._zlib.eof:
            piece = self._zlib.decompress(self._input, size)
            self._input = self._zlib.unconsumed_tail
            # zlib may hold output back after it has taken all input, so only an empty piece
            # tells that it needs more.
            if not piece and not self._input and not self._zlib.eof:
                self._input = self._file.read(_CHUNK)
                if not self._input:
                    break
            size -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def rest(self) -> str:
        if self.read(1):
            return "it inflates to more than it declares"
        if not self._zlib.eof:
            return "its gzip stream is cut off"
        if self._zlib.unused_data or self._file.read(1):
            return "bytes follow its gzip stream"
        return ""


def read_idx(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> Array:
    """Read one IDX file, plain or gzip (told by its content, not its name).

    Memory beyond the array stays under a megabyte, whatever the file claims or inflates to.

    Parameters
    ----------
    path
        The file.
    max_bytes
        Refuse a file that declares more than this many bytes of data.

    Returns
    -------
    numpy.ndarray
        Read-only, of the declared shape, in the machine's byte order.

    Raises
    ------
    IdxError
        A `ValueError`: wrong magic, unknown type code, too many or too large dimensions, fewer or
        more bytes than declared, a damaged gzip stream, one that inflates to more than it
        declares, or anything after it. The text names the file and the fault.
    OSError
        Where the file cannot be opened or read.
    """
    path = Path(path)

    def refuse(what: str) -> NoReturn:
        raise IdxError(f"read_idx: {path}: {what}")

    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        source = _Gzip(file) if packed else _Plain(file)
        try:
            magic = source.read(4)
            if len(magic) < 4:
                refuse(f"it must begin with 4 bytes of magic number, it has {len(magic)}")
            if magic[:2] != b"\0\0":
                refuse(f"an IDX file must begin with two zero bytes, this one has {magic.hex()}")
            if magic[2] not in _TYPES:
                known = ", ".join(f"0x{code:02x}" for code in _TYPES)
                refuse(f"its type code must be one of {known}, it is 0x{magic[2]:02x}")
            dimensions = magic[3]
            if not 1 <= dimensions <= MAX_DIMENSIONS:
                refuse(f"it must have 1 to {MAX_DIMENSIONS} dimensions, it has {dimensions}")

            lengths = source.read(4 * dimensions)
            if len(lengths) < 4 * dimensions:
                refuse("its header is cut off")
            shape = tuple(int(n) for n in np.frombuffer(lengths, ">u4"))
            dtype = np.dtype(_TYPES[magic[2]])
            # Python integers do not overflow; NumPy multiplies the lengths of empty arrays too.
            if math.prod(max(n, 1) for n in shape) * dtype.itemsize > max_bytes:
                refuse(f"shape {shape} of {dtype.itemsize}-byte elements is over {max_bytes} bytes")
            declared = math.prod(shape) * dtype.itemsize

            header = 4 + 4 * dimensions
            if not packed and size != header + declared:
                refuse(f"shape {shape} needs {header + declared} bytes, the file has {size}")
            ratio = LARGE_RATIO if declared > LARGE else DEFLATE_RATIO
            if packed and declared > ratio * size:
                refuse(f"{size} gzip bytes cannot be honest about {declared} bytes of data")

            array = np.empty(declared, np.uint8)
            filled = 0
            while filled < declared:
                piece = source.read(min(_CHUNK, declared - filled))
                if not piece:
                    refuse(f"shape {shape} needs {declared} bytes of data, it has {filled}")
                array[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
                filled += len(piece)
            if wrong := source.rest():
                refuse(wrong)
        except zlib.error as error:
            raise IdxError(f"read_idx: {path}: its gzip stream is damaged ({error})") from error

    elements = array.view(dtype).reshape(shape)
    if not elements.dtype.isnative:
        elements = elements.byteswap(inplace=True).view(dtype.newbyteorder("="))
    elements.flags.writeable = False
    return elements


def sha256(array: Array) -> str:
    """SHA-256 of the plain IDX file that holds `array` (uint8), in hexadecimal."""
    header = bytes([0, 0, 0x08, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    digest = hashlib.sha256(header)
    digest.update(array.reshape(-1).data)  # hashlib takes one axis only
    return digest.hexdigest()
