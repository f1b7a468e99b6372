"""Dataset, from_dataset, idx_folder, digits, one_hot, and import without optional packages."""

from __future__ import annotations

import gzip
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule import _optional, data
from chainrule.data import Dataset, IdxError, digits, from_dataset, idx_folder, one_hot

REAL = os.environ.get("CHAINRULE_DATA")
Array = np.ndarray[Any, Any]


def random_images(count: int, *shape: int, dtype: str = "uint8") -> Array:
    size = (count, *(shape or (5, 4, 1)))
    return np.random.default_rng(count).integers(0, 256, size).astype(dtype)


def test_dataset_is_two_read_only_arrays() -> None:
    images, labels = random_images(6), np.arange(6, dtype=np.uint8)
    d = Dataset(images, labels)
    assert len(d) == 6
    assert d.images.base is images  # no copy
    for array in (d.images, d.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    images[0] = 0  # the caller's array is still writable
    for field in ("images", "labels"):
        with pytest.raises(AttributeError, match=f"cannot assign to field '{field}'"):
            setattr(d, field, images)
    assert d == d
    assert d != Dataset(images, labels)
    assert len({d}) == 1


def test_dataset_indexing() -> None:
    d = Dataset(random_images(6), np.arange(6) % 3)
    assert isinstance(d[:4], Dataset)
    assert len(d[:4]) == 4
    assert np.shares_memory(d[1:5:2].images, d.images)
    np.testing.assert_array_equal(d[::-1].labels, [2, 1, 0, 2, 1, 0])
    for index in ([3, -1, 3], np.array([3, 5, 3], np.uint8), (d.labels == 1)):
        selected = d[index]
        np.testing.assert_array_equal(selected.images, d.images[index])
        np.testing.assert_array_equal(selected.labels, d.labels[index])
        assert not selected.images.flags.writeable
    assert len(d[[]]) == 0
    image, label = d[-1]
    np.testing.assert_array_equal(image, d.images[5])
    assert label == 2
    assert [int(label) for _, label in d] == [0, 1, 2, 0, 1, 2]


def test_dataset_errors() -> None:
    message = "^Dataset: images and labels must have the same length, got 3 images and 2 labels$"
    with pytest.raises(ValueError, match=message):
        Dataset(random_images(3), np.zeros(2))
    message = "^Dataset: labels must have at least 1 dimension, got 0$"
    with pytest.raises(ValueError, match=message):
        Dataset(random_images(3), np.array(3))
    d = Dataset(random_images(3), np.zeros(3, int))
    invalid: Any
    for invalid, error, message in (
        ((0, 1), TypeError, "an integer, a slice or one array, got a tuple"),
        ([0.5], TypeError, "must be integer or boolean, got float64"),
        ("a", TypeError, "must be integer or boolean, got <U1"),
        ([[0, 1]], ValueError, "must have 1 dimension, got 2"),
        (True, ValueError, "must have 1 dimension, got 0"),
        (3, IndexError, "out of bounds"),
        ([True, False], IndexError, "boolean index did not match"),
    ):
        with pytest.raises(error, match=message):
            d[invalid]


def test_dataset_repr() -> None:
    d = Dataset(random_images(1000), np.arange(1000) % 7)
    assert repr(d) == "Dataset(1,000 images (5, 4, 1) uint8, labels int64 from 0 to 6)"
    assert repr(d[:0]) == "Dataset(0 images (5, 4, 1) uint8, labels int64)"
    targets = Dataset(random_images(2), np.zeros((2, 10)))
    assert repr(targets) == "Dataset(2 images (5, 4, 1) uint8, labels float64 (10,))"


def test_one_hot_vectors_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_MEMORY", "4GiB")
    with pytest.raises(MemoryError, match=r"one_hot: 60,000 labels of 60,000 classes need 13\.4 G"):
        one_hot(np.arange(60_000))


@given(st.lists(st.integers(0, 9)), st.sampled_from(["float32", "float64"]))
def test_one_hot(labels: list[int], dtype: str) -> None:
    vectors = one_hot(labels, 10, dtype)
    assert vectors.dtype == dtype
    np.testing.assert_array_equal(vectors, np.eye(10)[np.array(labels, int)])
    if labels:
        assert one_hot(np.array(labels, np.uint8)).shape == (len(labels), max(labels) + 1)


def test_one_hot_errors() -> None:
    invalid: Any
    for invalid, classes, error, message in (
        ([0, 10, 11], 10, ValueError, r"labels must be in \[0, 10\), got 10 at index 1"),
        ([3, -1], None, ValueError, r"labels must be in \[0, 4\), got -1 at index 1"),
        ([[1]], 3, ValueError, "labels must have 1 dimension, got 2"),
        ([1.0], 3, TypeError, "labels must be integers, got float64"),
        ([], None, ValueError, "classes must be given if labels is empty"),
    ):
        with pytest.raises(error, match=f"^one_hot: {message}"):
            one_hot(invalid, classes)
    for dtype in ("uint8", None, "bfloat"):
        with pytest.raises(
            TypeError, match=r'^one_hot: dtype must be "float32" or "float64", got '
        ):
            one_hot([1], 2, dtype)  # type: ignore[arg-type]


def test_one_hot_takes_classes_as_any_integer() -> None:
    labels = np.array([200, 3], np.uint8)
    assert np.array_equal(one_hot(labels, labels.max() + np.uint8(1)), one_hot(labels, 201))
    classes: Any
    for classes, error, message in (
        (2.0, TypeError, "classes must be an integer, got 2.0"),
        (True, TypeError, "classes must be an integer, got True"),
        (0, ValueError, "classes must be at least 1, got 0"),
        (np.ma.masked_array(3), TypeError, "classes must have no mask, got a masked array"),
    ):
        with pytest.raises(error, match=f"^one_hot: {re.escape(message)}"):
            one_hot([1], classes)


class Tensor:
    """The methods of a PyTorch tensor that from_dataset uses."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def numpy(self) -> Array:
        return self.array


LABELS = [3, np.uint8(1), np.array(2), Tensor(np.array(0))]


def test_from_dataset_of_arrays_is_channels_last() -> None:
    for dtype in ("uint8", "float32", "float64"):
        for shape in ((5, 4), (5, 4, 3)):
            images = random_images(4, *shape, dtype=dtype)
            d = from_dataset(list(zip(images, LABELS, strict=True)))
            np.testing.assert_array_equal(d.images, images.reshape(4, 5, 4, -1))
            assert d.images.dtype == dtype
            np.testing.assert_array_equal(d.labels, [3, 1, 2, 0])
            assert d.labels.dtype == np.int64


def test_from_dataset_of_tensors_is_channels_first() -> None:
    images = random_images(4, 3, 5, 4)
    d = from_dataset(list(zip(map(Tensor, images), LABELS, strict=True)))
    np.testing.assert_array_equal(d.images, images.transpose(0, 2, 3, 1))
    d = from_dataset(list(zip(map(Tensor, images[:, 0]), LABELS, strict=True)))
    np.testing.assert_array_equal(d.images, images[:, 0, :, :, None])


def test_from_dataset_of_pil_images() -> None:
    pil = pytest.importorskip("PIL.Image")
    gray, color = random_images(4, 5, 4), random_images(4, 5, 4, 3)
    d = from_dataset([(pil.fromarray(a), i) for i, a in enumerate(gray)])
    np.testing.assert_array_equal(d.images, gray[..., None])
    d = from_dataset([(pil.fromarray(a), i) for i, a in enumerate(color)])
    np.testing.assert_array_equal(d.images, color)
    for mode in ("1", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"):
        image = pil.new(mode, (4, 5))
        start = f'image 0 must have mode "L" or "RGB", got "{mode}": use '
        with pytest.raises(TypeError, match=start) as error:
            from_dataset([(image, 0)])
        for expression in re.findall(r"image\.convert\(\S+\)", str(error.value)):
            assert len(from_dataset([(eval(expression, {"image": image}), 0)])) == 1


def test_hint_for_pil_images_with_wide_pixels() -> None:
    """`convert("L")` clips them at 255."""
    pil = pytest.importorskip("PIL.Image")
    pixels = np.array([[0, 256, 65535]], np.uint16)
    for image in (pil.fromarray(pixels), pil.fromarray(pixels.astype(np.int32))):
        with pytest.raises(TypeError, match=r"if the pixels have 16 bits$") as error:
            from_dataset([(image, 0)])
        expression = str(error.value).partition(": use ")[2].partition(" if ")[0]
        value = eval(expression, {"np": np, "image": image})
        d = from_dataset([(value, 0)])
        np.testing.assert_allclose(d.images[0, :, :, 0], pixels / 65535, rtol=1e-6)
    with pytest.raises(TypeError, match=r'got "LAB"$'):
        from_dataset([(pil.new("LAB", (4, 5)), 0)])


def test_from_dataset_of_a_dataset() -> None:
    d = Dataset(random_images(6), np.arange(6))
    again = from_dataset(d)
    np.testing.assert_array_equal(again.images, d.images)
    np.testing.assert_array_equal(again.labels, d.labels)


class NoLength:
    def __getitem__(self, index: int) -> tuple[Array, int]:
        return np.zeros((5, 4), np.uint8), 0


def test_from_dataset_errors() -> None:
    image = np.zeros((5, 4), np.uint8)
    invalid: Any
    for invalid, error, message in (
        (NoLength(), TypeError, "ds must have a length, got NoLength"),
        ([], ValueError, "ds must have at least one item, got 0"),
        ([image], TypeError, r"item 0 must be a pair \(image, label\), got ndarray"),
        ([(image, 0, 1)], TypeError, r"item 0 must be a pair \(image, label\), got tuple"),
        ([("a.png", 0)], TypeError, "image 0 must be a PIL image, a NumPy array or a tensor, got "
                                    "str"),
        ([(image.astype(int), 0)], TypeError, "image 0 must be uint8, float32 or float64, got "
                                              "int64"),
        ([(image[0], 0)], ValueError,
         r"image 0 must have shape \(H, W\) or \(H, W, C\), got \(4,\)"),
        ([(Tensor(image[0]), 0)], ValueError,
         r"image 0 must have shape \(H, W\) or \(C, H, W\), got \(4,\)"),
        ([(image, 0), (image[1:], 0)], ValueError,
         r"images must have the same shape and dtype, got uint8 \(4, 4, 1\) for image 1 and uint8"),
        ([(image, 0), (image.astype("f4"), 0)], ValueError, r"images must .* got float32 .* uint8"),
        ([(image, 0), (image, 1.0)], TypeError, "label 1 must be an integer, got 1.0"),
        ([(image, "cat")], TypeError, "label 0 must be an integer, got 'cat'"),
        ([(image, True)], TypeError, "label 0 must be an integer, got True"),
        ([(image, np.eye(3)[0])], TypeError, r"label 0 must be .* ndarray of shape \(3,\)"),
    ):  # fmt: skip
        with pytest.raises(error, match=f"^from_dataset: {message}"):
            from_dataset(invalid)


def idx(array: Array) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_set(folder: Path, prefix: str = "", test: str = "t10k", suffix: str = ".gz") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for half, count in (("train", 5), (test, 3)):
        for kind, array in (
            ("images-idx3", random_images(count, 5, 4)),
            ("labels-idx1", np.arange(1, count + 1, dtype=np.uint8)),
        ):
            content = gzip.compress(idx(array)) if suffix else idx(array)
            (folder / f"{prefix}{half}-{kind}-ubyte{suffix}").write_bytes(content)


def assert_set(pair: tuple[Dataset, Dataset]) -> None:
    for d, count in zip(pair, (5, 3), strict=True):
        np.testing.assert_array_equal(d.images, random_images(count, 5, 4)[..., None])
        np.testing.assert_array_equal(d.labels, np.arange(1, count + 1))


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("below", [".", "raw"])
def test_idx_folder(tmp_path: Path, below: str, suffix: str) -> None:
    write_set(tmp_path / below, suffix=suffix)
    assert_set(idx_folder(tmp_path))
    assert_set(idx_folder(str(tmp_path), prefix=""))


def test_idx_folder_prefers_the_uncompressed_file(tmp_path: Path) -> None:
    write_set(tmp_path)
    write_set(tmp_path, suffix="")
    for packed in tmp_path.glob("*.gz"):
        packed.write_bytes(b"not read")
    assert_set(idx_folder(tmp_path))


def test_idx_folder_of_several_sets(tmp_path: Path) -> None:
    write_set(tmp_path, "emnist-letters-", "test")
    assert_set(idx_folder(tmp_path))
    write_set(tmp_path, "emnist-digits-", "test")
    (tmp_path / "emnist-byclass-train-images-idx3-ubyte.gz").write_bytes(b"")
    message = 'prefix must be one of "emnist-digits", "emnist-letters" for the data sets in .* None'
    with pytest.raises(ValueError, match=message):
        idx_folder(tmp_path)
    assert_set(idx_folder(tmp_path, prefix="emnist-letters"))
    assert_set(idx_folder(tmp_path, prefix="emnist-letters-"))
    message = 'must contain emnist-byclass-t.* got complete sets "emnist-digits", "emnist-letters"'
    with pytest.raises(FileNotFoundError, match=message):
        idx_folder(tmp_path, prefix="emnist-byclass")
    # The example of the docstring, for EMNIST's transposed images and labels from 1.
    train, _ = idx_folder(tmp_path, prefix="emnist-letters")
    upright = Dataset(train.images.swapaxes(1, 2), train.labels - 1)
    assert upright.images.shape == (5, 4, 5, 1)
    assert upright.labels[0] == 0


def test_idx_folder_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^idx_folder: path must be a folder, got .*none"):
        idx_folder(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"must contain train-image.* got no complete set"):
        idx_folder(tmp_path)
    write_set(tmp_path)
    images = tmp_path / "train-images-idx3-ubyte.gz"
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    good = images.read_bytes(), labels.read_bytes()
    cases = (
        (
            labels,
            idx(np.zeros(4, np.uint8)),
            "images and labels must have the same length, got 5 images and 4 labels",
        ),
        (labels, idx(np.zeros((5, 2), np.uint8)), r"with 1 dimension, got uint8 \(5, 2\)"),
        (images, idx(np.zeros((5, 2), np.uint8)), r"3 or 4 dimensions, got uint8 \(5, 2\)"),
        (images, b"\0\0\x0d\1\0\0\0\0", r"images must be uint8 .*, got float32 \(0,\)"),
        (images, good[0][:99], "gzip stream must be complete|must have .* bytes"),
    )
    for path, content, message in cases:
        images.write_bytes(good[0])
        labels.write_bytes(good[1])
        path.write_bytes(content)
        with pytest.raises(IdxError, match=rf"{re.escape(str(path))}: .*({message})"):
            idx_folder(tmp_path)


def test_digits() -> None:
    train, test = digits()
    for d, share in ((train, 600), (test, 100)):
        assert d.images.shape == (10 * share, 28, 28, 1)
        assert d.images.dtype == d.labels.dtype == np.uint8
        np.testing.assert_array_equal(np.bincount(d.labels), [share] * 10)
        # MNIST centers the mass of each digit, and leaves a border of 4 pixels.
        assert d.images.max() == 255
        assert d.images[:, 0].max() < 255 / 8
    # The first few hundred images contain every class: the order is not by label.
    assert set(train.labels[:200]) == set(test.labels[:200]) == set(range(10))


@pytest.mark.skipif(not REAL, reason="CHAINRULE_DATA is not set")
def test_digits_are_the_selection_of_their_script() -> None:
    spec = importlib.util.spec_from_file_location(
        "make_digits", Path(__file__).with_name("make_digits.py")
    )
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    for whole, part in zip(data.mnist(REAL, download=False), digits(), strict=True):
        selected = whole[make.select(whole.labels, len(part))]
        np.testing.assert_array_equal(part.images, selected.images)
        np.testing.assert_array_equal(part.labels, selected.labels)


def test_import_needs_no_optional_package() -> None:
    code = "import sys, chainrule.data; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    optional = {"pooch", "PIL", "torch", "torchvision", "requests", "matplotlib", "click", "tqdm"}
    assert optional.isdisjoint(run.stdout.split())


def test_require(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _optional.require("json") is sys.modules["json"]
    message = r'^no_such_module is not installed: pip install "chainrule\[plots\]"$'
    with pytest.raises(ImportError, match=message):
        _optional.require("no_such_module", extra="plots")
    # A missing dependency of an installed module is reported as such.
    (tmp_path / "broken_module.py").write_text("import its_missing_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'its_missing_dependency'"):
        _optional.require("broken_module")
