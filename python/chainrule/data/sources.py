"""Where data comes from: MNIST on disk or from a mirror, any IDX folder, our own digits."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from .._optional import require
from .._types import Array
from .dataset import Dataset
from .idx import IdxError, read_idx, sha256

# Each serves the .gz files of MNIST's authors, byte for byte.
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

TIMEOUT = 30  # seconds of silence after which the next mirror is asked

# SHA-256 of the .gz as the mirrors serve it, and of the file inside. Local copies are often
# compressed anew or not at all, so only the second can vouch for them.
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

_RAW = Path("MNIST", "raw")  # where torchvision puts the files, below its root
_NAME = re.compile(
    r"(?P<prefix>.*?)(?P<half>train|test|t10k)-(?P<kind>images|labels)[-.]idx\d-ubyte(\.gz)?"
)


def cache_folder() -> Path:
    """The folder in which this user's downloads are kept; it need not exist."""
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
    elif sys.platform == "darwin":
        base = os.path.join(home, "Library", "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    return Path(base, "chainrule")


def mnist(
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    source: Literal["torchvision"] | None = None,
) -> tuple[Dataset, Dataset]:
    """MNIST: 60,000 training and 10,000 test images of handwritten digits.

    The files are looked for in `root`, then in the folder that the environment variable
    `CHAINRULE_DATA` names, then in the user's cache; each as torchvision lays them out
    (`MNIST/raw/` below it), or in `raw/`, or in the folder itself, plain or `.gz`. Wherever they
    come from, the SHA-256 of the data is checked.

    Parameters
    ----------
    root
        The first folder to look in, and the one to download to, into `MNIST/raw/` below it. By
        default there is none, and downloads go to the user's cache (`~/.cache/chainrule` on
        Linux).
    download
        Fetch what is found nowhere (11 MB) from the first of two mirrors that has it. Needs
        pooch, of the extra `cli`.
    source
        "torchvision": have torchvision find or fetch the files, in `root` (else in
        `CHAINRULE_DATA`, else in the cache). Needs the extra `torchvision`.

    Returns
    -------
    train, test : Dataset
        images uint8 (N, 28, 28, 1), 0 for paper and 255 for ink; labels uint8 (N,).

    Raises
    ------
    FileNotFoundError
        Where nothing was found, nor fetched: it lists the folders and what each mirror answered.
    ValueError
        Where a file is damaged or is not MNIST's: it names the file and both hashes.
    ImportError
        Where pooch or torchvision is needed and not installed.
    """
    if source not in (None, "torchvision"):
        raise ValueError(f'mnist: source must be None or "torchvision", got {source!r}')
    places = _places(root)
    if source == "torchvision":
        found = _through_torchvision(next(iter(places.values())), download)
    else:
        found, looked = _find(places)
        if not found and download:
            try:
                found = _download(places.get("root", places["cache"]) / _RAW, looked)
            except ImportError as error:
                error.add_note(_advice(looked))
                raise
        if not found:
            raise FileNotFoundError(_advice(looked))
    arrays = {name: _verified(found[name], sums[1]) for name, sums in CHECKSUMS.items()}
    train, test = (
        _dataset(found, arrays, f"{half}-images-idx3-ubyte", f"{half}-labels-idx1-ubyte")
        for half in ("train", "t10k")
    )
    return train, test


def _places(root: str | os.PathLike[str] | None) -> dict[str, Path]:
    """The folders to look in, in order, each under the name that a message calls it by."""
    places = {}
    if root is not None:
        places["root"] = Path(root)
    if named := os.environ.get("CHAINRULE_DATA"):
        places["CHAINRULE_DATA"] = Path(named)
    places["cache"] = cache_folder()
    return places


def _find(places: Mapping[str, Path]) -> tuple[dict[str, Path], list[str]]:
    """The path of every file from the first place that has all four, and where it looked."""
    looked: list[str] = []
    for title, place in places.items():
        most = 0
        for folder in (place / _RAW, place / "raw", place):
            found = {name: path for name in CHECKSUMS if (path := _plain_or_gz(folder / name))}
            if len(found) == len(CHECKSUMS):
                return found, looked
            most = max(most, len(found))
        state = f"{most} of {len(CHECKSUMS)} files" if place.is_dir() else "no such folder"
        looked.append(f"{title}: {place} ({state})")
    return {}, looked


def _plain_or_gz(path: Path) -> Path | None:
    """`path`, or `path.gz`, whichever is a file; the plain one is faster to read."""
    packed = path.with_name(path.name + ".gz")
    return path if path.is_file() else packed if packed.is_file() else None


def _download(folder: Path, looked: list[str]) -> dict[str, Path]:
    """Fetch the four files into `folder`; nothing where a mirror could not be had for one.

    pooch writes beside the target and renames only what has the right hash, so a fault leaves no
    file. What each mirror answered is appended to `looked`.
    """
    pooch = require("pooch")
    # Older versions of pooch wait for ever unless told otherwise.
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT)
    found = {}
    for name, (packed, _) in CHECKSUMS.items():
        for mirror in MIRRORS:
            url = f"{mirror}{name}.gz"
            try:
                path = pooch.retrieve(
                    url, f"sha256:{packed}", f"{name}.gz", folder, downloader=downloader
                )
            except (OSError, ValueError) as error:  # unreachable or refused; wrong hash
                looked.append(f"{url}: {error}")
            else:
                found[name] = Path(path)
                break
        if name not in found:
            return {}
    return found


def _through_torchvision(root: Path, download: bool) -> dict[str, Path]:
    datasets = require("torchvision.datasets", extra="torchvision")
    try:
        folder = Path(datasets.MNIST(str(root), train=True, download=download).raw_folder)
    except (OSError, RuntimeError) as error:  # torchvision's "Dataset not found" is a RuntimeError
        raise FileNotFoundError(_advice([f"torchvision, in {root}: {error}"])) from error
    found = {name: path for name in CHECKSUMS if (path := _plain_or_gz(folder / name))}
    if len(found) < len(CHECKSUMS):
        raise FileNotFoundError(_advice([f"torchvision, in {root}: {len(found)} files"]))
    return found


def _advice(looked: list[str]) -> str:
    return (
        "mnist: the data set was not found, nor fetched. Looked in\n  "
        + "\n  ".join(looked)
        + "\nEither let it download (download=True, with a network), or set CHAINRULE_DATA to a "
        "folder that holds MNIST/raw/train-images-idx3-ubyte.gz and the other three, or use the "
        "7,000 images that come with chainrule: data.digits(), --embedded on the command line."
    )


def _verified(path: Path, expected: str) -> Array:
    array = read_idx(path)
    if (actual := sha256(array)) != expected:
        raise ValueError(
            f"mnist: {path} is not MNIST's file of that name: the SHA-256 of its data is {actual}, "
            f"it must be {expected}. Delete it if it is damaged; another data set in this format "
            "is read by data.idx_folder"
        )
    return array


def _dataset(
    paths: Mapping[str, Path], arrays: Mapping[str, Array], images: str, labels: str
) -> Dataset:
    pictures, classes = arrays[images], arrays[labels]
    if pictures.ndim not in (3, 4) or pictures.dtype.kind != "u":
        raise IdxError(
            f"idx_folder: {paths[images]}: images must be uint8 with 3 or 4 dimensions, got "
            f"{pictures.dtype} {pictures.shape}"
        )
    if classes.ndim != 1 or classes.dtype.kind not in "iu":
        raise IdxError(
            f"idx_folder: {paths[labels]}: labels must be integers with one dimension, got "
            f"{classes.dtype} {classes.shape}"
        )
    if len(pictures) != len(classes):
        raise IdxError(
            f"idx_folder: {paths[labels]}: it has {len(classes)} labels, {paths[images].name} has "
            f"{len(pictures)} images"
        )
    return Dataset(pictures[..., None] if pictures.ndim == 3 else pictures, classes)


def idx_folder(
    path: str | os.PathLike[str], *, prefix: str | None = None
) -> tuple[Dataset, Dataset]:
    """Any data set in MNIST's format: Fashion-MNIST, KMNIST, EMNIST, or your own.

    Four files make a set: `{prefix}{half}-{kind}-idxD-ubyte`, plain or `.gz`, where half is
    `train` and `t10k` or `test`, kind is `images` and `labels`, and the prefix, if there is one,
    ends in a hyphen (`emnist-letters-train-images-idx3-ubyte.gz`).

    Parameters
    ----------
    path
        The folder that holds the files, or one whose subfolder `raw` does, as torchvision's
        `FashionMNIST` and `KMNIST` do.
    prefix
        Which set, where the folder holds several: "emnist-letters"; "" is the one without prefix.

    Returns
    -------
    train, test : Dataset
        images uint8 (N, H, W, 1), labels as in the file, integers (N,).

    Raises
    ------
    FileNotFoundError
        Where the folder holds no complete set, or not that of `prefix`.
    ValueError
        Where it holds several and `prefix` is not given, or a file is damaged or no such file.

    Notes
    -----
    Nothing is changed on the way. EMNIST's files hold every image transposed (columns as rows),
    and the labels of its "letters" are 1 to 26, so for upright letters from class 0:

    >>> train, test = idx_folder("gzip", prefix="emnist-letters")        # doctest: +SKIP
    >>> train = Dataset(train.images.swapaxes(1, 2), train.labels - 1)   # doctest: +SKIP
    """
    folder = Path(path)
    places = [place for place in (folder, folder / "raw") if place.is_dir()]
    if not places:
        raise FileNotFoundError(f"idx_folder: {folder} is no folder")
    for place in places:
        sets = _sets(place)
        complete = sorted(name for name, files in sets.items() if len(files) == 4)
        if complete:
            break
    shown = ", ".join(f'"{name.removesuffix("-")}"' for name in complete)
    if prefix is None and len(complete) > 1:
        raise ValueError(f"idx_folder: {folder} holds several sets: give prefix= one of {shown}")
    if prefix is None and complete:
        prefix = complete[0]
    wanted = (prefix or "").removesuffix("-")
    chosen = next((name for name in complete if name.removesuffix("-") == wanted), None)
    if chosen is None:
        has = f"complete sets there: {shown}" if complete else "it holds no complete set"
        name = f"{wanted}-" if wanted else ""
        raise FileNotFoundError(
            f"idx_folder: {folder}: {has}; needed are {name}train-images-idx3-ubyte, "
            f"{name}train-labels-idx1-ubyte and the same two of {name}t10k or {name}test, "
            "plain or .gz"
        )
    files = sets[chosen]
    arrays = {part: read_idx(file) for part, file in files.items()}
    train, test = (
        _dataset(files, arrays, f"{half} images", f"{half} labels") for half in ("train", "test")
    )
    return train, test


def _sets(folder: Path) -> dict[str, dict[str, Path]]:
    """The sets in `folder`: prefix, and the file of each part ("train images", ...)."""
    sets: dict[str, dict[str, Path]] = {}
    # In this order a plain file comes before its .gz, and the first one seen stands.
    for file in sorted(folder.iterdir()):
        if (match := _NAME.fullmatch(file.name)) and file.is_file():
            half = "train" if match["half"] == "train" else "test"
            sets.setdefault(match["prefix"], {}).setdefault(f"{half} {match['kind']}", file)
    return sets


def digits() -> tuple[Dataset, Dataset]:
    """The part of MNIST that comes with this package: it needs no network and no file.

    Returns
    -------
    train, test : Dataset
        6,000 images of MNIST's training half and 1,000 of its test half, equally many of each
        class, evenly spaced over the original order, which they keep. As `mnist` otherwise:
        images uint8 (N, 28, 28, 1), labels uint8 (N,).
    """
    return idx_folder(Path(__file__).resolve().parent / "digits")
