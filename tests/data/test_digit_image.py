"""Images of digits are converted to the format of MNIST, whatever their source."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule import data
from chainrule.data.digit_image import read_digit, to_digit

PIL = pytest.importorskip("PIL", reason="Pillow is not installed: pip install 'chainrule[cli]'")
from PIL import Image, ImageDraw, ImageFilter  # noqa: E402  (after the skip)

COUNT = 25


@pytest.fixture(scope="module")
def digits() -> Any:
    return data.digits()[1].images[:COUNT, :, :, 0]


def photograph(digit: Any, seed: int, *, dark: bool = True, noise: float = 4.0) -> Any:
    """Return a synthetic photograph of a digit on paper: 480 x 640, uneven lighting, noise."""
    random = np.random.default_rng(seed)
    side = int(random.integers(150, 400))
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    soft = np.asarray(large.filter(ImageFilter.GaussianBlur(side / 60)), dtype=float) / 255.0
    ink = np.zeros((480, 640))
    top, left = random.integers(0, 480 - side), random.integers(0, 640 - side)
    ink[top : top + side, left : left + side] = np.clip((soft - 0.35) / 0.3, 0.0, 1.0)
    rows, columns = np.mgrid[0:480, 0:640]
    angle = random.uniform(0.0, 2.0 * np.pi)
    light = np.cos(angle) * columns / 640 + np.sin(angle) * rows / 480
    paper = 90.0 + 140.0 * (light - light.min()) / np.ptp(light)
    gray = paper * (1.0 - 0.65 * ink)
    gray = (gray if dark else 255.0 - gray) + random.normal(size=gray.shape) * noise
    return np.clip(gray, 0, 255).astype(np.uint8)


def similarity(one: Any, other: Any) -> float:
    """Return the cosine similarity of two images after a blur of one pixel."""
    blurred = [
        np.asarray(Image.fromarray(each).filter(ImageFilter.GaussianBlur(1)), dtype=float).ravel()
        for each in (one, other)
    ]
    return float(blurred[0] @ blurred[1] / np.linalg.norm(blurred[0]) / np.linalg.norm(blurred[1]))


def jpeg(gray: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(gray).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_image_of_mnist_is_unchanged_or_inverted(tmp_path: Path, digits: Any) -> None:
    for index, digit in enumerate(digits):
        assert np.array_equal(to_digit(digit)[:, :, 0], digit), index
        assert np.array_equal(to_digit(255 - digit)[:, :, 0], digit), index
    Image.fromarray(digits[0]).save(tmp_path / "digit.png")
    image = read_digit(tmp_path / "digit.png")
    assert image.shape == (28, 28, 1)
    assert image.dtype == np.uint8
    assert np.array_equal(image[:, :, 0], digits[0])


@pytest.mark.parametrize("kind", ["enlarged", "photograph", "light on dark", "grainy", "jpeg"])
def test_other_images_become_similar_to_the_digit(kind: str, digits: Any, tmp_path: Path) -> None:
    similarities = []
    for index, digit in enumerate(digits):
        if kind == "enlarged":
            read = to_digit(np.asarray(Image.fromarray(digit).resize((280, 280))))
        elif kind == "photograph":
            read = to_digit(photograph(digit, index))
        elif kind == "light on dark":
            read = to_digit(photograph(digit, index, dark=False))
        elif kind == "grainy":
            read = to_digit(photograph(digit, index, noise=12.0))
        else:
            (tmp_path / "digit.jpg").write_bytes(jpeg(photograph(digit, index), quality=50))
            read = read_digit(tmp_path / "digit.jpg")
        similarities.append(similarity(read[:, :, 0], digit))
    # The median similarity of two images of MNIST is 0.56, and of two of one class 0.66.
    assert np.median(similarities) > 0.95
    assert min(similarities) > 0.85


def test_ink_is_centered_by_mass_and_20_pixels_long() -> None:
    gray = np.full((300, 400), 240, dtype=np.uint8)
    gray[30:230, 300:340] = 20
    image = to_digit(gray)[:, :, 0].astype(float)
    rows, columns = np.nonzero(image > 127)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 4)
    for axis in (0, 1):
        mass = image.sum(axis=1 - axis)
        assert abs((mass * (np.arange(28) + 0.5)).sum() / mass.sum() - 14.0) <= 0.5


def test_specks_and_a_dark_corner_are_ignored(digits: Any) -> None:
    gray = photograph(digits[0], 7, noise=0.0)
    clean = to_digit(gray)
    gray[440:, :40] = 20
    gray[5:8, 300:303] = 20
    assert similarity(to_digit(gray)[:, :, 0], clean[:, :, 0]) > 0.95


def test_thin_stroke_is_widened_to_the_width_of_mnist() -> None:
    drawing = Image.new("L", (3000, 2000), 235)
    pen = ImageDraw.Draw(drawing)
    pen.line([(800, 300), (700, 900), (1300, 900)], fill=60, width=10)
    pen.line([(1200, 250), (1150, 1600)], fill=60, width=10)
    drawing.thumbnail((640, 640), Image.Resampling.BOX)
    image = to_digit(np.asarray(drawing))[:, :, 0]
    stem = image[20]
    assert stem.max() > 200
    assert 1.5 <= stem.sum() / 255.0 <= 3.0


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "1", "I;16", "CMYK"])
def test_every_pixel_mode_is_read(mode: str, digits: Any, tmp_path: Path) -> None:
    gray = np.asarray(Image.fromarray(255 - digits[0]).resize((140, 140)))
    if mode == "I;16":
        image = Image.fromarray(gray.astype(np.uint16) * 200)
    else:
        image = Image.fromarray(gray).convert(mode)
    path = tmp_path / ("digit.tiff" if mode == "CMYK" else "digit.png")
    image.save(path)
    assert similarity(read_digit(path)[:, :, 0], digits[0]) > 0.85


def test_transparent_background_is_paper(digits: Any, tmp_path: Path) -> None:
    large = Image.fromarray(digits[0]).resize((140, 140))
    drawing = Image.new("RGBA", large.size, (0, 0, 0, 255))
    drawing.putalpha(large)  # all pixels are black, those without ink are transparent
    drawing.save(tmp_path / "digit.png")
    assert similarity(read_digit(tmp_path / "digit.png")[:, :, 0], digits[0]) > 0.85


def test_exif_orientation_is_applied(digits: Any, tmp_path: Path) -> None:
    upright = Image.fromarray(photograph(digits[0], 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the top is at the right
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif)
    assert similarity(read_digit(tmp_path / "turned.jpg")[:, :, 0], digits[0]) > 0.85


BLANK = {
    "white": np.full((100, 100), 255.0),
    "black, 28 by 28": np.zeros((28, 28)),
    "one pixel": np.full((1, 1), 30.0),
    "one row": np.full((1, 50), 30.0),
    "ramp": np.tile(np.arange(0.0, 250.0), (200, 1)),
    "noise": np.clip(np.random.default_rng(0).normal(200.0, 12.0, size=(240, 320)), 0, 255),
}


@pytest.mark.parametrize("kind", BLANK)
def test_blank_image_is_rejected(kind: str) -> None:
    with pytest.raises(ValueError, match=r"^image must show a digit, got a blank image$"):
        to_digit(BLANK[kind])


def test_array_of_another_shape_is_rejected() -> None:
    for shape in ((28, 28, 1), (5,), (0, 4)):
        with pytest.raises(
            ValueError, match=r"^to_digit: image must have shape \(rows, columns\), got \("
        ):
            to_digit(np.zeros(shape))


def test_errors_name_the_file(tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("not an image")
    with pytest.raises(
        ValueError,
        match=r"notes\.png: file must be an image \(PNG, JPEG, BMP, GIF, TIFF or WebP\), got ",
    ):
        read_digit(text)
    text.write_bytes(b"")
    with pytest.raises(
        ValueError,
        match=r"notes\.png: file must be an image \(PNG, JPEG, BMP, GIF, TIFF or WebP\), got ",
    ):
        read_digit(text)
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        read_digit(tmp_path / "absent.png")
    with pytest.raises(IsADirectoryError, match="path must be a regular file, got a folder"):
        read_digit(tmp_path)
    blank = tmp_path / "blank.png"
    Image.new("L", (90, 90), 250).save(blank)
    with pytest.raises(ValueError, match=r"blank\.png: image must show a digit, got a blank image"):
        read_digit(blank)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_file_is_rejected(suffix: str, digits: Any, tmp_path: Path) -> None:
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(photograph(digits[0], 1)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match=rf"cut\.{suffix}: image must be complete and undamaged, got: "
    ):
        read_digit(path)


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_decompression_bomb_is_rejected_before_decoding(side: int, tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.new("1", (side, side)).save(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"bomb\.png: image must have at most 89,478,485 pixels"):
        read_digit(path)


def test_arrays_of_other_numbers_are_refused() -> None:
    levels = np.full((30, 30), 200.0)
    broken = levels.copy()
    for value in (np.nan, np.inf, -np.inf):
        broken[3, 4] = value
        with pytest.raises(ValueError, match=r"^to_digit: image must be finite, got NaN or inf"):
            to_digit(broken)
    with pytest.raises(TypeError, match=r"^to_digit: image must have no mask, got a masked array"):
        to_digit(np.ma.masked_less(levels, 3))
    for other in (levels.astype(complex), levels.astype(str), levels.astype(object)):
        with pytest.raises(TypeError, match=r"^to_digit: image must contain real numbers, got"):
            to_digit(other)
