"""Make the four files of python/chainrule/data/digits from the full MNIST data set.

    python tests/data/make_digits.py MNIST_FOLDER [--out FOLDER]

The selection has no seed. From each class, in file order, it takes `count // 10` instances at even
spacing: the k-th of m is number floor(k n / m) of the n instances. Training images come from the
training images of MNIST, test images from its test images, in the original order.

Requires `zopfli` (PyPI), whose deflate streams are about 6 % smaller than those of `gzip -9`. The
result is the same on every machine, because the gzip headers have no time or name.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ROOT = Path(__file__).resolve().parents[2]

TRAIN, TEST, CLASSES = 6_000, 1_000, 10


def select(labels: Array, count: int) -> Array:
    """Return the sorted indices of `count` instances, with the same number from each class."""
    share = count // CLASSES
    selected = []
    for label in range(CLASSES):
        (members,) = np.nonzero(labels == label)
        selected.append(members[np.arange(share) * len(members) // share])
    return np.sort(np.concatenate(selected))


def idx_bytes(array: Array) -> bytes:
    """Return a uint8 array in the IDX format."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()


def main() -> None:
    import chainrule.data

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("mnist", type=Path, help="folder with MNIST")
    parser.add_argument("--out", type=Path, default=ROOT / "python/chainrule/data/digits")
    arguments = parser.parse_args()

    gzip = importlib.import_module("zopfli.gzip")
    halves = chainrule.data.mnist(arguments.mnist, download=False)
    for half, name, count in zip(halves, ("train", "t10k"), (TRAIN, TEST), strict=True):
        part = half[select(half.labels, count)]
        for kind, array in (("images-idx3", part.images[..., 0]), ("labels-idx1", part.labels)):
            path = arguments.out / f"{name}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(idx_bytes(array), numiterations=50))
            print(f"{path.name}: {array.shape}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
