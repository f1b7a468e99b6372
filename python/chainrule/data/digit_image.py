"""Convert a scan, photograph or drawing of a digit to an image like those of MNIST.

The images of MNIST were made from black-and-white scans. Each digit was scaled to fit a square of
20 pixels, with antialiasing. Its center of mass was moved to the center of 28 × 28 pixels. Ink is
white on black. A network that was trained on such images reads only such images, so this module
applies the same steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._files import PathLike, explained_memory_errors, shown
from .._optional import require
from .._validation import imported
from .image_file import gray_levels

__all__ = ["FoundDigit", "find_digit", "read_digit", "to_digit"]

SIDE = 28
BOX = 20
# Strokes of MNIST are 2 to 3 pixels wide. A ballpoint stroke on a photograph becomes narrower than
# one pixel, which a network trained on MNIST hardly detects. Such strokes are widened to this share
# of the digit's longer side.
STROKE = 0.1
# The background is estimated in a copy whose longer side has this number of pixels.
REDUCED = 160
# Radius of the window that ink must not fill: strokes may take 30 % of the longer side.
WINDOW = 24
# Uncertainty of the edge of a shadow, in pixels of the copy.
MARGIN = 1
BLANK = "image must show a digit, got a blank image"

Floats = npt.NDArray[np.float64]


class FoundDigit(NamedTuple):
    """Describe the digit that was found in a picture.

    Parameters
    ----------
    image : ndarray of uint8 (28, 28, 1)
        The largest digit, in the format of MNIST.
    digits : int
        Number of parts of the picture that are about as large as the digit, itself included. If it
        exceeds 1, the picture probably shows several digits, of which only the largest was read.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule.data.digit_image import FoundDigit
    >>> FoundDigit(np.zeros((28, 28, 1), np.uint8), digits=2).digits
    2
    """

    image: npt.NDArray[np.uint8]
    digits: int


def find_digit(path: PathLike) -> FoundDigit:
    """Find the largest digit in an image file, and count the digits.

    Parameters
    ----------
    path : path-like
        As in `read_digit`, with the same errors.

    Returns
    -------
    FoundDigit
        The image that `read_digit` returns, and the number of digit-like parts.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> from chainrule.data.digit_image import find_digit
    >>> paper = np.full((300, 400), 240, np.uint8)
    >>> paper[50:200, 80:100] = paper[70:210, 280:300] = 20  # two vertical strokes
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "eleven.png")
    ...     Image.fromarray(paper).save(path)
    ...     find_digit(path).digits
    2
    """
    levels, name = gray_levels(path), shown(path)
    with explained_memory_errors(f"{name}: memory must suffice to read the digit, got too little"):
        try:
            return _found(levels)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def read_digit(path: PathLike) -> npt.NDArray[np.uint8]:
    """Read an image file of one digit.

    Parameters
    ----------
    path : path-like
        A PNG, JPEG, BMP, GIF, TIFF or WebP file. The first frame is used.

    Returns
    -------
    ndarray of uint8 (28, 28, 1)
        The digit in the format of MNIST. See `to_digit`. Of several digits, the largest is read.
        `find_digit` also returns their number.

    Raises
    ------
    ValueError
        If the file is not an image, is damaged, needs more than 64 MB and twice its size to decode,
        or shows no ink. Also if it is a pipe, a socket or a device. The message names the file.
    OSError
        If the file cannot be opened.
    ImportError
        If Pillow is not installed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from chainrule.data import digits
    >>> from chainrule.data.digit_image import read_digit
    >>> _, test = digits()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "digit.png")
    ...     Image.fromarray(test.images[0, :, :, 0]).save(path)
    ...     read_digit(path).shape
    (28, 28, 1)
    """
    return find_digit(path).image


def to_digit(gray: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Convert an image of one digit, dark on light or light on dark, to the format of MNIST.

    An array of 28 × 28 with a black edge is an image of MNIST and is returned unchanged. With a
    white edge, it is inverted. Any other image is converted in four steps:

    1. Ink is measured relative to the local background, which corrects uneven lighting. A shadow
       with a straight edge may cross the digit.
    2. Otsu's threshold [1]_ separates ink from background.
    3. The largest connected component of ink is the digit.
    4. The digit is scaled to 20 pixels, and its center of mass is moved to the center.

    Parameters
    ----------
    gray : array_like (rows, columns)
        Gray levels from 0 (black) to 255 (white).

    Returns
    -------
    ndarray of uint8 (28, 28, 1)
        White ink on black.

    Raises
    ------
    TypeError
        If the array has a mask, or does not contain real numbers.
    ValueError
        If the array does not have two axes, a gray level is NaN or infinite, or no ink differs from
        the background.
    ImportError
        If Pillow is not installed.

    References
    ----------
    .. [1] N. Otsu, A threshold selection method from gray-level histograms, IEEE Transactions on
       Systems, Man, and Cybernetics 9 (1979), 62-66.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule.data.digit_image import to_digit
    >>> paper = np.full((300, 400), 240, np.uint8)
    >>> paper[30:230, 300:340] = 20  # a vertical stroke
    >>> rows, columns = np.nonzero(to_digit(paper)[:, :, 0] > 127)
    >>> int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    (20, 4)
    """
    return _found(gray).image


def _found(gray: npt.ArrayLike) -> FoundDigit:
    values = imported("to_digit", "image", gray)
    if values.dtype.kind not in "fiub":
        raise TypeError(f"to_digit: image must contain real numbers, got {values.dtype}")
    levels = values.astype(np.float64, copy=False)
    if not np.isfinite(levels).all():
        raise ValueError("to_digit: image must be finite, got NaN or infinity")
    if levels.ndim != 2 or min(levels.shape) < 1:
        raise ValueError(f"to_digit: image must have shape (rows, columns), got {levels.shape}")
    if levels.shape == (SIDE, SIDE):
        # Use the median: one percent of the images of MNIST have ink on the edge.
        edge = float(np.median(_edge(levels)))
        if edge >= 223.0:
            levels, edge = 255.0 - levels, 255.0 - edge
        if edge <= 32.0 and levels.max() >= 128.0:
            digit = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
            return FoundDigit(digit[:, :, None], digits=1)
    ink, digits = _largest_component(_ink(levels))
    return FoundDigit(_centered(_scaled(_widened(ink))), digits)


def _edge(levels: Floats) -> Floats:
    return np.concatenate([levels[0], levels[-1], levels[1:-1, 0], levels[1:-1, -1]])


def _to_pillow(levels: Floats) -> Any:
    return require("PIL.Image").fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def _filtered(levels: Floats, *filters: Any) -> Floats:
    image = _to_pillow(levels)
    for each in filters:
        image = image.filter(each)
    return np.asarray(image, dtype=np.float64)


def _resized(levels: Floats, size: tuple[int, int], method: str) -> Floats:
    """Return the image scaled to ``size``, in Pillow's order (columns, rows)."""
    how = require("PIL.Image").Resampling[method]
    return np.asarray(_to_pillow(levels).resize(size, how), dtype=np.float64)


def _background(levels: Floats) -> Floats:
    """Return the paper around dark ink, in a copy of `REDUCED` pixels: a gray-scale closing.

    A closing removes what is narrower than its window. The edge of a shadow remains where it is if
    it is straight, in any direction.
    """
    rows, columns = levels.shape
    scale = REDUCED / max(rows, columns)
    small = _resized(levels, (max(1, round(columns * scale)), max(1, round(rows * scale))), "BOX")
    # Noise would raise the maximum. A median filter reduces it and preserves edges.
    small = _filtered(small, require("PIL.ImageFilter").MedianFilter(5))
    pad = 2 * WINDOW  # the filters' reach, so that the border needs no special case
    small = np.pad(small, pad, mode="edge")
    return _eroded(_dilated(small, WINDOW), WINDOW)[pad:-pad, pad:-pad]


def _eroded(levels: Floats, reach: int) -> Floats:
    """Return the minimum filter with radius ``reach`` (a gray-scale erosion)."""
    return np.subtract(255.0, _dilated(255.0 - levels, reach))


def _variation(levels: Floats) -> float:
    return sum(float(np.abs(np.diff(levels, axis=axis)).sum()) for axis in (0, 1))


def _ink(levels: Floats) -> Floats:
    """Return the amount of ink per pixel, from 0 (background) to 1, with soft edges."""
    # Remove the noise of a photograph. For 28 pixels the radius is too small to have an effect.
    levels = _filtered(levels, require("PIL.ImageFilter").GaussianBlur(max(levels.shape) / 600))
    background, inverted = _background(levels), _background(255.0 - levels)
    # Paper alone varies less than paper with ink. So the background that varies less is paper.
    dark_ink = _variation(background) <= _variation(inverted)
    if not dark_ink:
        levels, background = 255.0 - levels, inverted
    # On the shadow's side of the edge, lighter paper would turn the shadow to ink.
    background = _eroded(background, MARGIN)
    paper = _resized(background, levels.shape[::-1], "BILINEAR")
    difference = np.maximum(paper - levels, 0.0)
    # Light multiplies the levels of paper and ink, so that ink differs less in a shadow. The
    # constant limits the noise of black paper.
    depth = difference / (paper + 10.0 if dark_ink else _contrast(difference, paper))
    threshold = _otsu(depth)
    inked = depth > threshold
    # The noise is estimated by the median absolute deviation. JPEG compression alone changes white
    # paper by up to 12 gray levels.
    middle = float(np.median(difference))
    contrast = float(difference[inked].mean()) - middle if inked.any() else 0.0
    noise = 1.4826 * float(np.median(np.abs(difference - middle)))
    if contrast < max(12.0, 4.0 * noise):
        raise ValueError(BLANK)
    return np.clip((depth / threshold - 0.6) / 0.8, 0.0, 1.0)


def _contrast(difference: Floats, paper: Floats) -> Floats:
    """Return how much light ink differs from paper, by the level of the paper.

    Dark paper has too little light to measure the shadow. The ink itself shows it: pixels that are
    probably ink are split by the level of their paper.
    """
    inked = difference > 0.5 * _otsu(difference)
    high = paper > (paper.min() + paper.max()) / 2.0
    levels, contrasts = [], []
    for part in (inked & ~high, inked & high):
        if np.count_nonzero(part) < 0.02 * np.count_nonzero(inked):
            return np.ones_like(paper)
        levels.append(float(np.median(paper[part])))
        contrasts.append(float(np.median(difference[part])))
    if min(contrasts) < 0.4 * max(contrasts):  # one of the parts is noise
        return np.ones_like(paper)
    return np.interp(paper, levels, contrasts)


def _otsu(depth: Floats) -> float:
    """Return the threshold that maximizes the variance between two classes (Otsu 1979)."""
    counts, edges = np.histogram(depth, bins=256)
    centers = (edges[:-1] + edges[1:]) / 2.0
    below = np.cumsum(counts, dtype=np.float64)
    above = below[-1] - below
    sums = np.cumsum(counts * centers)
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = sums / below - (sums[-1] - sums) / above
    between = np.where((below > 0) & (above > 0), below * above * distance**2, 0.0)
    # If there is a gap between the classes, the maximum is a plateau. Its middle is the least
    # sensitive to noise.
    best = np.flatnonzero(between >= between.max() * (1.0 - 1e-12))
    return max(float(centers[best].mean()), 1e-6)


def _largest_component(ink: Floats) -> tuple[Floats, int]:
    """Crop to the largest connected component of ink, with the strokes near it.

    Also return the number of such digits.
    """
    filters = require("PIL.ImageFilter")
    rows, columns = ink.shape
    scale = min(1.0, 160.0 / max(rows, columns))
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    # A maximum filter before the reduction preserves thin strokes.
    small = _resized(_filtered(ink * 255.0, filters.MaxFilter(3)), size, "BOX")
    small = np.where(small > 64.0, small, 0.0)
    bridged = round(max(size) / 64)
    labels = _components(_dilated(small, bridged) > 0.0)
    weights = np.bincount(labels.ravel(), weights=small.ravel()).astype(np.float64)
    # Shadows, table edges and thumbs touch the border. A digit seldom does.
    touching = np.unique(_edge(labels.astype(np.float64)).astype(np.int64))
    weights[touching] *= 0.1
    weights[0] = 0.0
    largest = int(weights.argmax())
    # The bar of a 5 is often a separate stroke: add nearby components, except specks.
    where = np.nonzero(labels == largest)
    side = max(np.ptp(where[0]), np.ptp(where[1]))
    reach = max(1, round(0.1 * side))
    near = np.unique(labels[_dilated(np.where(labels == largest, 255.0, 0.0), reach) > 0.0])
    near = near[weights[near] >= 0.05 * weights[largest]]
    mask = _resized(np.where(np.isin(labels, near), 255.0, 0.0), (columns, rows), "NEAREST")
    kept = np.where(mask > 0, ink, 0.0)
    row = np.flatnonzero(kept.max(axis=1) >= 0.5)
    column = np.flatnonzero(kept.max(axis=0) >= 0.5)
    if row.size == 0 or column.size == 0:
        raise ValueError(BLANK)
    others = np.where(np.isin(labels, [*touching, *near]), 0.0, small)
    least = 0.1 * float(weights[near].sum())
    count = 1 + _count_digits(others, bridged + (reach + 1) // 2, least, side / 2.0)
    return kept[row[0] : row[-1] + 1, column[0] : column[-1] + 1], count


def _count_digits(ink: Floats, reach: int, least: float, side: float) -> int:
    """Return the number of parts with at least this much ink and this longer side.

    Strokes that are at most twice ``reach`` apart are one part.
    """
    labels = _components(_dilated(ink, reach) > 0.0)
    labels = np.where(ink > 0.0, labels, 0)
    weights = np.bincount(labels.ravel(), weights=ink.ravel())
    count = 0
    for label in np.flatnonzero(weights >= max(least, 1.0)):
        where = np.nonzero(labels == label)
        count += bool(max(np.ptp(where[0]), np.ptp(where[1])) >= side)
    return count


def _dilated(levels: Floats, reach: int) -> Floats:
    """Return the maximum filter with radius ``reach`` (a gray-scale dilation).

    The time grows with the logarithm of ``reach``. That of Pillow's MaxFilter grows with its
    square, which made a thin pen take three seconds.
    """
    levels = np.clip(np.rint(levels), 0, 255)
    for _ in range(2):
        levels = _row_maxima(np.pad(levels, ((reach, reach), (0, 0))), 2 * reach + 1).T
    return levels


def _row_maxima(levels: Floats, width: int) -> Floats:
    """Return the maximum of each ``width`` adjacent rows."""
    covered = 1
    while 2 * covered <= width:
        levels = np.maximum(levels[:-covered], levels[covered:])
        covered *= 2
    rest = width - covered
    return np.maximum(levels[: len(levels) - rest], levels[rest:])


def _components(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Label the connected components (8-connectivity) of a small mask. 0 is background."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        spread = np.pad(labels, 1)
        spread = np.maximum(np.maximum(spread[:-2], spread[1:-1]), spread[2:])
        spread = np.maximum(np.maximum(spread[:, :-2], spread[:, 1:-1]), spread[:, 2:])
        spread = np.where(mask, spread, 0)
        if np.array_equal(spread, labels):
            return labels
        # A label is the position of a pixel of the component, whose own label may be larger.
        # Without this step a spiral takes as many rounds as it is long.
        labels = np.where(mask, spread.ravel()[spread - 1], 0)


def _widened(ink: Floats) -> Floats:
    """Widen strokes that are too thin at 20 pixels."""
    solid = np.pad(ink >= 0.5, 1)
    area = float(solid.sum())
    # Boundary pixels are counted along rows and columns: on average 4/π times the boundary's
    # length.
    crossings = sum(np.count_nonzero(np.diff(solid, axis=axis)) for axis in (0, 1))
    width = 2.0 * area / (crossings * np.pi / 4.0)
    grow = round((STROKE * max(ink.shape) - width) / 2.0)
    if grow < 1:
        return ink
    grow = min(grow, max(ink.shape) // 8)
    return _dilated(np.pad(ink, grow) * 255.0, grow) / 255.0


def _scaled(ink: Floats) -> Floats:
    """Scale the longer side to `BOX` pixels, antialiased, with the same aspect ratio."""
    rows, columns = ink.shape
    scale = BOX / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    smaller = _resized(ink * 255.0, size, "BICUBIC")
    return smaller * (255.0 / max(float(smaller.max()), 1.0))


def _centered(digit: Floats) -> npt.NDArray[np.uint8]:
    """Return 28 × 28 pixels with the digit's center of mass at the center."""
    rows, columns = digit.shape
    mass = float(digit.sum())
    center_row = float((digit.sum(axis=1) * np.arange(rows)).sum()) / mass
    center_column = float((digit.sum(axis=0) * np.arange(columns)).sum()) / mass
    middle = SIDE / 2.0
    top = min(max(round(middle - center_row), 0), SIDE - rows)
    left = min(max(round(middle - center_column), 0), SIDE - columns)
    image = np.zeros((SIDE, SIDE, 1), dtype=np.uint8)
    image[top : top + rows, left : left + columns, 0] = np.clip(np.rint(digit), 0, 255)
    return image
