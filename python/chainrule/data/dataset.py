"""`Dataset`, the pair of arrays that every loader returns, and conversions to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, overload

import numpy as np
import numpy.typing as npt

from .._types import Array
from .._validation import float_dtype, imported, integer, require_unmasked
from ..available_memory import require


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Hold images and their labels as two read-only arrays of the same length.

    ``len(d)`` is N, and ``d[i]`` is the pair (image, label). ``d[a:b]``, ``d[indices]`` and
    ``d[mask]`` are a Dataset again. A slice shares memory with the original.

    Parameters
    ----------
    images : ndarray (N, H, W, C)
        Usually uint8. A network of images reads uint8 as value / 255. Not copied.
    labels : ndarray (N,) or (N, ...)
        Class indices (N,), or targets (N, ...). Not copied.
    classes : sequence of str, optional
        The name of each class, by its index. A part of the data has the same names.

    Raises
    ------
    TypeError
        If a name of a class is not a str.
    ValueError
        If the lengths differ, an array is a scalar, or a label has no name in `classes`.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule.data import Dataset
    >>> d = Dataset(np.zeros((3, 28, 28, 1), np.uint8), np.array([7, 2, 1]))
    >>> d[:2]
    Dataset(2 images (28, 28, 1) uint8, labels int64 from 2 to 7)
    >>> image, label = d[2]
    >>> image.shape, int(label)
    ((28, 28, 1), 1)
    """

    images: Array
    labels: Array
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("images", "labels"):
            # Use a view: the caller's array must stay writable.
            array = imported("Dataset", name, getattr(self, name)).view()
            if array.ndim == 0:
                raise ValueError(f"Dataset: {name} must have at least 1 dimension, got 0")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if len(self.images) != len(self.labels):
            raise ValueError(
                f"Dataset: images and labels must have the same length, got {len(self.images)} "
                f"images and {len(self.labels)} labels"
            )
        if self.classes is not None:
            object.__setattr__(self, "classes", self._checked_classes(self.classes))

    def _checked_classes(self, names: Any) -> tuple[str, ...]:
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise TypeError(f"Dataset: classes must be a sequence of str, got {names!r}")
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"Dataset: classes must contain str, got {name!r}")
        if self.labels.ndim != 1 or self.labels.dtype.kind not in "iu":
            raise ValueError(
                f"Dataset: classes must be None unless labels are integers (N,), got labels "
                f"{self.labels.dtype} {self.labels.shape}"
            )
        if len(self) and not (self.labels.min() >= 0 and self.labels.max() < len(names)):
            raise ValueError(
                f"Dataset: classes must have a name for each label, got {len(names)} names and "
                f"labels from {self.labels.min()} to {self.labels.max()}"
            )
        return tuple(names)

    def _part(self, index: Any) -> Dataset:
        # The labels were checked: a part of them has names, too.
        part = Dataset(self.images[index], self.labels[index])
        object.__setattr__(part, "classes", self.classes)
        return part

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> tuple[Array, Any]: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Array) -> Dataset: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._part(index)
        if isinstance(index, tuple):
            raise TypeError("Dataset: index must be an integer, a slice or one array, got a tuple")
        positions = imported("Dataset", "index", index)
        if positions.size == 0:
            positions = positions.astype(np.intp)
        if positions.dtype.kind not in "iub":
            raise TypeError(f"Dataset: index must be integer or boolean, got {positions.dtype}")
        if positions.ndim > 1 or (positions.ndim == 0 and positions.dtype.kind == "b"):
            raise ValueError(f"Dataset: index array must have 1 dimension, got {positions.ndim}")
        if positions.ndim == 0:
            return self.images[int(positions)], self.labels[int(positions)]
        return self._part(positions)

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
    """Encode class indices as unit vectors, eq. (64), the targets of `SquaredError`.

    Parameters
    ----------
    labels : array_like of int (N,)
        Class indices in [0, classes).
    classes : int, optional
        Length of each vector. The default is the largest label plus one.
    dtype : {"float32", "float64"}
        Type of the result.

    Returns
    -------
    ndarray (N, classes)
        Row i is 1 at column ``labels[i]`` and 0 elsewhere.

    Raises
    ------
    TypeError
        If the labels or `classes` are not integers, or `dtype` is neither of the two.
    ValueError
        If `labels` does not have one axis, a label is out of range, or `classes` is below 1. If
        `labels` is empty and `classes` is not given.

    Examples
    --------
    >>> from chainrule.data import one_hot
    >>> one_hot([2, 0], classes=3)
    array([[0., 0., 1.],
           [1., 0., 0.]], dtype=float32)
    """
    numbers = imported("one_hot", "labels", labels)
    kind = float_dtype("one_hot", dtype)
    if classes is not None:
        # A small integer type of NumPy, such as that of labels.max() + 1, would overflow below.
        classes = integer("one_hot", "classes", classes, 1)
    if numbers.ndim != 1:
        raise ValueError(f"one_hot: labels must have 1 dimension, got {numbers.ndim}")
    if numbers.size and numbers.dtype.kind not in "iu":
        raise TypeError(f"one_hot: labels must be integers, got {numbers.dtype}")
    if classes is None:
        if not numbers.size:
            raise ValueError("one_hot: classes must be given if labels is empty")
        classes = max(int(numbers.max()) + 1, 1)
    require(
        f"one_hot: {numbers.size:,} labels of {classes:,} classes need",
        numbers.size * classes * kind.itemsize,
    )
    wrong = np.flatnonzero((numbers < 0) | (numbers >= classes))
    if wrong.size:
        raise ValueError(
            f"one_hot: labels must be in [0, {classes}), got {numbers[wrong[0]]} at index "
            f"{wrong[0]}"
        )
    vectors = np.zeros((len(numbers), classes), kind)
    vectors[np.arange(len(numbers)), numbers.astype(np.intp)] = 1
    return vectors


class Indexable(Protocol):
    """A data set that `from_dataset` can read: a length, and one pair per index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def from_dataset(ds: Indexable) -> Dataset:
    """Convert a torchvision data set, or any sequence of pairs (image, label), to a `Dataset`.

    The type of the image determines the channel axis:

    - A PIL image of mode "L" or "RGB" becomes uint8 (H, W, 1) or (H, W, 3).
    - A NumPy array has the shape (H, W) or (H, W, C): channels last.
    - A tensor has the shape (H, W) or (C, H, W): channels first, as torchvision's transforms return
      it. It is permuted to (H, W, C). A tensor is any object with `detach` and `numpy`.

    Arrays and tensors keep their dtype and are not scaled. A tensor from `ToTensor` (float32 in
    [0, 1]) has the values that a network reads from the uint8 image.

    Parameters
    ----------
    ds : object with ``len(ds)`` and ``ds[i]``
        The data set. Its transforms run once per image.

    Returns
    -------
    Dataset
        Images (N, H, W, C), uint8, float32 or float64, and labels int64 (N,).

    Raises
    ------
    TypeError
        If `ds` has no length, an item is not a pair, the type, mode or dtype of an image is not
        supported, or a label is not an integer.
    ValueError
        If `ds` is empty, an image has an unsupported number of axes, or images differ in shape or
        dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule.data import from_dataset
    >>> from_dataset([(np.zeros((8, 8), np.uint8), 3), (np.ones((8, 8), np.uint8), 5)])
    Dataset(2 images (8, 8, 1) uint8, labels int64 from 3 to 5)
    """
    try:
        count = len(ds)
    except TypeError as error:
        raise TypeError(f"from_dataset: ds must have a length, got {type(ds).__name__}") from error
    if count == 0:
        raise ValueError("from_dataset: ds must have at least one item, got 0")
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
                f"from_dataset: images must have the same shape and dtype, got {image.dtype} "
                f"{image.shape} for image {i} and {images.dtype} {images.shape[1:]} for image 0"
            )
        images[i] = image
        labels[i] = _label(item[1], i)
    return Dataset(cast(Array, images), labels)


_GRAY = ': use image.convert("L")'
_COLOR = ': use image.convert("RGB"), or image.convert("L") for gray levels'
# Pillow's conversion of wide pixels to "L" clips them at 255.
_WIDE = ": use np.asarray(image, np.float32) / 65535 if the pixels have 16 bits"
_MODE_HINTS = {
    **dict.fromkeys(("1", "LA"), _GRAY),
    **dict.fromkeys(("P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"), _COLOR),
    **dict.fromkeys(("I", "F", "I;16", "I;16L", "I;16B", "I;16N"), _WIDE),
}


def _image(image: Any, i: int) -> Array:
    # Check attributes, not types: PyTorch and Pillow need not be imported.
    tensor = hasattr(image, "detach") and hasattr(image, "numpy")
    if tensor:
        array = imported("from_dataset", f"image {i}", image, _tensor_values)
    elif hasattr(image, "mode") and hasattr(image, "getbands"):
        if image.mode not in ("L", "RGB"):
            raise TypeError(
                f'from_dataset: image {i} must have mode "L" or "RGB", got "{image.mode}"'
                f"{_MODE_HINTS.get(image.mode, '')}"
            )
        array = np.asarray(image)
    elif isinstance(image, np.ndarray):
        require_unmasked("from_dataset", f"image {i}", image)
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
        raise ValueError(f"from_dataset: image {i} must have shape {axes}, got {array.shape}")
    return array.transpose(1, 2, 0) if tensor else array


def _label(label: Any, i: int) -> int:
    tensor = hasattr(label, "detach") and hasattr(label, "numpy")
    read = _tensor_values if tensor else np.asarray
    number = imported("from_dataset", f"label {i}", label, read)
    if number.ndim or number.dtype.kind not in "iu":
        shown = f"{type(label).__name__} of shape {number.shape}" if number.ndim else repr(label)
        raise TypeError(f"from_dataset: label {i} must be an integer, got {shown}")
    if not -(2**63) <= int(number) < 2**63:
        raise ValueError(f"from_dataset: label {i} must be in [-2**63, 2**63), got {number}")
    return int(number)


def _tensor_values(tensor: Any) -> Array:
    return np.asarray(tensor.detach().cpu().numpy())
