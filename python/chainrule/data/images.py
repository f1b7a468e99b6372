"""Images of any size and kind from files: one image, or a folder with a subfolder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from .. import available_memory
from .._files import PathLike, expanded_path, explained_memory_errors, shown
from .._optional import require
from .._types import Pair
from .._validation import both, pair
from .dataset import Dataset
from .image_file import MAX_SIDE, decoded
from .image_parts import RefusedError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
GRAY = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N")

Pixels = npt.NDArray[np.uint8]


def read_image(path: PathLike, size: Pair | None = None, channels: int | None = None) -> Pixels:
    """Read an image file as pixels (rows, columns, channels).

    The image is upright: the orientation in its Exif data is applied. Transparent pixels are mixed
    with white. Levels of 16 bits are rounded to 8. `read_digit` finds a handwritten digit instead.

    Parameters
    ----------
    path : path-like
        A PNG, JPEG, BMP, GIF, TIFF or WebP file. The first frame is used.
    size : int or (rows, columns), optional
        Size of the result. An image of another size is scaled with antialiasing, and its sides are
        scaled independently. None keeps the size.
    channels : {None, 1, 3}
        1 for gray levels, 3 for red, green and blue. None keeps gray images gray.

    Returns
    -------
    ndarray of uint8 (rows, columns, channels)

    Raises
    ------
    ValueError
        If the file is not an image, is damaged, or needs too much memory. The message names the
        file. Also if an argument is out of range.
    TypeError
        If an argument has another type.
    OSError
        If the file cannot be opened.
    ImportError
        If Pillow is not installed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import chainrule as cr
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "red.png")
    ...     Image.new("RGB", (40, 30), (255, 0, 0)).save(path)
    ...     cr.data.read_image(path).shape, cr.data.read_image(path, size=8, channels=1).shape
    ((30, 40, 3), (8, 8, 1))
    """
    return _read(path, *_checked("read_image", size, channels))


def image_folder(path: PathLike, size: Pair | None = None, channels: int | None = None) -> Dataset:
    """Load a folder of images with one subfolder per class.

    The class names are those of the subfolders, in alphabetical order, or in numerical order if all
    are numbers. Images are read from each subfolder and the folders in it, in alphabetical order.
    Hidden files, and files that do not end like an image (``.png``, ``.jpg``, ``.jpeg``, ``.bmp``,
    ``.gif``, ``.tif``, ``.tiff``, ``.webp``), are left out.

    Parameters
    ----------
    path : path-like
    size, channels
        As in `read_image`. Without a `size`, all images must have the same. Without `channels`, the
        images are gray if all files are.

    Returns
    -------
    Dataset
        Images uint8 (N, rows, columns, channels), and labels int64 (N,), class by class. Its
        `classes` are the names of the subfolders.

    Raises
    ------
    ValueError
        If there is no subfolder, a subfolder has no image, the images differ in size, or one cannot
        be read. The message names the file.
    TypeError
        If an argument has another type.
    OSError
        If a file or folder cannot be opened.
    ImportError
        If Pillow is not installed.
    MemoryError
        If the images do not fit in memory.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import chainrule as cr
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, color in (("cat", "black"), ("dog", "white")):
    ...         pathlib.Path(folder, name).mkdir()
    ...         Image.new("L", (8, 8), color).save(pathlib.Path(folder, name, "1.png"))
    ...     d = cr.data.image_folder(folder)
    >>> d, d.classes
    (Dataset(2 images (8, 8, 1) uint8, labels int64 from 0 to 1), ('cat', 'dog'))
    """
    wanted = _checked("image_folder", size, channels)
    folder = expanded_path("image_folder", path)
    files = class_files(folder)
    count = sum(map(len, files.values()))
    images: Pixels | None = None
    first = ""
    labels = np.repeat(np.arange(len(files)), [len(each) for each in files.values()])
    text = f"image_folder: {shown(folder)}: memory must suffice for the images, got too little"
    with explained_memory_errors(text):
        for index, file in enumerate(file for each in files.values() for file in each):
            image = _read(file, *wanted)
            if images is None:
                first = shown(file)
                images = _allocated(folder, count, image.shape)
            if image.shape[:2] != images.shape[1:3]:
                (a, b), (c, d) = image.shape[:2], images.shape[1:3]
                raise ValueError(
                    f"image_folder: images must have the same size, got {a} x {b} for "
                    f"{shown(file)} and {c} x {d} for {first}: pass size, such as size=({c}, {d})"
                )
            if image.shape[2] > images.shape[3]:
                gray, images = images, _allocated(folder, count, image.shape)
                images[:index] = gray[:index]  # gray in three channels
                del gray
            images[index] = image
    return Dataset(cast(Pixels, images), labels, tuple(files))


def _allocated(folder: Path, count: int, shape: tuple[int, ...]) -> Pixels:
    nbytes = count * shape[0] * shape[1] * shape[2]
    available_memory.require(f"image_folder: {count:,} images in {shown(folder)} need", nbytes)
    return np.empty((count, *shape), np.uint8)


def class_files(folder: Path) -> dict[str, list[Path]]:
    """Return the image files of each class."""
    if not folder.is_dir():
        folder.stat()  # raises an error if it does not exist
        raise NotADirectoryError(f"image_folder: path must be a folder, got {shown(folder)}")
    names = [entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."]
    if not names:
        raise ValueError(
            f"image_folder: {shown(folder)} must contain a folder of images for each class, got "
            f"no folder"
        )
    files = {name: list(_images_in(folder / name)) for name in _ordered(names)}
    for name, found in files.items():
        if not found:
            raise ValueError(
                f"image_folder: each class must have at least one image ({', '.join(SUFFIXES)}), "
                f"got none in {shown(folder / name)}"
            )
    return files


def _ordered(names: Sequence[str]) -> list[str]:
    if all(name.isascii() and name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (len(name.lstrip("0")), name.lstrip("0"), name))
    return sorted(names)


def _images_in(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for base, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for name in sorted(names):
            if name[0] != "." and name.lower().endswith(SUFFIXES):
                yield Path(base, name)


def _checked(
    operation: str, size: object, channels: object
) -> tuple[tuple[int, int] | None, int | None]:
    if channels is not None and (isinstance(channels, bool) or channels not in (1, 3)):
        raise ValueError(f"{operation}: channels must be 1, 3 or None, got {channels!r}")
    if size is None:
        return None, channels
    rows, columns = both(pair(operation, "size", size, 1))
    if max(rows, columns) > MAX_SIDE:
        raise ValueError(f"{operation}: size must be at most {MAX_SIDE}, got {size!r}")
    return (rows, columns), channels


def _read(path: PathLike, size: tuple[int, int] | None, channels: int | None) -> Pixels:
    def convert(image: Image) -> Image:
        return _eight_bits(image, channels)

    draft = None
    if size is not None:
        # Half of a JPEG's possible reduction: the rest is antialiased.
        draft = ("L" if channels == 1 else "RGB", 2 * max(size))
    image = decoded(path, convert, draft)
    if size is not None and image.size != (size[1], size[0]):
        method = require("PIL.Image").Resampling.BILINEAR
        text = f"{shown(path)}: memory must suffice to scale the image, got too little"
        with explained_memory_errors(text):
            image = image.resize((size[1], size[0]), method, reducing_gap=3.0)
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _eight_bits(image: Image, channels: int | None) -> Image:
    """Return the image in mode "L" or "RGB"."""
    image_module = require("PIL.Image")
    mode = "L" if channels == 1 or (channels is None and image.mode in GRAY) else "RGB"
    wide = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if wide:
        levels = np.asarray(image).astype(np.float32)
        image = image_module.fromarray(np.rint(levels / 257.0).clip(0, 255).astype(np.uint8))
        mode = mode if channels is not None else "L"
    elif image.mode in ("I", "F"):
        raise RefusedError(f"image must have 8 or 16 bits per channel, got Pillow's {image.mode}")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = image_module.alpha_composite(image_module.new("RGBA", rgba.size, "white"), rgba)
    return image.convert(mode)
