"""Pictures of digits, from a scan, a photograph or a drawing, made like the images of MNIST.

MNIST's images were made from black-and-white scans: the digit scaled to fit a square of 20 pixels,
antialiased, and laid with its centre of mass at the centre of 28 × 28 pixels, white ink on black.
A network that has only seen such images reads nothing else, so a picture takes the same road here.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._optional import require

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["read_digit", "to_digit"]

SIDE = 28
BOX = 20
# Longer side of the picture that is searched for ink: a digit that fills a tenth of a photograph
# still has more pixels than BOX, and the whole search takes some 50 ms.
WORKING = 640
# MNIST's strokes are 2 to 3 pixels wide. A ball-pen on a photograph comes out at less than one,
# which a network trained on MNIST hardly sees; such strokes are widened to this share of the
# digit's longer side.
STROKE = 0.1
BLANK = "no digit found, the picture is blank"

Floats = npt.NDArray[np.float64]


def read_digit(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Read one picture of one digit.

    Parameters
    ----------
    path : path
        A PNG, JPEG or any other file that Pillow reads; of several frames the first.

    Returns
    -------
    ndarray of uint8, (28, 28, 1)
        The digit, made like the images of MNIST (see `to_digit`).

    Raises
    ------
    ValueError
        If the file is no picture, is broken, is too large to be unpacked safely, or shows no ink.
        The message names the file.
    OSError
        If the file cannot be opened.
    """
    image_module = require("PIL.Image")
    name = os.fspath(path)
    if os.path.isdir(name):
        raise IsADirectoryError(f"{name}: is a directory, not a picture")
    if not os.path.exists(name):
        raise FileNotFoundError(f"{name}: no such file")
    with open(name, "rb") as file, warnings.catch_warnings():
        # Pillow only warns between one and two times its limit of 89 million pixels.
        warnings.simplefilter("error", image_module.DecompressionBombWarning)
        try:
            with image_module.open(file) as image:
                grey = _grey(image)
        except (image_module.DecompressionBombWarning, image_module.DecompressionBombError):
            limit = f"{image_module.MAX_IMAGE_PIXELS:,}"
            raise ValueError(f"{name}: picture has more than {limit} pixels") from None
        except image_module.UnidentifiedImageError:
            raise ValueError(f"{name}: not a picture that can be read (PNG, JPEG, ...)") from None
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise ValueError(f"{name}: broken picture ({error})") from None
    try:
        return to_digit(grey)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _grey(image: Image) -> Floats:
    """Return the picture as grey levels, upright, at most `WORKING` pixels on its longer side."""
    image_module = require("PIL.Image")
    # Has a large JPEG decoded at an eighth of its size or more.
    image.draft("L", (2 * WORKING, 2 * WORKING))
    image = require("PIL.ImageOps").exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        # 16 and 32 bits: convert("L") would clip at 255. The range does not matter below, so the
        # picture's own is used.
        deep = np.nan_to_num(np.asarray(image, dtype=np.float64))
        span = float(np.ptp(deep)) or 1.0
        image = image_module.fromarray(((deep - deep.min()) * (255.0 / span)).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = image_module.alpha_composite(image_module.new("RGBA", rgba.size, "white"), rgba)
    image = image.convert("L")
    image.thumbnail((WORKING, WORKING), image_module.Resampling.BOX)
    return np.asarray(image, dtype=np.float64)


def to_digit(grey: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Make an image like MNIST's out of a picture of one digit, dark on light or light on dark.

    An array of 28 × 28 with a black edge is taken for an image of MNIST and returned as it is, one
    with a white edge inverted. Otherwise the local background is subtracted (so uneven lighting
    does no harm), the ink is told from the paper by Otsu's threshold, the largest patch of ink is
    taken for the digit, scaled to 20 pixels and centred by its mass.

    Parameters
    ----------
    grey : array_like, (rows, columns)
        Grey levels from 0 (black) to 255 (white).

    Returns
    -------
    ndarray of uint8, (28, 28, 1)
        White ink on black.

    Raises
    ------
    ValueError
        If the array is not two-dimensional, or nothing in it stands out from the background.
    """
    levels = np.asarray(grey, dtype=np.float64)
    if levels.ndim != 2 or min(levels.shape) < 1:
        raise ValueError(f"a picture must have the shape (rows, columns), got {levels.shape}")
    if levels.shape == (SIDE, SIDE):
        # The median, because one in a hundred of MNIST's own images has ink on its edge.
        edge = float(np.median(_edge(levels)))
        if edge >= 223.0:
            levels, edge = 255.0 - levels, 255.0 - edge
        if edge <= 32.0 and levels.max() >= 128.0:
            return np.clip(np.rint(levels), 0, 255).astype(np.uint8)[:, :, None]
    ink = _largest_patch(_ink(levels))
    return _centred(_scaled(_widened(ink)))


def _edge(levels: Floats) -> Floats:
    return np.concatenate([levels[0], levels[-1], levels[1:-1, 0], levels[1:-1, -1]])


def _picture(levels: Floats) -> Any:
    return require("PIL.Image").fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def _filtered(levels: Floats, *filters: Any) -> Floats:
    image = _picture(levels)
    for each in filters:
        image = image.filter(each)
    return np.asarray(image, dtype=np.float64)


def _resized(levels: Floats, size: tuple[int, int], method: str) -> Floats:
    """Return the picture scaled to ``size``, columns first as Pillow has them."""
    how = require("PIL.Image").Resampling[method]
    return np.asarray(_picture(levels).resize(size, how), dtype=np.float64)


def _background(levels: Floats, dark_ink: bool) -> Floats:
    """Return the paper without the ink: a grey-scale closing on a small copy, smoothed."""
    filters = require("PIL.ImageFilter")
    rows, columns = levels.shape
    scale = 64.0 / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    small = _resized(levels, size, "BOX")
    pad = 16  # more than the filters reach, so that the border of the picture is no special case
    small = np.pad(small, pad, mode="edge")
    first, then = filters.MaxFilter(15), filters.MinFilter(15)
    if not dark_ink:
        first, then = then, first
    smooth = _filtered(small, first, then, filters.GaussianBlur(3))[pad:-pad, pad:-pad]
    return _resized(smooth, (columns, rows), "BICUBIC")


def _ink(levels: Floats) -> Floats:
    """Return how much ink each pixel shows, from 0 (paper) to 1, with soft edges."""
    # Takes the grain out of a photograph; at 28 pixels its radius is too small to change anything.
    levels = _filtered(levels, require("PIL.ImageFilter").GaussianBlur(max(levels.shape) / 600))
    pad = max(2, max(levels.shape) // 20)
    # The ink is the minority that stands out on one side of the background, so the side with the
    # larger third moment is the ink's.
    wide = require("PIL.ImageFilter").GaussianBlur(max(levels.shape) / 4)
    around = _filtered(np.pad(levels, pad, mode="edge"), wide)[pad:-pad, pad:-pad]
    residual = levels - around
    dark_ink = float(np.mean(residual**3)) < 0.0
    depth = _background(levels, dark_ink) - levels
    depth = np.maximum(depth if dark_ink else -depth, 0.0)
    threshold = _otsu(depth)
    inked = depth > threshold
    # Half the paper's spread is measured robustly below; 12 grey levels is what JPEG alone can
    # make of white paper.
    contrast = float(depth[inked].mean()) - float(np.median(depth)) if inked.any() else 0.0
    noise = 1.4826 * float(np.median(np.abs(depth - np.median(depth))))
    if contrast < max(12.0, 4.0 * noise):
        raise ValueError(BLANK)
    return np.clip((depth / threshold - 0.6) / 0.8, 0.0, 1.0)


def _otsu(depth: Floats) -> float:
    """Return the threshold that best separates two classes of levels (Otsu 1979)."""
    counts, edges = np.histogram(depth, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2.0
    below = np.cumsum(counts, dtype=np.float64)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = sums / below - (sums[-1] - sums) / above
    between = np.where((below > 0) & (above > 0), below * above * distance**2, 0.0)
    # Where a gap lies between the classes the maximum is a plateau; its middle is least disturbed
    # by noise.
    best = np.flatnonzero(between >= between.max() * (1.0 - 1e-12))
    return max(float(centres[best].mean()), 1e-6)


def _largest_patch(ink: Floats) -> Floats:
    """Crop to the largest patch of ink, with the strokes that belong to it."""
    filters = require("PIL.ImageFilter")
    rows, columns = ink.shape
    scale = min(1.0, 160.0 / max(rows, columns))
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    # The maximum before the reduction keeps thin strokes.
    small = _resized(_filtered(ink * 255.0, filters.MaxFilter(3)), size, "BOX")
    small = np.where(small > 64.0, small, 0.0)
    labels = _patches(_grown(small, round(max(size) / 64)) > 0.0)
    weights = np.bincount(labels.ravel(), weights=small.ravel()).astype(np.float64)
    # Shadows, table edges and thumbs come in from the border; a digit seldom does.
    touching = np.unique(_edge(labels.astype(np.float64)).astype(np.int64))
    weights[touching] *= 0.1
    weights[0] = 0.0
    largest = int(weights.argmax())
    # The bar of a 5 is often drawn apart: what lies near the patch belongs to it, but for specks.
    where = np.nonzero(labels == largest)
    reach = max(1, round(0.08 * max(np.ptp(where[0]), np.ptp(where[1]))))
    near = np.unique(labels[_grown(np.where(labels == largest, 255.0, 0.0), reach) > 0.0])
    near = near[weights[near] >= 0.05 * weights[largest]]
    mask = _resized(np.where(np.isin(labels, near), 255.0, 0.0), (columns, rows), "NEAREST")
    kept = np.where(mask > 0, ink, 0.0)
    row = np.flatnonzero(kept.max(axis=1) >= 0.5)
    column = np.flatnonzero(kept.max(axis=0) >= 0.5)
    if row.size == 0 or column.size == 0:
        raise ValueError(BLANK)
    return kept[row[0] : row[-1] + 1, column[0] : column[-1] + 1]


def _grown(levels: Floats, reach: int) -> Floats:
    """Return the picture with every pixel as bright as the brightest within ``reach``."""
    return _filtered(levels, require("PIL.ImageFilter").MaxFilter(2 * reach + 1))


def _patches(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Number the connected patches (eight neighbours) of a small mask; 0 is no patch."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        spread = np.pad(labels, 1)
        spread = np.maximum(np.maximum(spread[:-2], spread[1:-1]), spread[2:])
        spread = np.maximum(np.maximum(spread[:, :-2], spread[:, 1:-1]), spread[:, 2:])
        spread = np.where(mask, spread, 0)
        if np.array_equal(spread, labels):
            return labels
        labels = spread


def _widened(ink: Floats) -> Floats:
    """Widen strokes that would be too thin to see at 20 pixels."""
    solid = np.pad(ink >= 0.5, 1)
    area = float(solid.sum())
    # Each boundary between ink and paper is counted along rows and columns: 4/π times its length
    # on average.
    crossings = sum(np.count_nonzero(np.diff(solid, axis=axis)) for axis in (0, 1))
    width = 2.0 * area / (crossings * np.pi / 4.0)
    grow = round((STROKE * max(ink.shape) - width) / 2.0)
    if grow < 1:
        return ink
    grow = min(grow, max(ink.shape) // 8)
    return _grown(np.pad(ink, grow) * 255.0, grow) / 255.0


def _scaled(ink: Floats) -> Floats:
    """Scale the longer side to `BOX` pixels, antialiased, keeping the aspect."""
    rows, columns = ink.shape
    scale = BOX / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    smaller = _resized(ink * 255.0, size, "BICUBIC")
    return smaller * (255.0 / max(float(smaller.max()), 1.0))


def _centred(digit: Floats) -> npt.NDArray[np.uint8]:
    """Lay the digit into 28 × 28 with its centre of mass at the centre."""
    rows, columns = digit.shape
    mass = float(digit.sum())
    centre_row = float((digit.sum(axis=1) * np.arange(rows)).sum()) / mass
    centre_column = float((digit.sum(axis=0) * np.arange(columns)).sum()) / mass
    middle = SIDE / 2.0
    top = min(max(round(middle - centre_row), 0), SIDE - rows)
    left = min(max(round(middle - centre_column), 0), SIDE - columns)
    image = np.zeros((SIDE, SIDE, 1), dtype=np.uint8)
    image[top : top + rows, left : left + columns, 0] = np.clip(np.rint(digit), 0, 255)
    return image
