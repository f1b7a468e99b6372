"""Photographs with hard shadows, noise, light ink or several digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule import data
from chainrule.data.digit_image import find_digit, read_digit, to_digit

pytest.importorskip("PIL", reason="Pillow is not installed: pip install 'chainrule[cli]'")
from PIL import Image, ImageFilter
from tests.support import photographs

COUNT = 12
FIRST = 700  # the algorithm was adjusted to other digits


@pytest.fixture(scope="module")
def digits() -> Any:
    return data.digits()[1].images[FIRST : FIRST + COUNT, :, :, 0]


def similarity(one: Any, other: Any) -> float:
    """Return the cosine similarity of two images after a blur of one pixel."""
    first, second = (
        np.asarray(Image.fromarray(each).filter(ImageFilter.GaussianBlur(1)), dtype=float).ravel()
        for each in (one, other)
    )
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


@pytest.mark.parametrize(
    ("shadow", "light_ink", "noise"),
    [
        ("straight", False, 4.0),
        ("slanted", False, 12.0),
        ("none", True, 12.0),
        ("slanted", True, 12.0),
    ],
)
def test_digit_is_read_as_without_shadow_and_noise(
    shadow: str, light_ink: bool, noise: float, digits: Any
) -> None:
    similarities = []
    for seed, digit in enumerate(digits):
        picture = photographs.photograph(
            [digit], seed, shadow=shadow, light_ink=light_ink, noise=noise
        )
        clean = to_digit(photographs.photograph([digit], seed, noise=0.0))
        similarities.append(similarity(to_digit(picture)[:, :, 0], clean[:, :, 0]))
    # One digit may lose a stroke that runs along the edge. Two digits of one class have 0.66.
    assert np.median(similarities) > 0.97
    assert sorted(similarities)[1] > 0.9


@pytest.mark.parametrize("shadow", ["straight", "slanted"])
def test_shadow_on_blank_paper_is_not_ink(shadow: str) -> None:
    blank = np.zeros((28, 28), np.uint8)
    for seed in range(3):
        for light_ink in (False, True):
            picture = photographs.photograph([blank], seed, shadow=shadow, light_ink=light_ink)
            with pytest.raises(ValueError, match=r"^image must show a digit, got a blank image$"):
                to_digit(picture)


def test_digits_of_a_picture_are_counted(digits: Any, tmp_path: Path) -> None:
    path = tmp_path / "digits.png"
    for count in (1, 2, 3):
        for seed, shadow in enumerate(("none", "slanted")):
            shown = digits[4 * seed : 4 * seed + count]
            Image.fromarray(photographs.photograph(shown, seed, shadow=shadow)).save(path)
            found = find_digit(path)
            assert found.digits == count, (count, shadow)
            assert np.array_equal(found.image, read_digit(path))


def test_specks_and_dark_borders_are_not_digits(digits: Any, tmp_path: Path) -> None:
    picture = photographs.photograph(digits[:1], 3, noise=0.0)
    picture[:, :12] = 20  # the edge of a table
    picture[20:26, 380:386] = picture[370:376, 30:36] = 20
    Image.fromarray(picture).save(tmp_path / "digit.png")
    assert find_digit(tmp_path / "digit.png").digits == 1
    Image.fromarray(digits[0]).save(tmp_path / "mnist.png")
    assert find_digit(tmp_path / "mnist.png").digits == 1
