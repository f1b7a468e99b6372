"""The parts of image files that determine pixels, found without decoding them.

Metadata is left out: a text, a color profile or an EXIF directory can expand to thousands of times
its size when Pillow reads it. The orientation, the only tag that is used, is read here.
"""

from __future__ import annotations

import bisect
import io
import os
import re
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# A JPEG in many scans is decoded once per scan, however short. Encoders write about ten.
MAX_SCANS = 100
# Chunks, segments or blocks of a file, and bytes of EXIF.
MAX_PARTS, MAX_EXIF = 100_000, 1 << 16


class RefusedError(ValueError):
    """The image is refused for its size, not for damage."""


class Pixels(NamedTuple):
    """The parts of a file that Pillow reads.

    Attributes
    ----------
    parts : Parts
    orientation : int
        The EXIF tag: 1 for an upright image, up to 8.
    extra : callable
        Returns the bytes that decoding takes in addition to the image, from its number of pixels.
    """

    parts: Parts
    orientation: int = 1
    extra: Callable[[int], float] = lambda pixels: 0


class Parts(io.RawIOBase):
    """A file that consists of parts of another one, and of bytes, one after another.

    It has no file descriptor, through which a decoder could read the whole file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._position = file, 0
        self._starts: list[int] = []  # of each part, here
        self._parts: list[tuple[int, bytes | None]] = []  # its start in the file, or its bytes
        self.size = 0

    def keep(self, start: int, end: int) -> None:
        """Append bytes of the file."""
        if self._parts and self._parts[-1] == (start - self.size + self._starts[-1], None):
            self.size += end - start  # they continue the last part
        else:
            self._append(end - start, start, None)

    def insert(self, data: bytes) -> None:
        """Append bytes that are not in the file."""
        self._append(len(data), 0, data)

    def _append(self, size: int, start: int, data: bytes | None) -> None:
        if len(self._parts) >= MAX_PARTS:
            raise ValueError(f"more than {MAX_PARTS} parts")
        self._starts.append(self.size)
        self._parts.append((start, data))
        self.size += size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        index = bisect.bisect_right(self._starts, self._position) - 1
        if index < 0:
            return 0
        end = self._starts[index + 1] if index + 1 < len(self._starts) else self.size
        count = max(0, min(len(view), end - self._position))
        start, data = self._parts[index]
        at = self._position - self._starts[index]
        piece = read_at(self._file, start + at, count) if data is None else data[at : at + count]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


def read_at(file: BinaryIO, at: int, count: int) -> bytes:
    """Return up to ``count`` bytes at a position."""
    file.seek(at)
    return file.read(count)


def find_pixels(file: BinaryIO, size: int) -> tuple[str, Pixels]:
    """Return the format, by Pillow's name, and the parts of an image file.

    The content decides, not the name.

    Raises
    ------
    RefusedError
        If the file is of no known format.
    ValueError, IndexError, struct.error
        If it is damaged.
    """
    start = read_at(file, 0, 16)
    kind = next((kind for kind, pattern in _STARTS.items() if pattern.match(start)), None)
    if kind is None:
        raise RefusedError(
            "file must be an image (PNG, JPEG, BMP, GIF, TIFF or WebP), got unknown data"
        )
    return kind, _PIXELS[kind](file, size)


def _orientation(exif: bytes) -> int:
    """Return the tag 0x0112 of an EXIF block, or 1."""
    try:
        order, start = _first_directory(exif)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in _entries(exif[start + 2 : start + 2 + 12 * count]):
            tag, kind = struct.unpack_from(f"{order}HH", entry)
            if tag == 0x0112:
                (value,) = struct.unpack_from(f"{order}{'I' if kind == 4 else 'H'}", entry, 8)
                return int(value)
    except (struct.error, ValueError):
        pass
    return 1


def _first_directory(data: bytes) -> tuple[str, int]:
    """Return the byte order, and the offset of the first directory, of a TIFF structure."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        raise ValueError("not a TIFF structure")
    return order, struct.unpack_from(f"{order}I", data, 4)[0]


def _entries(directory: bytes) -> Iterator[bytes]:
    return (directory[at : at + 12] for at in range(0, len(directory) - 11, 12))


def _whole(file: BinaryIO, size: int) -> Parts:
    parts = Parts(file)
    parts.keep(0, size)
    return parts


def _bmp(file: BinaryIO, size: int) -> Pixels:
    # A run-length code is decoded to bytes, which are copied twice.
    runs = read_at(file, 30, 4) in (b"\1\0\0\0", b"\2\0\0\0")
    return Pixels(_whole(file, size), extra=lambda pixels: 3 * pixels * runs)


def _png(file: BinaryIO, size: int) -> Pixels:
    """Keep the chunks that determine pixels: the critical ones and the transparency."""
    parts, orientation = Parts(file), 1
    parts.keep(0, 8)
    at = 8
    for _ in range(MAX_PARTS):
        head = read_at(file, at, 8)
        if len(head) < 8:
            return Pixels(parts, orientation)
        length, kind = struct.unpack(">I4s", head)
        if kind == b"eXIf":
            orientation = _orientation(read_at(file, at + 8, min(length, MAX_EXIF)))
        if not kind[0] & 0x20 or kind == b"tRNS":
            parts.keep(at, min(size, at + 12 + length))
        at += 12 + length
    raise ValueError(f"more than {MAX_PARTS} chunks")


def _jpeg(file: BinaryIO, size: int) -> Pixels:
    """Keep the segments that determine pixels: not EXIF, color profiles and comments."""
    parts, orientation = Parts(file), 1
    parts.keep(0, 2)
    samples, components, progressive = 0.0, 0, False
    at = 2
    for _ in range(MAX_PARTS):
        first, marker, length = struct.unpack(">BBH", read_at(file, at, 4))
        if first != 0xFF:
            raise ValueError("no marker found")
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD9:  # without a length
            at += 2
            continue
        body, end = read_at(file, at + 4, length - 2), at + 2 + length
        if marker == 0xDA:  # the first scan
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            components, progressive = body[5], marker & 3 == 2
            factors = [(each >> 4, each & 15) for each in body[7 : 7 + 3 * components : 3]]
            most = max(h for h, _ in factors) * max(v for _, v in factors)
            samples = sum(h * v for h, v in factors) / most
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = _orientation(body[6:])
        if marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            parts.keep(at, end)
        at = end
    parts.keep(at, size)
    if not progressive and body[0] >= components:
        return Pixels(parts, orientation)
    file.seek(at)
    scans = sum(block.count(b"\xff\xda") for block in iter(lambda: file.read(1 << 20), b""))
    if scans > MAX_SCANS:
        raise ValueError(f"more than {MAX_SCANS} scans")
    # An image in several scans is decoded from all its coefficients, of 16 bits.
    return Pixels(parts, orientation, lambda pixels: 2 * samples * pixels)


def _gif(file: BinaryIO, size: int) -> Pixels:
    """Keep all but the comments and other extensions before the first frame."""
    parts = Parts(file)
    flags = read_at(file, 10, 1)[0]
    at = 13 + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0)
    parts.keep(0, at)
    blocks = 0
    while read_at(file, at, 1) == b"\x21":
        start, kind = at, read_at(file, at + 1, 1)
        at += 2
        while length := read_at(file, at, 1)[0]:
            at += 1 + length
            blocks += 1
            if blocks > MAX_PARTS:
                raise ValueError(f"more than {MAX_PARTS} blocks")
        at += 1
        if kind == b"\xf9":  # the transparent color
            parts.keep(start, at)
    parts.keep(at, size)
    return Pixels(parts, extra=lambda pixels: pixels)


def _webp(file: BinaryIO, size: int) -> Pixels:
    orientation, at = 1, 12
    for _ in range(MAX_PARTS):
        head = read_at(file, at, 8)
        if len(head) < 8:
            break
        kind, length = struct.unpack("<4sI", head)
        if kind == b"EXIF":
            exif = read_at(file, at + 8, min(length, MAX_EXIF))
            orientation = _orientation(exif.removeprefix(b"Exif\0\0"))
        at += 8 + length + length % 2
    # The decoder holds the file and two frames, and passes a third as bytes.
    return Pixels(_whole(file, size), orientation, lambda pixels: 12 * pixels + size)


# Tags that determine pixels. 0x0112, the orientation, is applied by Pillow.
_TIFF_TAGS = {256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320}
_TIFF_TAGS |= {322, 323, 324, 325, 338, 339, 347, 529, 530, 531, 532}
# None, CCITT, LZW, JPEG, Deflate and PackBits. The others are rare, and some take much memory.
_TIFF_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32946, 32773}
_TIFF_VALUES = 1 << 16  # strips of one row


def _tiff(file: BinaryIO, size: int) -> Pixels:
    """Keep the tags of the first directory that determine pixels, and no other directory."""
    order, start = _first_directory(read_at(file, 0, 8))
    (count,) = struct.unpack(f"{order}H", read_at(file, start, 2))
    kept, values = bytearray(), {}
    for entry in _entries(read_at(file, start + 2, 12 * count)):
        tag, kind, length = struct.unpack_from(f"{order}HHI", entry)
        if tag not in _TIFF_TAGS:
            continue
        if length > _TIFF_VALUES or tag in values:
            raise ValueError(f"tag {tag} must be given once, with at most {_TIFF_VALUES} values")
        code = "H" if kind == 3 else "I"
        (values[tag],) = struct.unpack_from(f"{order}{code}", entry, 8)
        if tag == 258 and length > 2:  # bits of several samples are stored elsewhere
            (at,) = struct.unpack_from(f"{order}I", entry, 8)
            bits = read_at(file, at, 2 * min(length, 8))
            values[tag] = max(struct.unpack(f"{order}{len(bits) // 2}H", bits))
        kept += entry
    compression = values.get(259, 1)
    if compression not in _TIFF_COMPRESSIONS:
        raise RefusedError(
            "TIFF must have no compression, or CCITT, LZW, JPEG, Deflate or PackBits, "
            f"got {compression}"
        )
    directory = struct.pack(f"{order}H", len(kept) // 12) + kept + bytes(4)
    parts = Parts(file)
    parts.keep(0, start)
    parts.insert(directory)
    parts.keep(start + len(directory), max(size, start + len(directory)))
    width, height = values.get(256, 0), values.get(257, 0)
    if 322 in values or 323 in values:
        block = values.get(322, 0) * values.get(323, 0)
    else:
        block = width * min(height, values.get(278, height))
    # With a compression, the decoder holds the file, and a strip or tile as a whole: of YCbCr, 4
    # bytes per pixel. A JPEG in several scans takes 16 bits per value in addition.
    sample_bytes = values.get(258, 1) / 8 * values.get(277, 1)
    factor = {1: 0, 7: 3}.get(compression, 1)
    extra = factor * block * max(sample_bytes, 4 * (values.get(262) == 6)) + size * (factor > 0)
    return Pixels(parts, extra=lambda pixels: extra)


_STARTS = {
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "BMP": re.compile(rb"BM"),
    "GIF": re.compile(rb"GIF8[79]a"),
    "TIFF": re.compile(rb"II\*\0|MM\0\*"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
}
_PIXELS: dict[str, Callable[[BinaryIO, int], Pixels]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "BMP": _bmp,
    "GIF": _gif,
    "TIFF": _tiff,
    "WEBP": _webp,
}
