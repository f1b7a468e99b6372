"""Classify images: draw shapes as NumPy arrays, and train a convolutional network.

Images are uint8 arrays (N, rows, columns, channels). A network reads them as value / 255. A file
becomes such an array with Pillow: ``np.asarray(Image.open(path).convert("L"))[:, :, None]``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import chainrule as cr

Array = npt.NDArray[Any]

SHAPES = ["disk", "square", "cross"]
SIZE = 16


def draw_shape(kind: str, row: float, column: float, radius: float) -> Array:
    """Return an image (16, 16, 1) of one shape, in white on black.

    Parameters
    ----------
    kind : str
        One of `SHAPES`.
    row, column : float
        The center, in pixels.
    radius : float
        Half of the shape's size, in pixels.

    Examples
    --------
    >>> from chainrule.examples.images import draw_shape
    >>> image = draw_shape("square", row=8, column=8, radius=2)
    >>> image.shape, image.dtype, int((image == 255).sum())
    ((16, 16, 1), dtype('uint8'), 25)
    """
    rows, columns = np.mgrid[:SIZE, :SIZE]
    down, right = np.abs(rows - row), np.abs(columns - column)
    inside = {
        "disk": down**2 + right**2 <= radius**2,
        "square": np.maximum(down, right) <= radius,
        "cross": (np.minimum(down, right) <= radius / 4) & (np.maximum(down, right) <= radius),
    }[kind]
    return np.where(inside, 255, 0).astype(np.uint8)[:, :, None]


def draw_shapes(count: int, seed: int = 0) -> cr.data.Dataset:
    """Return noisy images of shapes at random positions, with labels that index `SHAPES`."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(SHAPES), count)
    radii = rng.uniform(3, 5, count)
    centers = rng.uniform(radii, SIZE - 1 - radii, (2, count))
    images = np.stack(
        [
            draw_shape(SHAPES[label], row, column, radius)
            for label, row, column, radius in zip(labels, *centers, radii, strict=True)
        ]
    )
    noise = rng.integers(0, 100, images.shape)
    return cr.data.Dataset(np.clip(images * 0.6 + noise, 0, 255).astype(np.uint8), labels)


def train_classifier(train: cr.data.Dataset, epochs: int = 5, seed: int = 0) -> cr.Sequential:
    """Return a small convolutional network, trained on ``train``."""
    network = cr.Sequential(
        cr.Conv2d(8, 3), cr.ReLU(), cr.MaxPool2d(2), cr.Conv2d(16, 3), cr.ReLU(), cr.MaxPool2d(2),
        cr.Flatten(), cr.Linear(len(SHAPES)), input_shape=train.images.shape[1:], seed=seed,
    )  # fmt: skip
    cr.fit(
        network, train, loss=cr.CrossEntropy(), optimizer=cr.SGD(cr.OneCycle(0.1), momentum=0.9),
        batch_size=32, epochs=epochs, validation=0.1, progress=False,
    )  # fmt: skip
    return network


def classify(network: cr.Sequential, image: Array) -> tuple[str, float]:
    """Return the most probable shape in one image (16, 16, 1), and its probability."""
    logits = network.predict(image[None])  # a batch of one image
    probabilities = cr.ops.softmax(logits)[0]
    best = int(probabilities.argmax())
    return SHAPES[best], float(probabilities[best])


def save_plots(network: cr.Sequential, test: cr.data.Dataset, folder: Path) -> None:
    """Write the confusion matrix, the filters of the first layer and the mistakes as PNG files.

    Raises
    ------
    ImportError
        If matplotlib is not installed, with the command that installs it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    confusion = np.asarray(cr.evaluate(network, test).confusion)
    cr.plots.confusion_matrix(confusion, labels=SHAPES).savefig(folder / "confusion.png")
    cr.plots.filters(network).savefig(folder / "filters.png")
    cr.plots.mistakes(network, test, labels=SHAPES).savefig(folder / "mistakes.png")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the network, print its evaluation, and save plots if a folder is given."""
    parser = argparse.ArgumentParser(
        prog="python -m chainrule.examples images", description=__doc__
    )
    parser.add_argument("--out", type=Path, help="folder for plots as PNG files; none without")
    parser.add_argument("--seed", type=int, default=0, help="seed of images and network")
    given = parser.parse_args(arguments)
    train, test = draw_shapes(2000, given.seed), draw_shapes(500, given.seed + 1)
    network = train_classifier(train, seed=given.seed)
    print(cr.evaluate(network, test))
    for label in range(len(SHAPES)):
        image = test.images[test.labels == label][0]
        name, probability = classify(network, image)
        print(f"an image of a {SHAPES[label]}: {name}, probability {probability:.2f}")
    if given.out is not None:
        save_plots(network, test, given.out)
        print(f"plots written to {given.out}")


if __name__ == "__main__":
    main()
