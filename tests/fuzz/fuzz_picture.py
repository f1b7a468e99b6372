"""Fuzz `read_digit`: image files in each format that it reads, and others."""

from __future__ import annotations

import io
import random
import struct
import sys
import zlib
from collections.abc import Iterator
from unittest import mock

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

with instrumented("PIL", "chainrule.data"):
    import numpy as np
    import PIL.ImageFilter
    import PIL.ImageOps  # noqa: F401  # instrumented, as the module above
    from PIL import Image

    from chainrule.data import digit_image, digits

    Image.init()

FILE = InputFile("digit.png")
BLANK = digit_image.FoundDigit(np.zeros((28, 28, 1), np.uint8), digits=1)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def check(data: bytes) -> None:
    """Read the image. A result is a digit in the format of MNIST.

    The search for ink takes up to 50 ms. It reads gray levels, not the file, so one input in 16
    runs it.
    """
    FILE.write(data)
    search = digit_image._found if zlib.crc32(data) % 16 == 0 else lambda gray: BLANK
    try:
        with mock.patch.object(digit_image, "_found", search):
            digit = digit_image.read_digit(FILE.path)
    except Exception as error:
        expect_documented(error, [str(FILE.path)])
        return
    if digit.shape != (28, 28, 1) or digit.dtype != np.uint8:
        raise Finding(f"the digit must be uint8 (28, 28, 1), got {digit.dtype} {digit.shape}")


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG file, with its checksum."""
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and content of each chunk of a PNG file."""
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def _changed(kind: bytes, content: bytes, source: random.Random) -> bytes:
    """Return the content of a chunk, changed: a field of the header, or inflated pixels."""
    if kind == b"IHDR" and len(content) == 13:
        fields = list(struct.unpack(">IIBBBBB", content))
        index = source.randrange(7)
        if index < 2:
            fields[index] = source.choice((0, 1, 2, 28, 29, 640, 2**16, 2**31 - 1, 2**32 - 1))
        else:
            fields[index] = source.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
        return struct.pack(">IIBBBBB", *fields)
    if kind in (b"IDAT", b"zTXt", b"iCCP") and source.random() < 0.7:
        prefix = b"" if kind == b"IDAT" else content[: content.find(b"\0") + 2]
        pixels = zlib.decompressobj().decompress(content[len(prefix) :], 1 << 18)
        return prefix + zlib.compress(mutate_bytes(pixels, source), 1)
    return mutate_bytes(content, source)


EXTRA = (
    (b"tRNS", b"\0\0"),
    (b"PLTE", bytes(range(12))),
    (b"tEXt", b"Comment\0x"),
    (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100))),
    (b"iCCP", b"p\0\0" + zlib.compress(bytes(100))),
    (b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
    (b"gAMA", b"\0\0\0\1"),
    (b"acTL", b"\0\0\0\2\0\0\0\0"),
    (b"fcTL", b"\0\0\0\0" + struct.pack(">IIII", 28, 28, 0, 0) + b"\0\1\0\1\0\0"),
    (b"IEND", b""),
)


def mutate(data: bytes, source: random.Random) -> bytes:
    """Change chunks of a PNG file, with correct checksums, or bytes of another format."""
    if not data.startswith(SIGNATURE):
        return mutate_bytes(data, source)
    parts = list(chunks(data))
    index = source.randrange(len(parts))
    kind = source.randrange(5)
    if kind == 0:
        parts.insert(index, source.choice(EXTRA))
    elif kind == 1 and len(parts) > 1:
        del parts[index]
    elif kind == 2:
        parts[index] = (parts[index][0], parts[source.randrange(len(parts))][1])
    else:
        parts[index] = (parts[index][0], _changed(*parts[index], source))
    return SIGNATURE + b"".join(chunk(*part) for part in parts)


def exif(tag: int, kind: int, count: int, value: bytes, tail: bytes = b"") -> bytes:
    """Return EXIF data with the orientation and one more tag."""
    entries = [(0x112, 3, 1, struct.pack("<HH", 6, 0)), (tag, kind, count, value)]
    body = b"".join(struct.pack("<HHL", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + body + struct.pack("<L", 0) + tail


def seeds() -> dict[str, bytes]:
    """Return a small digit in each format and mode, odd EXIF tags, and files of other formats."""
    pixels = digits()[1].images[3, :, :, 0]
    digit = Image.fromarray(pixels)
    paper = Image.fromarray(255 - pixels.repeat(2, 0).repeat(2, 1))
    found: dict[str, bytes] = {}

    def keep(name: str, image: Image.Image, form: str, **options: object) -> None:
        stream = io.BytesIO()
        image.save(stream, form, **options)
        found[name] = stream.getvalue()

    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        keep(f"{mode}.png", digit.convert(mode), "PNG")
    keep("16-bit.png", Image.fromarray(pixels.astype(np.uint16) * 257), "PNG")
    for form in ("JPEG", "BMP", "GIF", "TIFF", "WEBP"):
        keep(f"digit.{form.lower()}", digit, form)
    keep("paper.png", paper, "PNG")
    keep("progressive.jpeg", paper.convert("RGB"), "JPEG", progressive=True)
    keep("cmyk.jpeg", digit.convert("CMYK"), "JPEG")
    keep("lzw.tiff", digit, "TIFF", compression="tiff_lzw")
    keep("deflate.tiff", digit.convert("RGB"), "TIFF", compression="tiff_adobe_deflate")
    keep("float.tiff", digit.convert("F"), "TIFF")
    keep("frames.gif", digit.convert("P"), "GIF", save_all=True, append_images=[digit.convert("P")])
    keep("lossless.webp", digit, "WEBP", lossless=True)
    for form in ("PPM", "TGA", "ICO", "DDS", "PCX", "SGI", "EPS"):
        keep(f"other.{form.lower()}", digit.convert("RGB"), form)
    after = struct.pack("<L", 8 + 2 + 24 + 4)
    odd = {
        "resolution": exif(0x11A, 10, 1, after, struct.pack("<ll", -1, 1)),
        "text": exif(0x11B, 2, 4, b"abc\0"),
        "fraction": exif(0x8298, 5, 1, after, struct.pack("<LL", 5, 1)),
        "unit": exif(0x128, 4, 1, struct.pack("<L", 2**31)),
        "compression": exif(0x103, 2, 2, b"6\0\0\0"),
    }
    for name, block in odd.items():
        keep(f"exif-{name}.jpeg", digit, "JPEG", exif=block)
    header = struct.pack(">IIBBBBB", 3000, 3000, 16, 0, 0, 0, 0)
    rows = zlib.compress(bytes(3000 * 6001), 9)
    found["large.png"] = (
        SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    return found


TARGET = Target(
    name="picture",
    check=check,
    mutate=mutate,
    seeds=seeds,
    memory=lambda data: 2 * len(data) + 64 * MEBIBYTE,
    longest=1 << 14,
)

if __name__ == "__main__":
    sys.exit(main(TARGET))
