"""Makes the four files of this folder out of the full MNIST data set.

    python make.py MNIST_FOLDER [--out FOLDER]

The choice has no seed to tune: of every class, in file order, `count // 10` instances at even
spacing (the k-th is number floor(k n / m) of the n there are, for m taken), so every part of the
original files is represented. The training images come from MNIST's training half, the test
images from its test half, and both keep the original order.

Needs `zopfli` (PyPI), whose deflate streams are about 6 % smaller than those of `gzip -9`. The
result is the same on every machine: no time or name is in the gzip headers.
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


def choose(labels: Array, count: int) -> Array:
    """Indices, ascending, of `count` instances: equally many of each class, evenly spaced."""
    share = count // CLASSES
    chosen = []
    for label in range(CLASSES):
        (members,) = np.nonzero(labels == label)
        chosen.append(members[np.arange(share) * len(members) // share])
    return np.sort(np.concatenate(chosen))


def idx_bytes(array: Array) -> bytes:
    """`array` (uint8) in the IDX format: magic, lengths as big-endian 32-bit integers, data."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()


def main() -> None:
    import chainrule.data

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("mnist", type=Path, help="folder that holds MNIST")
    parser.add_argument("--out", type=Path, default=ROOT / "python/chainrule/data/digits")
    arguments = parser.parse_args()

    gzip = importlib.import_module("zopfli.gzip")
    halves = chainrule.data.mnist(arguments.mnist, download=False)
    for half, name, count in zip(halves, ("train", "t10k"), (TRAIN, TEST), strict=True):
        part = half[choose(half.labels, count)]
        for kind, array in (("images-idx3", part.images[..., 0]), ("labels-idx1", part.labels)):
            path = arguments.out / f"{name}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(idx_bytes(array), numiterations=50))
            print(f"{path.name}: {array.shape}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
