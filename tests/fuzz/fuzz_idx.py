"""Fuzz `chainrule.data.read_idx`: IDX files, uncompressed and gzip."""

from __future__ import annotations

import gzip
import random
import struct
import sys
import zlib

from fuzz_harness import (
    MEBIBYTE,
    Finding,
    InputFile,
    Target,
    expect_documented,
    instrumented,
    main,
    mutate_bytes,
)

with instrumented("chainrule.data"):
    from chainrule.data import idx, read_idx

FILE = InputFile("images-idx3-ubyte")
CODES = (0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E)
SIZES = {0x08: 1, 0x09: 1, 0x0B: 2, 0x0C: 4, 0x0D: 4, 0x0E: 8}
GZIP = b"\x1f\x8b"


def check(data: bytes) -> None:
    """Read the file. An array that results is read-only, native, and has the data's size."""
    FILE.write(data)
    try:
        array = read_idx(FILE.path)
    except Exception as error:
        expect_documented(error, [str(FILE.path)])
        return
    if array.flags.writeable or not array.dtype.isnative:
        raise Finding(f"the array must be read-only and native, got {array.flags}, {array.dtype}")
    plain = zlib.decompressobj(31).decompress(data) if data[:2] == GZIP else data
    if array.nbytes != len(plain) - 4 - 4 * array.ndim:
        raise Finding(f"{array.nbytes} bytes of data from a file of {len(plain)} bytes")


def memory(data: bytes) -> int:
    """Return twice the file and 10 MiB. The array of a gzip file adds what deflate can expand."""
    limit = 2 * len(data) + 10 * MEBIBYTE
    if data[:2] == GZIP:
        limit += min(idx.DEFLATE_RATIO * len(data), idx.LARGE)
    return limit


def pack(code: int, shape: tuple[int, ...], data: bytes) -> bytes:
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data


def mutate(data: bytes, source: random.Random) -> bytes:
    """Change the header, the shape or the data, also within a gzip member."""
    if data[:2] == GZIP:
        if source.random() < 0.3:
            return mutate_bytes(data, source)
        return gzip.compress(
            mutate(zlib.decompressobj(31).decompress(data, 1 << 20), source), 1, mtime=0
        )
    kind = source.randrange(6)
    if kind == 0:
        return gzip.compress(data, 1, mtime=0)
    if kind == 1:
        return mutate_bytes(data, source)
    code, dimensions = data[2], data[3]
    shape = list(struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions]))
    content = data[4 + 4 * dimensions :]
    if kind == 2 and shape:
        shape[source.randrange(dimensions)] = source.choice((0, 1, 2, 255, 2**16, 2**31, 2**32 - 1))
    elif kind == 3:
        code = source.choice((*CODES, 0, 0x0A, 0xFF))
    elif kind == 4:
        shape = [source.randrange(4) for _ in range(source.randrange(10))]
    else:
        content = mutate_bytes(content, source)
    if source.random() < 0.6 and code in SIZES:
        # The right number of bytes, if it is small.
        size = SIZES[code]
        for length in shape:
            size *= length
        content = content[:size].ljust(min(size, 4096), b"\x05")
    return pack(code, tuple(shape), content)


def seeds() -> dict[str, bytes]:
    """Return one file per type, plain and gzip, and files that expand a lot."""
    found = {f"type-{code:02x}": pack(code, (2, 3), bytes(6 * SIZES[code])) for code in CODES}
    found["empty"] = pack(8, (0, 28, 28), b"")
    found["eight-dimensions"] = pack(8, (1,) * 8, b"x")
    found["too-large"] = pack(8, (2**32 - 1,) * 2, b"")
    found["labels.gz"] = gzip.compress(pack(8, (40,), bytes(range(40))), mtime=0)
    found["zeros.gz"] = gzip.compress(pack(8, (1 << 16,), bytes(1 << 16)), 9, mtime=0)
    found["two-members.gz"] = 2 * gzip.compress(pack(8, (4,), b"abcd"), mtime=0)
    return found


TARGET = Target(name="idx", check=check, mutate=mutate, seeds=seeds, memory=memory, longest=1 << 14)

if __name__ == "__main__":
    sys.exit(main(TARGET))
