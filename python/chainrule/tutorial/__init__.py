"""The tutorial as one HTML page: each equation, followed by the library code that computes it.

`build` returns the page, and the command ``chainrule tutorial`` writes it. Each chapter is a module
``chN_*.py`` with a function ``write(chapter, quick)``. To add a chapter, add its module to
`CHAPTERS`. Each figure shows the source of the functions that computed it. The page includes its
style sheet, script and pictures. It contains no time or date, so that repeated builds on one
machine are identical.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from .. import __version__, info
from . import (
    ch1_descent,
    ch2_neuron,
    ch3_three_units,
    ch4_depth,
    ch5_jacobians,
    ch6_layers,
    ch7_practice,
    ch8_digits,
    ch9_equation_index,
)
from .page import Chapter, page

__all__ = ["CHAPTERS", "TITLE", "build"]

TITLE = "Machine learning, computed equation by equation"
LEAD = """
A neural network is trained by calculus and linear algebra. The tutorial *Machine Learning is
Calculus Plus Linear Algebra* states the method in 67 numbered equations. This page restates all of
them, and computes each with the library `chainrule`.

All numbers and pictures were computed when the page was made. The code is below each figure: open
it, copy it, and change it.
"""

# Anchor, title, function, and relative share of the build time.
CHAPTERS: tuple[tuple[str, str, Callable[[Chapter, bool], None], int], ...] = (
    ("descent", "Loss, gradient and gradient descent", ch1_descent.write, 2),
    ("neuron", "One neuron, and dead units", ch2_neuron.write, 2),
    ("three-units", "Backpropagation in a network of three units", ch3_three_units.write, 1),
    ("depth", "Networks of any depth and width", ch4_depth.write, 10),
    ("jacobians", "The gradient as a product of Jacobians", ch5_jacobians.write, 1),
    ("layers", "Softmax, convolution, pooling and cross-entropy", ch6_layers.write, 5),
    ("practice", "Mini-batches and overfitting", ch7_practice.write, 30),
    ("digits", "A classifier of handwritten digits", ch8_digits.write, 50),
    ("names", "Index of the equations", ch9_equation_index.write, 1),
)


def build(quick: bool = False, progress: Callable[[str, int], None] | None = None) -> str:
    """Compute all chapters and return the page.

    Parameters
    ----------
    quick : bool
        Train on fewer images for fewer epochs. The page is the same, with less accurate networks.
    progress : callable, optional
        Called before each chapter, with its title and the sum of the shares that are done. It is
        called at the end with "" and the sum of all shares.

    Returns
    -------
    str
        HTML, about 2 MB in UTF-8.

    Raises
    ------
    ImportError
        If matplotlib, latex2mathml or Pygments is not installed.
    """
    figures, done, chapters = count(1), 0, []
    for number, (key, title, write, share) in enumerate(CHAPTERS, 1):
        if progress:
            progress(title, done)
        chapter = Chapter(key, title, number, figures)
        write(chapter, quick)
        chapters.append(chapter)
        done += share
    if progress:
        progress("", done)
    facts = {
        "Computed by": f"chainrule {__version__}",
        "Backend": info()["backend"],
        "Digits": "7,000 images of MNIST (LeCun and Cortes, CC BY-SA 3.0)",
        "Command": "chainrule tutorial" + " --quick" * quick,
    }
    return page(TITLE, LEAD, facts, chapters)
