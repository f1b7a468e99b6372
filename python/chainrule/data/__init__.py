"""Load data sets: MNIST, other IDX data sets, folders of images, tables, those of torchvision.

`mnist`, `digits` and `idx_folder` return ``(train, test)``. Both are a `Dataset` of images
(N, H, W, C) and labels (N,). `image_folder` and `from_dataset` return one `Dataset`.
"""

from __future__ import annotations

from .dataset import Dataset, from_dataset, one_hot
from .idx import IdxError, read_idx
from .images import image_folder, read_image
from .sources import digits, idx_folder, mnist
from .table import TableFormat, read_table

__all__ = [
    "Dataset",
    "IdxError",
    "TableFormat",
    "digits",
    "from_dataset",
    "idx_folder",
    "image_folder",
    "mnist",
    "one_hot",
    "read_idx",
    "read_image",
    "read_table",
]
