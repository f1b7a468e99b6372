"""The tutorial as one page: every equation, and beside it the library computing it.

`build` returns the page, and the command ``chainrule tutorial`` writes it. A chapter is a module
here with a function ``write(chapter, quick)``; a figure shows the source of the functions that
computed it. The page asks for nothing beside itself: style, script and pictures are in it. It holds
neither a time nor a date, so that the same machine makes the same page again, to the byte.
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
A network learns by calculus and linear algebra, and by nothing else. The tutorial *Machine Learning
is Calculus Plus Linear Algebra* says so in 67 numbered equations. Here they are again, restated in
our own words, and beside each the library `chainrule` computes what it says.

Nothing on this page was prepared: every number and every picture was computed when the page was
made, by the code that is folded up below the figure. Unfold it, copy it, change it.
"""

# Anchor, title, what writes it, and its share of the time that the page takes.
CHAPTERS: tuple[tuple[str, str, Callable[[Chapter, bool], None], int], ...] = (
    ("descent", "Learning is walking downhill", ch1_descent.write, 2),
    ("neuron", "One neuron, and how it dies", ch2_neuron.write, 2),
    ("three-units", "Three units, forward and back", ch3_three_units.write, 1),
    ("depth", "Deep and wide", ch4_depth.write, 10),
    ("jacobians", "The gradient is a product of matrices", ch5_jacobians.write, 1),
    ("layers", "Softmax, filters and pooling", ch6_layers.write, 5),
    ("practice", "Training in practice", ch7_practice.write, 30),
    ("digits", "Reading handwritten digits", ch8_digits.write, 50),
    ("names", "Every equation is a name", ch9_equation_index.write, 1),
)


def build(quick: bool = False, progress: Callable[[str, int], None] | None = None) -> str:
    """Compute everything and return the page.

    Parameters
    ----------
    quick : bool
        Whether to train on fewer digits for fewer epochs: the same page with worse networks, for
        those who want to see it at once.
    progress : callable, optional
        Called with a chapter's title when it begins, and the shares done so far; at last with ""
        and all of them.

    Returns
    -------
    str
        HTML in UTF-8's characters, some 2 MB.

    Raises
    ------
    ImportError
        Where matplotlib or latex2mathml is missing, with the command that installs it.
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
        "On": f"backend {info()['backend']}",
        "Digits": "7,000 images of MNIST (LeCun and Cortes, CC BY-SA 3.0)",
        "Make it again": "chainrule tutorial" + " --quick" * quick,
    }
    return page(TITLE, LEAD, facts, chapters)
