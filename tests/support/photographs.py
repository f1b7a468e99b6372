"""Synthetic photographs of handwritten digits: shadows with a hard edge, noise, light ink."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

SIZE = 400


def ink_of(digits: Sequence[Any], random: np.random.Generator, size: int = SIZE) -> Any:
    """Return the share of ink per pixel, (size, size): the digits side by side at random places."""
    ink = np.zeros((size, size))
    slot = size // len(digits)
    for number, digit in enumerate(digits):
        side = int(slot * random.uniform(0.6, 0.85))
        large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
        soft = np.asarray(large.filter(ImageFilter.GaussianBlur(side / 60)), dtype=float) / 255.0
        top = int(random.integers(0, size - side + 1))
        left = number * slot + int(random.integers(0, slot - side + 1))
        ink[top : top + side, left : left + side] = np.clip((soft - 0.35) / 0.3, 0.0, 1.0)
    return ink


def light_of(shadow: str, random: np.random.Generator, size: int = SIZE) -> Any:
    """Return the light per pixel, (size, size): half of it beyond a straight edge.

    The edge passes through the middle part of the picture and is 1 to 4 pixels wide. The rest of
    the light falls by a tenth from one side to the other.
    """
    rows, columns = np.mgrid[0:size, 0:size] / size - 0.5
    along = random.uniform(0.0, 2.0 * np.pi)
    light = 0.95 + 0.1 * (np.cos(along) * rows + np.sin(along) * columns)
    if shadow == "none":
        return light
    angle = random.integers(4) * np.pi / 2.0
    if shadow == "slanted":
        angle += random.uniform(0.15, np.pi / 2.0 - 0.15)
    across = np.cos(angle) * rows + np.sin(angle) * columns - random.uniform(-0.2, 0.2)
    width = random.uniform(1.0, 4.0) / size
    return light * (0.75 + 0.25 * np.clip(across / width, -1.0, 1.0))


def photograph(
    digits: Sequence[Any],
    seed: int,
    *,
    shadow: str = "none",
    light_ink: bool = False,
    noise: float = 4.0,
    size: int = SIZE,
) -> Any:
    """Return a photograph of digits on paper, as gray levels.

    Parameters
    ----------
    digits : sequence of ndarray of uint8 (28, 28)
        Images of MNIST, pasted side by side.
    seed : int
        Seed of places, light and noise. The ink depends on neither ``shadow`` nor ``noise``.
    shadow : str
        "none", "straight" (an edge along rows or columns) or "slanted".
    light_ink : bool
        Light ink on dark paper.
    noise : float
        Standard deviation in gray levels.
    size : int
        Rows and columns.

    Returns
    -------
    ndarray of uint8 (size, size)
    """
    ink = ink_of(digits, np.random.default_rng([seed, 0]), size)
    random = np.random.default_rng([seed, 1])
    light = light_of(shadow, random, size)
    paper, pen = (0.22, 0.9) if light_ink else (0.88, random.uniform(0.2, 0.4))
    gray = 255.0 * light * (paper + (pen - paper) * ink)
    picture = Image.fromarray(np.clip(gray, 0, 255).astype(np.uint8))
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(size / 500)), dtype=float)
    return np.clip(blurred + random.normal(size=gray.shape) * noise, 0, 255).astype(np.uint8)
