"""`Dataset`, the pair of arrays every source of data gives, and what turns data into one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, overload

import numpy as np
import numpy.typing as npt

from .._types import Array


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images and their labels, as two read-only arrays of one length.

    Parameters
    ----------
    images
        Array (N, H, W, C), usually uint8, which a network takes as value / 255. Taken without a
        copy.
    labels
        Array (N,) of class numbers, or (N, ...) of targets. Taken without a copy.

    `len(d)` is N, `d[i]` the pair (image, label), and `d[a:b]`, `d[indices]` or `d[mask]` another
    Dataset (a slice shares memory).

    Raises
    ------
    ValueError
        Where the two lengths differ, or an array has no axis.

    Examples
    --------
    >>> Dataset(np.zeros((3, 28, 28, 1), np.uint8), np.array([7, 2, 1]))[:2]
    Dataset(2 images (28, 28, 1) uint8, labels int64 from 2 to 7)
    """

    images: Array
    labels: Array

    def __post_init__(self) -> None:
        for name in ("images", "labels"):
            # A view, because the caller's own array must stay as writable as it was.
            array = np.asarray(getattr(self, name)).view()
            if array.ndim == 0:
                raise ValueError(f"Dataset: {name} must have an axis of instances, got a scalar")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if len(self.images) != len(self.labels):
            raise ValueError(
                f"Dataset: images and labels must be equally many, got {len(self.images)} images "
                f"and {len(self.labels)} labels"
            )

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> tuple[Array, Any]: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Array) -> Dataset: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Dataset(self.images[index], self.labels[index])
        if isinstance(index, tuple):
            raise TypeError(
                "Dataset: an index must be an integer, a slice or one array, got a tuple"
            )
        chosen = np.asarray(index)
        if chosen.size == 0:
            chosen = chosen.astype(np.intp)
        if chosen.dtype.kind not in "iub":
            raise TypeError(f"Dataset: an index must be integer or boolean, got {chosen.dtype}")
        if chosen.ndim > 1 or (chosen.ndim == 0 and chosen.dtype.kind == "b"):
            raise ValueError(f"Dataset: an index array must have one axis, got {chosen.ndim}")
        if chosen.ndim == 0:
            return self.images[int(chosen)], self.labels[int(chosen)]
        return Dataset(self.images[chosen], self.labels[chosen])

    def __iter__(self) -> Iterator[tuple[Array, Any]]:
        return zip(self.images, self.labels, strict=True)

    def __repr__(self) -> str:
        labels = f"labels {self.labels.dtype}"
        if self.labels.ndim > 1:
            labels += f" {self.labels.shape[1:]}"
        elif len(self):
            labels += f" from {self.labels.min()} to {self.labels.max()}"
        shape = self.images.shape[1:]
        return f"Dataset({len(self):,} images {shape} {self.images.dtype}, {labels})"


def one_hot(labels: npt.ArrayLike, classes: int | None = None, dtype: str = "float32") -> Array:
    """Class numbers as unit vectors, eq. (64), for a loss that wants targets: `SquaredError`.

    Parameters
    ----------
    labels
        Integers (N,), each in [0, classes).
    classes
        Length of the vectors; by default the greatest label plus one.
    dtype
        "float32" or "float64".

    Returns
    -------
    numpy.ndarray
        (N, classes), row i is 1 at labels[i] and 0 elsewhere.

    Raises
    ------
    TypeError
        Where labels are not integers.
    ValueError
        Where labels have not one axis, a label lies outside [0, classes), the number of classes
        cannot be told, or the dtype is another.
    """
    numbers = np.asarray(labels)
    kind = np.dtype(dtype)
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"one_hot: dtype must be float32 or float64, got {kind}")
    if numbers.ndim != 1:
        raise ValueError(f"one_hot: labels must have one axis, got shape {numbers.shape}")
    if numbers.size and numbers.dtype.kind not in "iu":
        raise TypeError(f"one_hot: labels must be integers, got {numbers.dtype}")
    if classes is None:
        if not numbers.size:
            raise ValueError("one_hot: classes must be given where there are no labels")
        classes = max(int(numbers.max()) + 1, 1)
    wrong = np.flatnonzero((numbers < 0) | (numbers >= classes))
    if wrong.size:
        raise ValueError(
            f"one_hot: labels must lie in [0, {classes}), got {numbers[wrong[0]]} at index "
            f"{wrong[0]}"
        )
    vectors = np.zeros((len(numbers), classes), kind)
    vectors[np.arange(len(numbers)), numbers.astype(np.intp)] = 1
    return vectors


class Indexable(Protocol):
    """What `from_dataset` asks of a data set: a length, and a pair for each index below it."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def from_dataset(ds: Indexable) -> Dataset:
    """Read a torchvision data set, or anything with `len(ds)` and `ds[i]` -> (image, label).

    The kind of the image says which axis holds the channels:

    - a PIL image, of mode "L" or "RGB", becomes uint8 (H, W, 1) or (H, W, 3);
    - a NumPy array is (H, W) or (H, W, C): channels last;
    - a tensor (anything with `detach` and `numpy`, such as PyTorch's) is (H, W) or (C, H, W):
      channels first, as torchvision's transforms leave it, and is permuted to (H, W, C).

    Arrays and tensors keep their dtype, which must be uint8, float32 or float64: nothing is scaled.
    A tensor made by `ToTensor` (float32 in [0, 1]) equals the uint8 image as a network takes it.

    Parameters
    ----------
    ds
        The data set. Its transforms run once for every image.

    Returns
    -------
    Dataset
        images (N, H, W, C) and labels int64 (N,).

    Raises
    ------
    TypeError
        Where `ds` has no length, an item is no pair, an image is of another kind, mode or dtype, or
        a label is no integer.
    ValueError
        Where `ds` is empty, an image has another number of axes, or images differ in shape or
        dtype.
    """
    try:
        count = len(ds)
    except TypeError as error:
        raise TypeError(
            f"from_dataset: the data set must have a length, {type(ds).__name__} has none"
        ) from error
    if count == 0:
        raise ValueError("from_dataset: the data set is empty")
    images: Array | None = None
    labels = np.empty(count, np.int64)
    for i in range(count):
        item = ds[i]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise TypeError(
                f"from_dataset: item {i} must be a pair (image, label), got {type(item).__name__}"
            )
        image = _image(item[0], i)
        if images is None:
            images = np.empty((count, *image.shape), image.dtype)
        if image.shape != images.shape[1:] or image.dtype != images.dtype:
            raise ValueError(
                f"from_dataset: image {i} is {image.dtype} {image.shape}, image 0 is "
                f"{images.dtype} {images.shape[1:]}: they must be alike"
            )
        images[i] = image
        labels[i] = _label(item[1], i)
    return Dataset(cast(Array, images), labels)


def _image(image: Any, i: int) -> Array:
    # Told by attributes, so that neither PyTorch nor Pillow is imported to recognise theirs.
    tensor = hasattr(image, "detach") and hasattr(image, "numpy")
    if tensor:
        array = np.asarray(image.detach().cpu().numpy())
    elif hasattr(image, "mode") and hasattr(image, "getbands"):
        if image.mode not in ("L", "RGB"):
            raise TypeError(
                f'from_dataset: image {i} must have mode "L" or "RGB", got "{image.mode}": '
                f'image.convert("L") converts it'
            )
        array = np.asarray(image)
    elif isinstance(image, np.ndarray):
        array = image
    else:
        raise TypeError(
            f"from_dataset: image {i} must be a PIL image, a NumPy array or a tensor, got "
            f"{type(image).__name__}"
        )
    if array.dtype not in (np.uint8, np.float32, np.float64):
        raise TypeError(
            f"from_dataset: image {i} must be uint8, float32 or float64, got {array.dtype}"
        )
    if array.ndim == 2:
        return array[:, :, None]
    if array.ndim != 3:
        axes = "(H, W) or (C, H, W)" if tensor else "(H, W) or (H, W, C)"
        raise ValueError(f"from_dataset: image {i} must be {axes}, got shape {array.shape}")
    return array.transpose(1, 2, 0) if tensor else array


def _label(label: Any, i: int) -> int:
    if hasattr(label, "detach") and hasattr(label, "numpy"):
        label = label.detach().cpu().numpy()
    number = np.asarray(label)
    if number.ndim or number.dtype.kind not in "iu":
        shown = f"{type(label).__name__} of shape {number.shape}" if number.ndim else repr(label)
        raise TypeError(f"from_dataset: label {i} must be an integer, got {shown}")
    return int(number)
