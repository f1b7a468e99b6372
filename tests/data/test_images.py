"""`read_image` and `image_folder`: every kind of image as pixels, and folders of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule import data
from chainrule.data import Dataset, image_folder, read_image

Image = pytest.importorskip("PIL.Image")

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (5, 7), np.uint8)
COLOR = RNG.integers(0, 256, (5, 7, 3), np.uint8)


def written(path: Path, array: Any, mode: str | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_pixels_are_those_of_the_file(suffix: str, tmp_path: Path) -> None:
    gray = written(tmp_path / f"gray.{suffix}", GRAY)
    color = written(tmp_path / f"color.{suffix}", COLOR)
    assert np.array_equal(read_image(gray), GRAY[:, :, None])
    assert np.array_equal(read_image(str(color)), COLOR)
    assert np.array_equal(read_image(gray, channels=3), np.stack([GRAY] * 3, axis=2))
    # ITU-R 601: the weights of Pillow's "L".
    luma = COLOR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_image(color, channels=1)[:, :, 0] - luma).max() <= 1


def test_other_modes(tmp_path: Path) -> None:
    black = written(tmp_path / "1.png", np.array([[0, 255]], np.uint8), "1")
    assert read_image(black).ravel().tolist() == [0, 255]
    palette = written(tmp_path / "p.gif", COLOR, "P")
    assert read_image(palette).shape == (5, 7, 3)
    deep = np.array([[0, 257, 65535, 128]], np.uint16)
    path = written(tmp_path / "16.png", deep)
    assert read_image(path).ravel().tolist() == [0, 1, 255, 0]
    assert read_image(path, channels=3).shape == (1, 4, 3)
    alpha = np.array([[[200, 0, 0, 255], [200, 0, 0, 0]]], np.uint8)
    path = written(tmp_path / "rgba.png", alpha)
    assert read_image(path).tolist() == [[[200, 0, 0], [255, 255, 255]]]
    path = written(tmp_path / "la.png", alpha, "LA")
    assert read_image(path)[0, 1].tolist() == [255]
    path = written(tmp_path / "f.tif", np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match=r"f\.tif: image must have 8 or 16 bits per channel, got"):
        read_image(path)


def test_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = written(tmp_path / "turned.png", COLOR, exif=exif)
    assert np.array_equal(read_image(path), np.rot90(COLOR, -1))
    # The size is that of the upright image.
    assert read_image(path, size=(14, 10)).shape == (14, 10, 3)


def test_size(tmp_path: Path) -> None:
    path = written(tmp_path / "a.png", np.full((40, 60), 77, np.uint8))
    assert (read_image(path, size=(10, 20)) == 77).all()
    assert read_image(path, size=(10, 20)).shape == (10, 20, 1)
    half = np.zeros((400, 400), np.uint8)
    half[:, 200:] = 255
    path = written(tmp_path / "b.jpg", half, quality=95)
    small = read_image(path, size=4)[:, :, 0].astype(int)
    assert (small[:, 0] < 8).all()
    assert (small[:, 3] > 247).all()
    # Antialiased: one black pixel of a hundred darkens the whole by about a percent.
    dots = np.full((100, 100), 255, np.uint8)
    dots[::10, ::10] = 0
    assert 245 <= read_image(written(tmp_path / "c.png", dots), size=1).item() <= 254


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"channels": 2}, ValueError, "channels must be 1, 3 or None, got 2"),
        ({"channels": True}, ValueError, "channels must be 1, 3 or None, got True"),
        ({"channels": "RGB"}, ValueError, "channels must be 1, 3 or None, got 'RGB'"),
        ({"size": 0}, ValueError, "size must be at least 1, got 0"),
        ({"size": (1, 2, 3)}, ValueError, "size must be an integer or a pair"),
        ({"size": 2.0}, TypeError, "size must be an integer or a pair"),
        ({"size": 100_000}, ValueError, "size must be at most 65535, got 100000"),
    ],
)
def test_arguments(options: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a" / "a.png", GRAY)
    for call, argument in ((read_image, path), (image_folder, tmp_path)):
        with pytest.raises(error) as raised:
            call(argument, **options)
        assert str(raised.value).startswith(f"{call.__name__}: {message}")


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "cat" / "a.png", GRAY)
    path.write_bytes(path.read_bytes()[:60])
    for call in (lambda: read_image(path), lambda: image_folder(tmp_path)):
        with pytest.raises(ValueError, match=rf"^{path}: "):
            call()
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "absent.png")


# Folders


def test_a_folder_of_classes(tmp_path: Path) -> None:
    for name, values in (("dog", (1, 2)), ("cat", (3,)), ("éclair", (4,))):
        for value in values:
            written(tmp_path / name / f"{value}.PNG", np.full((2, 3), value, np.uint8))
    written(tmp_path / "dog" / "more" / "0.png", np.full((2, 3), 9, np.uint8))
    written(tmp_path / ".hidden" / "0.png", GRAY)
    written(tmp_path / "dog" / ".thumbnail.png", GRAY)
    (tmp_path / "dog" / "notes.txt").write_text("text")
    (tmp_path / "readme.txt").write_text("text")
    found = image_folder(tmp_path)
    assert found.classes == ("cat", "dog", "éclair")
    assert found.labels.tolist() == [0, 1, 1, 1, 2]
    assert found.images[:, 0, 0, 0].tolist() == [3, 1, 2, 9, 4]
    assert (found.images.dtype, found.images.shape) == (np.uint8, (5, 2, 3, 1))
    assert found[1:3].classes == found[[0, 4]].classes == found.classes
    resized = image_folder(str(tmp_path), size=(4, 4), channels=3)
    assert resized.images.shape == (5, 4, 4, 3)


def test_numbers_are_in_numerical_order(tmp_path: Path) -> None:
    for name in ("10", "9", "2", "02"):
        written(tmp_path / name / "a.png", GRAY)
    assert image_folder(tmp_path).classes == ("02", "2", "9", "10")


def test_gray_and_color_in_one_folder(tmp_path: Path) -> None:
    for name, array in (("a/1", GRAY), ("a/2", COLOR), ("b/1", GRAY)):
        written(tmp_path / f"{name}.png", array)
    found = image_folder(tmp_path)
    gray = np.stack([GRAY] * 3, axis=2)
    assert np.array_equal(found.images, np.stack([gray, COLOR, gray]))
    assert image_folder(tmp_path, channels=1).images.shape == (3, 5, 7, 1)


def test_folders_without_classes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must contain a folder of images for each class, got no"):
        image_folder(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match=rf"one image \(.*\), got none in {tmp_path}/cat$"):
        image_folder(tmp_path)
    file = written(tmp_path / "cat" / "a.png", GRAY)
    with pytest.raises(NotADirectoryError, match=r"^image_folder: path must be a folder, got "):
        image_folder(file)
    with pytest.raises(FileNotFoundError):
        image_folder(tmp_path / "absent")
    written(tmp_path / "dog" / "b.png", GRAY[:4])
    message = (
        rf"^image_folder: images must have the same size, got 4 x 7 for {tmp_path}/dog/b\.png and "
        rf"5 x 7 for {tmp_path}/cat/a\.png: pass size, such as size=\(5, 7\)$"
    )
    with pytest.raises(ValueError, match=message):
        image_folder(tmp_path)
    assert len(image_folder(tmp_path, size=(5, 7))) == 2


def test_images_that_do_not_fit_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(3):
        written(tmp_path / "a" / f"{index}.png", np.zeros((64, 64), np.uint8))
    huge = np.broadcast_to(np.uint8(0), (2**20, 2**20, 3))
    monkeypatch.setattr(data.images, "_read", lambda *_: huge)
    message = rf"^image_folder: 3 images in {tmp_path} need 9.0 TiB of memory, but "
    with pytest.raises(MemoryError, match=message):
        image_folder(tmp_path)


# Names of classes


def test_names_of_classes_of_a_dataset() -> None:
    images, labels = np.zeros((3, 2, 2, 1), np.uint8), np.array([0, 2, 1])
    found = Dataset(images, labels, ["a", "b", "c"])
    assert found.classes == ("a", "b", "c")
    assert found[labels > 0].classes == ("a", "b", "c")
    assert Dataset(images, labels).classes is None
    for classes, error, message in (
        ("abc", TypeError, "classes must be a sequence of str, got 'abc'"),
        (3, TypeError, "classes must be a sequence of str, got 3"),
        (["a", 1, 2], TypeError, "classes must contain str, got 1"),
        (["a", "b"], ValueError, "a name for each label, got 2 names and labels from 0 to 2"),
    ):
        with pytest.raises(error, match=f"^Dataset: {message}|{message}"):
            Dataset(images, labels, classes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="classes must be None unless labels are integers"):
        Dataset(images, np.zeros((3, 2)), ("a", "b"))
    with pytest.raises(ValueError, match="got 1 names and labels from -1 to 0"):
        Dataset(images, np.array([0, -1, 0]), ("a",))


def test_loaders_name_their_classes() -> None:
    train, test = data.digits()
    assert train.classes == test.classes == tuple("0123456789")
    assert train[:10].classes == train.classes
