"""Loaders: MNIST from disk or a mirror, IDX folders, and the embedded digits."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from .._files import PathLike, expanded_path, explained_memory_errors, home_folder, shown
from .._optional import require
from .._types import Array
from .dataset import Dataset
from .idx import IdxError, read_idx, sha256

# Both serve the original .gz files of MNIST.
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

MAX_NAMES = 10_000  # of classes: a label above it is no class

TIMEOUT = 30  # seconds without data, after which the next mirror is tried

# SHA-256 of the .gz file on the mirrors, and of the uncompressed file. Local copies are often
# recompressed or uncompressed, so they are checked by the second hash.
CHECKSUMS: Mapping[str, tuple[str, str]] = {
    "train-images-idx3-ubyte": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}

_RAW = Path("MNIST", "raw")  # torchvision's folder below its root
_NAME = re.compile(
    r"(?P<prefix>.*?)(?P<half>train|test|t10k)-(?P<kind>images|labels)[-.]idx\d-ubyte(\.gz)?"
)


def cache_folder() -> Path:
    """Return the folder of this user's downloads, which may not exist yet.

    A user without a home folder, as in some containers, has that of the system. A relative path in
    ``XDG_CACHE_HOME`` is ignored, as its specification requires.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    home = home_folder()
    if sys.platform != "darwin" and os.path.isabs(named):
        return Path(named, "chainrule")
    if home is None:
        return Path("/Library/Caches" if sys.platform == "darwin" else "/var/cache", "chainrule")
    return Path(home, "Library/Caches" if sys.platform == "darwin" else ".cache", "chainrule")


def mnist(
    root: PathLike | None = None,
    download: bool = True,
    source: Literal["torchvision"] | None = None,
) -> tuple[Dataset, Dataset]:
    """Load MNIST: 60,000 training and 10,000 test images of handwritten digits.

    The function searches `root`, then the folder in the environment variable ``CHAINRULE_DATA``,
    then the user's cache. In each, it searches ``MNIST/raw/`` (torchvision's layout), ``raw/`` and
    the folder itself, for uncompressed or ``.gz`` files. It always verifies the SHA-256 of the
    data.

    Parameters
    ----------
    root : path-like, optional
        First folder to search. As in all paths, ``~`` is the home folder. Downloads go to
        ``MNIST/raw/`` below it, or without a `root` below the user's cache (``~/.cache/chainrule``
        on Linux).
    download : bool
        Download missing files (11 MB) from the first of two mirrors that responds. Requires pooch,
        from the extra ``cli``.
    source : {None, "torchvision"}
        If "torchvision", torchvision finds or downloads the files, in `root`, else
        ``CHAINRULE_DATA``, else the cache. Requires the extra ``torchvision``.

    Returns
    -------
    train, test : Dataset
        Images uint8 (N, 28, 28, 1), 0 for background and 255 for ink. Labels uint8 (N,).

    Raises
    ------
    FileNotFoundError
        If the data is neither found nor downloaded. The message lists the folders and the error of
        each mirror.
    ValueError
        If a file is damaged or is not a file of MNIST. The message has both hashes.
    ImportError
        If pooch or torchvision is required and not installed.

    Examples
    --------
    >>> from chainrule import data
    >>> train, test = data.mnist()  # doctest: +SKIP
    >>> test  # doctest: +SKIP
    Dataset(10,000 images (28, 28, 1) uint8, labels uint8 from 0 to 9)
    """
    if source not in (None, "torchvision"):
        raise ValueError(f'mnist: source must be None or "torchvision", got {source!r}')
    folders = _search_folders(root)
    if source == "torchvision":
        found = _through_torchvision(next(iter(folders.values())), download)
    else:
        found, searched = _find(folders)
        if not found and download:
            try:
                found = _download(folders.get("root", folders["cache"]) / _RAW, searched)
            except ImportError as error:
                error.add_note(_advice(searched))
                raise
        if not found:
            raise FileNotFoundError(_advice(searched))
    arrays = {name: _verified(found[name], sums[1]) for name, sums in CHECKSUMS.items()}
    train, test = (
        _dataset(found, arrays, f"{half}-images-idx3-ubyte", f"{half}-labels-idx1-ubyte")
        for half in ("train", "t10k")
    )
    return _named(train, test)


def _search_folders(root: PathLike | None) -> dict[str, Path]:
    """Return the folders to search, in order, with their names in messages."""
    folders = {}
    if root is not None:
        folders["root"] = expanded_path("mnist", root)
    if named := os.environ.get("CHAINRULE_DATA"):
        folders["CHAINRULE_DATA"] = expanded_path("CHAINRULE_DATA", named)
    folders["cache"] = cache_folder()
    return folders


def _find(folders: Mapping[str, Path]) -> tuple[dict[str, Path], list[str]]:
    """Return the files of the first complete folder, and the state of the incomplete ones."""
    searched: list[str] = []
    for title, base in folders.items():
        most = 0
        for folder in (base / _RAW, base / "raw", base):
            found = {name: path for name in CHECKSUMS if (path := _plain_or_gz(folder / name))}
            if len(found) == len(CHECKSUMS):
                return found, searched
            most = max(most, len(found))
        state = f"{most} of {len(CHECKSUMS)} files" if base.is_dir() else "no such folder"
        searched.append(f"{title}: {base} ({state})")
    return {}, searched


def _plain_or_gz(path: Path) -> Path | None:
    """Return `path` if it is a file, else `path.gz`. The uncompressed file is read faster."""
    packed = path.with_name(path.name + ".gz")
    return path if path.is_file() else packed if packed.is_file() else None


def _download(folder: Path, searched: list[str]) -> dict[str, Path]:
    """Download the four files to `folder` and return their paths, or nothing if one fails.

    pooch renames a file to its final name only if its hash is correct, so a failure leaves no file.
    The error of each mirror is appended to `searched`.
    """
    pooch = require("pooch")
    # Older versions of pooch have no timeout by default.
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT)
    found = {}
    for name, (packed, _) in CHECKSUMS.items():
        for mirror in MIRRORS:
            url = f"{mirror}{name}.gz"
            try:
                # pooch expands "~" again, but not in an absolute path.
                path = pooch.retrieve(
                    url, f"sha256:{packed}", f"{name}.gz", folder.absolute(), downloader=downloader
                )
            except (OSError, ValueError) as error:  # connection failure, or wrong hash
                searched.append(f"{url}: {error}")
            else:
                found[name] = Path(path)
                break
        if name not in found:
            return {}
    return found


def _through_torchvision(root: Path, download: bool) -> dict[str, Path]:
    datasets = require("torchvision.datasets", extra="torchvision")
    try:
        folder = Path(
            datasets.MNIST(str(root.absolute()), train=True, download=download).raw_folder
        )
    except (OSError, RuntimeError) as error:  # torchvision's "Dataset not found" is a RuntimeError
        raise FileNotFoundError(_advice([f"torchvision, in {root}: {error}"])) from error
    found = {name: path for name in CHECKSUMS if (path := _plain_or_gz(folder / name))}
    if len(found) < len(CHECKSUMS):
        raise FileNotFoundError(_advice([f"torchvision, in {root}: {len(found)} files"]))
    return found


def _advice(searched: list[str]) -> str:
    return (
        "mnist: the data set must be in a known folder or on a mirror, got\n  "
        + "\n  ".join(searched)
        + "\nEnable the download (download=True, with a network connection), or set CHAINRULE_DATA "
        "to a folder with MNIST/raw/train-images-idx3-ubyte.gz and the other three files, or use "
        "the 7,000 embedded images: data.digits(), or --embedded on the command line."
    )


def _verified(path: Path, expected: str) -> Array:
    array = read_idx(path)
    if (actual := sha256(array)) != expected:
        raise ValueError(
            f"mnist: {path}: SHA-256 of the data must be {expected}, got {actual}; delete a "
            "damaged file, or read another IDX data set with data.idx_folder"
        )
    return array


def _dataset(
    paths: Mapping[str, Path], arrays: Mapping[str, Array], images: str, labels: str
) -> Dataset:
    image_array, label_array = arrays[images], arrays[labels]
    if image_array.ndim not in (3, 4) or image_array.dtype.kind != "u":
        raise IdxError(
            f"idx_folder: {paths[images]}: images must be uint8 with 3 or 4 dimensions, got "
            f"{image_array.dtype} {image_array.shape}"
        )
    if label_array.ndim != 1 or label_array.dtype.kind not in "iu":
        raise IdxError(
            f"idx_folder: {paths[labels]}: labels must be integers with 1 dimension, got "
            f"{label_array.dtype} {label_array.shape}"
        )
    if len(image_array) != len(label_array):
        raise IdxError(
            f"idx_folder: {paths[labels]}: images and labels must have the same length, got "
            f"{len(image_array)} images and {len(label_array)} labels"
        )
    return Dataset(image_array[..., None] if image_array.ndim == 3 else image_array, label_array)


def idx_folder(path: PathLike, *, prefix: str | None = None) -> tuple[Dataset, Dataset]:
    """Load a data set in the IDX format: Fashion-MNIST, KMNIST, EMNIST, or your own.

    A data set has four files ``{prefix}{half}-{kind}-idxD-ubyte``, uncompressed or ``.gz``. The
    half is ``train``, and ``t10k`` or ``test``. The kind is ``images`` and ``labels``. A prefix
    ends with a hyphen, as in ``emnist-letters-train-images-idx3-ubyte.gz``.

    Parameters
    ----------
    path : path-like
        Folder with the files, directly or in its subfolder ``raw``, as in torchvision's
        `FashionMNIST` and `KMNIST`.
    prefix : str, optional
        Selects the data set if the folder has several: "emnist-letters", or "" for the one without
        a prefix.

    Returns
    -------
    train, test : Dataset
        Images uint8 (N, H, W, 1), and the integer labels (N,) of the file. `Dataset.classes` are
        the labels as text, "0" to that of the largest label.

    Raises
    ------
    FileNotFoundError
        If the folder has no complete data set, or not the selected one.
    ValueError
        If the folder has several data sets and `prefix` is not given, or a file is invalid.

    Examples
    --------
    >>> from pathlib import Path
    >>> import chainrule as cr
    >>> train, test = cr.data.idx_folder(Path(cr.data.__file__).parent / "digits")
    >>> test
    Dataset(1,000 images (28, 28, 1) uint8, labels uint8 from 0 to 9)

    The function returns the data as stored. The images of EMNIST are transposed, and the labels of
    its letters are 1 to 26. For upright letters with classes from 0:

    >>> train, test = cr.data.idx_folder("gzip", prefix="emnist-letters")  # doctest: +SKIP
    >>> train = cr.data.Dataset(train.images.swapaxes(1, 2), train.labels - 1)  # doctest: +SKIP
    """
    return _idx_folder(expanded_path("idx_folder", path), prefix)


def _idx_folder(folder: Path, prefix: str | None) -> tuple[Dataset, Dataset]:
    folders = [base for base in (folder, folder / "raw") if base.is_dir()]
    if not folders:
        raise FileNotFoundError(f"idx_folder: path must be a folder, got {shown(folder)}")
    for base in folders:
        sets = _sets(base)
        complete = sorted(name for name, files in sets.items() if len(files) == 4)
        if complete:
            break
    names = ", ".join(f'"{name.removesuffix("-")}"' for name in complete)
    if prefix is None and len(complete) > 1:
        raise ValueError(
            f"idx_folder: prefix must be one of {names} for the data sets in {folder}, got None"
        )
    if prefix is None and complete:
        prefix = complete[0]
    requested = (prefix or "").removesuffix("-")
    selected = next((name for name in complete if name.removesuffix("-") == requested), None)
    if selected is None:
        available = f"complete sets {names}" if complete else "no complete set"
        name = f"{requested}-" if requested else ""
        raise FileNotFoundError(
            f"idx_folder: {folder} must contain {name}train-images-idx3-ubyte, "
            f"{name}train-labels-idx1-ubyte and the same files of {name}t10k or {name}test, "
            f"uncompressed or .gz, got {available}"
        )
    files = sets[selected]
    arrays = {part: read_idx(file) for part, file in files.items()}
    train, test = (
        _dataset(files, arrays, f"{half} images", f"{half} labels") for half in ("train", "test")
    )
    return _named(train, test)


def _named(*parts: Dataset) -> tuple[Dataset, Dataset]:
    """Return the two parts with their labels as names of classes, if these are few."""
    labels = [part.labels for part in parts if len(part)]
    largest = max((int(each.max()) for each in labels), default=-1)
    if largest < MAX_NAMES and all(int(each.min()) >= 0 for each in labels):
        names = tuple(map(str, range(largest + 1)))
        parts = tuple(Dataset(part.images, part.labels, names) for part in parts)
    first, second = parts
    return first, second


def _sets(folder: Path) -> dict[str, dict[str, Path]]:
    """Return the data sets in `folder`: per prefix, the file of each part ("train images", ...)."""
    sets: dict[str, dict[str, Path]] = {}
    # In sorted order an uncompressed file precedes its .gz, and the first file is used.
    for file in sorted(folder.iterdir()):
        if (match := _NAME.fullmatch(file.name)) and file.is_file():
            half = "train" if match["half"] == "train" else "test"
            sets.setdefault(match["prefix"], {}).setdefault(f"{half} {match['kind']}", file)
    return sets


def digits() -> tuple[Dataset, Dataset]:
    """Load the subset of MNIST that is embedded in this package.

    Returns
    -------
    train, test : Dataset
        6,000 training images of MNIST and 1,000 of its test images. All classes have the same
        number of images, evenly spaced over the original files and in their order. Images uint8
        (N, 28, 28, 1), labels uint8 (N,), as in `mnist`.

    Examples
    --------
    >>> import chainrule as cr
    >>> train, test = cr.data.digits()
    >>> train
    Dataset(6,000 images (28, 28, 1) uint8, labels uint8 from 0 to 9)
    """
    with explained_memory_errors("digits: memory must suffice for the images, got too little"):
        # Not a user's path: "~" is a name in it.
        return _idx_folder(Path(__file__).resolve().parent / "digits", None)
