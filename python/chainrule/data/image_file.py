"""Read image files of unknown origin in bounded memory.

PNG, JPEG, BMP, GIF, TIFF and WebP are read, and nothing else: some of the other formats of Pillow
start programs. Pillow receives the parts of the file that determine pixels. See `image_parts`.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from .. import available_memory
from .._files import PathLike, explained_memory_errors, open_regular, shown
from .._optional import require
from ..available_memory import in_bytes
from .image_parts import RefusedError, find_pixels

if TYPE_CHECKING:
    from PIL.Image import Image

# Longer side of the image in which ink is searched, in pixels. A digit that fills a tenth of a
# photograph then still has more pixels than an image of MNIST. The search takes about 50 ms.
WORKING = 640
MAX_FILE = 256 << 20  # bytes
MAX_SIDE = 65_535  # pixels, as in JPEG
MAX_PIXELS = 89_478_485  # 256 MiB of RGB
# Memory that decoding may take, unless the file itself has half as many bytes. A photograph of 12
# million pixels has this size. A JPEG may be larger: it is decoded at a reduced size.
MAX_DECODED = 52 << 20
BAND = 1 << 18  # pixels that are converted to gray at a time

Floats = npt.NDArray[np.float64]


def gray_levels(path: PathLike) -> Floats:
    """Return the gray levels of an image file, upright, in at most `WORKING` pixels a side.

    Raises
    ------
    ValueError, OSError, ImportError, MemoryError
        As `decoded`.
    """
    image = decoded(path, _reduced, ("L", 2 * WORKING))
    return np.asarray(image, dtype=np.float64)


def decoded(
    path: PathLike, convert: Callable[[Image], Image], draft: tuple[str, int] | None = None
) -> Image:
    """Return the first frame of an image file, converted and upright.

    Parameters
    ----------
    path : path-like
    convert : callable
        Convert the decoded image, before it is rotated.
    draft : (mode, pixels), optional
        A JPEG may be decoded in this mode, at an eighth of its size or more, if no side falls below
        this number of pixels.

    Raises
    ------
    ValueError
        If the file is not an image, is damaged, or needs too much memory. The message starts with
        the file's name.
    OSError
        If the file cannot be read.
    ImportError
        If Pillow is not installed.
    MemoryError
        If memory is short.
    """
    name = shown(path)
    text = f"{name}: memory must suffice to read the image, got too little"
    with explained_memory_errors(text), open_regular("", path) as file:
        try:
            return _decoded(name, file, convert, draft)
        except RefusedError as error:
            raise ValueError(f"{name}: {error}") from None
        except (MemoryError, ImportError):
            raise
        # The errors of decoders are not documented, and differ between versions of Pillow.
        except Exception as error:
            left = available_memory.available()
            if left is not None and left.nbytes < MAX_DECODED:
                # Some decoders report a failed allocation like damage.
                raise MemoryError(text) from None
            text = str(error).partition("\n")[0][:200] or type(error).__name__
            raise ValueError(f"{name}: image must be complete and undamaged, got: {text}") from None


def _decoded(
    name: str,
    file: BinaryIO,
    convert: Callable[[Image], Image],
    draft: tuple[str, int] | None,
) -> Image:
    image_module = require("PIL.Image")
    size = os.fstat(file.fileno()).st_size
    if size > MAX_FILE:
        raise RefusedError(f"file must have at most {in_bytes(MAX_FILE)}, got {in_bytes(size)}")
    kind, pixels = find_pixels(file, size)
    with warnings.catch_warnings():
        # Pillow warns about large and about damaged images. Here both are errors, or harmless.
        warnings.simplefilter("ignore")
        try:
            image = image_module.open(io.BufferedReader(pixels.parts), formats=(kind,))
        except image_module.DecompressionBombError:
            raise RefusedError(_too_many_pixels("more")) from None
        with image:
            count = image.width * image.height
            if count > MAX_PIXELS or max(image.size) > MAX_SIDE:
                raise RefusedError(_too_many_pixels(f"{image.width:,} x {image.height:,}"))
            extra = pixels.extra(count)
            if draft is not None:
                image.draft(draft[0], (draft[1], draft[1]))
            limit = max(MAX_DECODED, 2 * size)
            needed = int(image.width * image.height * _pixel_bytes(image.mode) + extra)
            if needed > limit:
                raise RefusedError(
                    f"image must need at most {in_bytes(limit)} of memory when decoded, got "
                    f"{in_bytes(needed)}: reduce it, or save it as a JPEG that is not progressive"
                )
            available_memory.require(f"{name}: decoding needs", needed)
            image.load()
            converted = convert(image)
    return _upright(converted, pixels.orientation)


def _too_many_pixels(got: str) -> str:
    return f"image must have at most {MAX_PIXELS:,} pixels, and {MAX_SIDE:,} per side, got {got}"


def _pixel_bytes(mode: str) -> int:
    """Return the size of one of Pillow's pixels."""
    return 1 if mode in ("1", "L", "P") else 2 if mode.startswith("I;16") else 4


# Conversion to gray, in bands: no second copy of the image exists


def _reduced(image: Image) -> Image:
    """Return the image in gray, with at most `WORKING` pixels on the longer side."""
    image_module = require("PIL.Image")
    width, height = image.size
    factor = max(1, max(width, height) // (2 * WORKING))
    small = cast("Image", image_module.new("L", (-(-width // factor), -(-height // factor))))
    span = _span(image)
    for top, band in _bands(image, factor):
        gray = _gray(band, span)
        small.paste(gray.reduce(factor) if factor > 1 else gray, (0, top // factor))
    small.thumbnail((WORKING, WORKING), image_module.Resampling.BOX)
    return small


def _bands(image: Image, factor: int = 1) -> Iterator[tuple[int, Image]]:
    """Yield the first row, and the image, of bands whose height is a multiple of ``factor``."""
    width, height = image.size
    rows = max(1, BAND // width // factor) * factor
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(height, top + rows)))


def _deep(band: Image) -> Floats:
    levels = np.asarray(band, dtype=np.float64)
    # A float64 holds the difference of any two float32.
    largest = float(np.finfo(np.float32).max)
    return np.nan_to_num(levels, nan=0.0, posinf=largest, neginf=-largest)


def _span(image: Image) -> tuple[float, float] | None:
    """Return the lowest level, and the range, of an image of 16 or 32 bits per pixel."""
    if not image.mode.startswith(("I", "F")):
        return None
    levels = [(float(deep.min()), float(deep.max())) for deep in map(_deep, _images(image))]
    lowest = min(low for low, _ in levels)
    return lowest, max(high for _, high in levels) - lowest or 1.0


def _images(image: Image) -> Iterator[Image]:
    return (band for _, band in _bands(image))


def _gray(band: Image, span: tuple[float, float] | None) -> Image:
    image_module = require("PIL.Image")
    if span is not None:
        # convert("L") would clip at 255. The scale is irrelevant later, so the levels are mapped
        # from the image's own range.
        lowest, width = span
        levels = ((_deep(band) - lowest) * (255.0 / width)).astype(np.uint8)
        return cast("Image", image_module.fromarray(levels))
    if band.has_transparency_data:
        rgba = band.convert("RGBA")
        band = image_module.alpha_composite(image_module.new("RGBA", rgba.size, "white"), rgba)
    return band.convert("L")


def _upright(image: Image, orientation: int) -> Image:
    methods = {
        2: "FLIP_LEFT_RIGHT",
        3: "ROTATE_180",
        4: "FLIP_TOP_BOTTOM",
        5: "TRANSPOSE",
        6: "ROTATE_270",
        7: "TRANSVERSE",
        8: "ROTATE_90",
    }
    if orientation not in methods:
        return image
    return image.transpose(require("PIL.Image").Transpose[methods[orientation]])
