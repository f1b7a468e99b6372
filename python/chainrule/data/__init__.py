"""Load data sets: MNIST with its checksums, other IDX data sets, and those of torchvision.

Each loader returns ``(train, test)``. Both are a `Dataset` of images (N, H, W, C) and labels (N,).
"""

from __future__ import annotations

from .dataset import Dataset, from_dataset, one_hot
from .idx import IdxError, read_idx
from .sources import digits, idx_folder, mnist

__all__ = [
    "Dataset",
    "IdxError",
    "digits",
    "from_dataset",
    "idx_folder",
    "mnist",
    "one_hot",
    "read_idx",
]
