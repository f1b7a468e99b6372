"""Data sets: MNIST with its checksums, its relatives in the IDX format, and torchvision's.

Every source gives `(train, test)`, each a `Dataset` of images (N, H, W, C) and labels (N,).
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
