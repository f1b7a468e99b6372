"""Image files of unknown origin: six formats, bounded memory, and an error for all others."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule import data
from chainrule.data.digit_image import read_digit, to_digit
from chainrule.data.image_parts import MAX_PARTS, Parts

pytest.importorskip("PIL", reason="Pillow is not installed: pip install 'chainrule[cli]'")
from PIL import Image, ImageDraw, ImageFilter, features

MEMORY = 64_000_000

# Prints the peak memory of `read_digit` beyond what the process holds, in bytes, and the message.
READ = """
import sys, PIL.Image, PIL.ImageFilter
from chainrule.data.digit_image import read_digit
PIL.Image.init()
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before, text = peak(), ""
try:
    read_digit(sys.argv[1])
except ValueError as error:
    text = str(error)
print(peak() - before, text)
"""


def peak_of(path: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    nbytes, _, text = done.stdout.strip().partition(" ")
    return int(nbytes), text


@pytest.fixture(scope="module")
def digit() -> Any:
    """Return dark ink on white, 280 x 280."""
    return 255 - data.digits()[1].images[3, :, :, 0].repeat(10, 0).repeat(10, 1)


def close(one: Any, other: Any) -> bool:
    return bool(np.abs(one.astype(int) - other).mean() < 6)


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(width: int, height: int, bits: int, color: int, extra: bytes = b"") -> bytes:
    """Return a PNG of zeros, with ``extra`` chunks."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    packer = zlib.compressobj(9)
    row = bytes(1 + (width * channels * bits + 7) // 8)
    content = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def directory(*entries: tuple[int, int, int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HHL", *entry[:3]) + entry[3] for entry in entries)
    return struct.pack("<H", len(entries)) + body + bytes(4)


def tiff(*entries: tuple[int, int, int, bytes], tail: bytes = b"") -> bytes:
    return b"II*\0\x08\0\0\0" + directory(*entries) + tail


def number(value: int) -> bytes:
    return struct.pack("<L", value)


def saved(image: Any, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def scans(count: int) -> bytes:
    """Return a progressive JPEG of 1000 x 1000 whose last scan is repeated."""
    content = saved(Image.new("L", (1000, 1000), 200), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * count + content[-2:]


BASIC = [
    (256, 4, 1, number(9000)),
    (257, 4, 1, number(5000)),
    (258, 3, 1, number(8)),
    (259, 3, 1, number(8)),
    (262, 3, 1, number(1)),
    (277, 3, 1, number(1)),
]
GIF = b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0x80, 0, 0) + bytes(6)

# fmt: off
BOMBS: dict[str, Callable[[], bytes]] = {
    "gray of 16 bits": lambda: png(9400, 9500, 16, 0),
    "RGBA of 16 bits": lambda: png(9400, 9500, 16, 6),
    "RGB": lambda: png(9400, 9500, 8, 2),
    "one row": lambda: png(80_000_000, 1, 1, 0),
    "one column": lambda: png(1, 80_000_000, 1, 0),
    "texts": lambda: png(
        90, 90, 8, 0, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000), 9)) * 60
    ),
    "color profile": lambda: png(
        90, 90, 8, 0, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(200_000_000), 9))
    ),
    "frames of a PNG": lambda: png(90, 90, 8, 0, chunk(b"acTL", struct.pack(">II", 2**30, 0))),
    "JPEG in scans": lambda: saved(Image.new("RGB", (8000, 8000)), "JPEG", progressive=True),
    "JPEG of many scans": lambda: scans(5000),
    "EXIF tags with one value": lambda: saved(
        Image.new("L", (90, 90)),
        "JPEG",
        exif=b"Exif\0\0" + tiff(*((tag, 1, 60_000, number(8)) for tag in range(5000))),
    ),
    "GIF": lambda: GIF.replace(b"\x09\0\x09\0", b"\xff\xff\xff\xff", 1) + b"\x2c" + bytes(9),
    "comments of a GIF": lambda: GIF + b"\x21\xfe\x01a\0" * 400_000 + b"\x2c" + bytes(9),
    "runs of a BMP": lambda: (
        b"BM"
        + struct.pack("<IIIIiiHHII", 99, 0, 1078, 40, 80_000_000, 1, 1, 8, 1, 0)
        + bytes(1024)
        + b"\0\x02\0\xff" * 9
    ),
    "TIFF tags with one value": lambda: tiff(
        *((tag, 1, 900_000, number(8)) for tag in range(60_000))
    ),
    "TIFF strip": lambda: tiff(
        *BASIC,
        (273, 4, 1, number(200)),
        (278, 4, 1, number(5000)),
        (279, 4, 1, number(90)),
        tail=bytes(99),
    ),
    "TIFF tile": lambda: tiff(
        (256, 4, 1, number(9)),
        (257, 4, 1, number(9)),
        *BASIC[2:],
        (322, 4, 1, number(60_000)),
        (323, 4, 1, number(60_000)),
        (324, 4, 1, number(250)),
        (325, 4, 1, number(90)),
        tail=zlib.compress(bytes(300_000_000), 9),
    ),
    "TIFF strips": lambda: tiff(*BASIC, (273, 4, 2**20, number(200)), tail=bytes(1 << 22)),
    "WebP": lambda: saved(Image.new("RGB", (8000, 8000)), "WEBP"),
}
# fmt: on


@pytest.mark.parametrize("kind", BOMBS)
def test_memory_of_a_hostile_image(tmp_path: Path, kind: str) -> None:
    if kind == "WebP" and not features.check("webp"):
        pytest.skip("this Pillow has no WebP")
    path = tmp_path / "digit.png"
    path.write_bytes(BOMBS[kind]())
    nbytes, text = peak_of(path)
    assert nbytes <= max(MEMORY, 2 * path.stat().st_size + 10_000_000)
    assert text.startswith(f"{path}: "), text


@pytest.mark.parametrize(
    ("mode", "size"),
    [("RGB", (4032, 3024)), ("RGBA", (4032, 3024)), ("I;16", (5000, 5000)), ("L", (7000, 7000))],
)
def test_large_images_are_read(tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
    levels = np.full(size[::-1], 250, np.uint8)
    levels[size[1] // 5 : -size[1] // 5, size[0] // 3 : size[0] // 2] = 10
    if mode == "I;16":
        image = Image.fromarray(levels.astype(np.uint16) * 200)
    else:
        image = Image.fromarray(levels).convert(mode)
    path = tmp_path / "digit.png"
    image.save(path)
    nbytes, text = peak_of(path)
    assert text == ""
    assert nbytes <= MEMORY


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
def test_formats_are_known_by_their_content(tmp_path: Path, kind: str, digit: Any) -> None:
    if kind == "WEBP" and not features.check("webp"):
        pytest.skip("this Pillow has no WebP")
    path = tmp_path / "digit.eps"
    Image.fromarray(digit).save(path, kind)
    assert close(read_digit(path), to_digit(digit))


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n%%EndComments\nshowpage\n%%EOF\n",
        b"P5 28 28 255\n" + bytes(784),
        b"DDS " + bytes(200),
        b"\0\0\0\x1cftypavif" + bytes(200),
        b"8BPS\0\x01" + bytes(200),
        b"II+\0\x08\0\0\0" + bytes(200),
        b"\0\0\x01\0\x01\0" + bytes(200),
        b"",
    ],
)
def test_other_formats_are_not_opened(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "digit.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"digit\.png: file must be an image \(PNG, .*, got unk"):
        read_digit(path)


def test_no_program_is_started(tmp_path: Path) -> None:
    script = tmp_path / "gs"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    script.chmod(0o755)
    path = tmp_path / "digit.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n%%EndComments\n%%EOF\n")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)],
        env=environment, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "got unknown data" in done.stdout
    assert not (tmp_path / "started").exists()


AFTER = number(8 + 2 + 24 + 4)
ODD = {
    "resolution below 0": ((0x11A, 10, 1, AFTER), struct.pack("<ll", -1, 1)),
    "resolution as text": ((0x11B, 2, 4, b"abc\0"), b""),
    "copyright as a fraction": ((0x8298, 5, 1, AFTER), struct.pack("<LL", 5, 1)),
    "unit of 2**31": ((0x128, 4, 1, number(2**31)), b""),
    "compression as text": ((0x103, 2, 2, b"6\0\0\0"), b""),
    "unknown type": ((0x9999, 99, 7, b"\xff" * 4), b""),
    "beyond the end": ((0x9999, 2, 2**32 - 1, number(2**32 - 1)), b""),
    "itself as a directory": ((0x8769, 4, 1, number(8)), b""),
}


@pytest.mark.parametrize("file", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kind", ODD)
def test_odd_tags_beside_the_orientation(tmp_path: Path, kind: str, file: str, digit: Any) -> None:
    if file == "WEBP" and not features.check("webp"):
        pytest.skip("this Pillow has no WebP")
    entry, tail = ODD[kind]
    exif = b"Exif\0\0" + tiff((0x112, 3, 1, number(6)), entry, tail=tail)
    path = tmp_path / "turned"
    turned = Image.fromarray(digit).transpose(Image.Transpose.ROTATE_90)
    path.write_bytes(saved(turned, file, exif=exif))
    assert close(read_digit(path), to_digit(digit))


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation(tmp_path: Path, orientation: int, digit: Any) -> None:
    # The inverse of what a viewer does. Values beyond 8 are ignored.
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    image = Image.fromarray(digit)
    if orientation in turns:
        image = image.transpose(Image.Transpose(turns[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("JPEG", "PNG", "TIFF"):
        path = tmp_path / kind
        options = {"exif": exif} if kind != "TIFF" else {"tiffinfo": {274: orientation}}
        path.write_bytes(saved(image, kind, **options))
        assert close(read_digit(path), to_digit(digit)), kind


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
def test_mutations_raise_value_error_or_are_read(tmp_path: Path, kind: str, digit: Any) -> None:
    if kind == "WEBP" and not features.check("webp"):
        pytest.skip("this Pillow has no WebP")
    whole = saved(Image.fromarray(digit[::5, ::5]).convert("RGB"), kind)
    random = np.random.default_rng(0)
    path = tmp_path / "digit.png"
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(int(random.integers(1, 4))):
            content[random.integers(0, len(content))] = random.integers(0, 256)
        path.write_bytes(content[: int(random.integers(1, 2 * len(whole)))])
        try:
            read_digit(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017  # some files are valid


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
    for path, kind in (
        (tmp_path / "pipe.png", "a named pipe"),
        (tmp_path / "socket.png", "a socket"),
        ("/dev/zero", "a device"),
    ):
        with pytest.raises(ValueError, match=f"^{path}: path must be a regular file, got {kind}$"):
            read_digit(path)


def test_too_large_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "digit.png"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match=r"at most 256\.0 MiB, got 1\.0 TiB"):
        read_digit(path)


def test_parts_of_a_file() -> None:
    parts = Parts(io.BytesIO(bytes(range(100))))  # type: ignore[arg-type]
    parts.keep(0, 10)
    parts.keep(10, 20)
    parts.insert(b"abc")
    parts.keep(90, 100)
    whole = bytes(range(20)) + b"abc" + bytes(range(90, 100))
    reader = io.BufferedReader(parts, 7)
    assert reader.read() == whole
    for start in range(len(whole) + 2):
        reader.seek(start)
        assert reader.read(5) == whole[start : start + 5]
    for _ in range(MAX_PARTS - 3):
        parts.insert(b"x")
    with pytest.raises(ValueError, match=f"more than {MAX_PARTS} parts"):
        parts.insert(b"x")


@pytest.mark.parametrize("drawing", ["pen of 1", "pen of 40", "spiral", "comb", "dots"])
def test_cost_does_not_depend_on_the_drawing(drawing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("L", (640, 640), 255)
    pen = ImageDraw.Draw(image)
    if drawing.startswith("pen"):
        width = int(drawing.split()[-1])
        pen.line([(50, 50), (590, 50), (256, 590)], fill=0, width=width)
    elif drawing == "spiral":
        points = [(320.0, 320.0)]
        for turn in range(1, 60):
            side, (x, y) = 5 * turn, points[-1]
            step = ((side, 0), (0, side), (-side, 0), (0, -side))[turn % 4]
            points.append((x + step[0], y + step[1]))
        pen.line(points, fill=0, width=1)
    elif drawing == "comb":
        for x in range(20, 620, 12):
            pen.line([(x, 20), (x, 620)], fill=0, width=2)
            pen.line([(x, 620 if x % 24 else 20), (x + 12, 620 if x % 24 else 20)], fill=0, width=2)
    else:
        for at in range(0, 640, 8):
            pen.point([(x, at) for x in range(0, 640, 8)], fill=0)
    rounds, widths, equal, maximum = 0, [1], np.array_equal, ImageFilter.MaxFilter

    def count_round(*arguments: Any) -> bool:
        nonlocal rounds
        rounds += 1
        return equal(*arguments)

    def keep_width(width: int) -> Any:
        widths.append(width)
        return maximum(width)

    monkeypatch.setattr(np, "array_equal", count_round)
    monkeypatch.setattr(ImageFilter, "MaxFilter", keep_width)
    with contextlib.suppress(ValueError):  # some drawings are no digit
        to_digit(np.asarray(image))
    # The labels of components spread by doubling. Without it, the comb takes a thousand rounds.
    assert 0 < rounds <= 40
    # The time of Pillow's filter is quadratic in the width, which was up to 161.
    assert max(widths) <= 15
