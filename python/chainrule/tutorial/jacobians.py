"""Chapter 5: Jacobians, and the gradient as a product of matrices; eq. (46)-(52)."""

from __future__ import annotations

import numpy as np

import chainrule as cr

from .heat import matrix
from .page import Chapter, Panel


def chain(layer: int) -> cr.calculus.Factors:
    network = cr.Sequential(
        cr.Linear(5), cr.ReLU(), cr.Linear(3), cr.ReLU(), input_shape=(4,), seed=3, dtype="float64"
    )
    random = np.random.default_rng(0)
    network.parameter_vector += 0.2 * random.normal(size=network.parameter_vector.shape)
    x, y = random.normal(size=4), np.array([0.0, 1.0, 0.0])
    return cr.calculus.jacobian_factors(network, x, y, cr.SquaredError(), layer=layer)


def write(chapter: Chapter, quick: bool) -> None:
    """Fill the chapter."""
    del quick  # A moment is no time.
    chapter.prose(
        """
        Linear algebra enters when functions have many inputs and many outputs. How each output
        answers to each input is a table with a row for each output and a column for each input:
        the **Jacobian**. It is the one linear function that agrees with $f$ near $x$.
        """
    )
    chapter.equations(46)
    chapter.prose(
        """
        Write all weights of the network into one long vector. Seen from there, the loss is a
        function from $P$ numbers to one, so that its Jacobian is a single row; stood upright it is
        the gradient, and the gradient over a data set is the mean of those of its instances.
        """
    )
    chapter.equations(47, 48, 49, 50)
    chapter.prose(
        """
        A network is one function after another. The Jacobian of a chain of functions is the
        product of their Jacobians: this is the *chain rule*, and all of backpropagation in one
        line. Read from the left each factor carries the row one layer further down, which is what
        (37) does, unit by unit.
        """
    )
    chapter.equations(51, 52)
    for layer in (1, 2):
        _chain(chapter, layer)
    chapter.prose(
        """
        In the diagonal matrices stands the rectifier, which passes on what came in or nothing, so
        that a column of a silent unit is empty to its left and to its right. The last factor is
        sparse too: a weight into neuron $i$ moves $z_i$ alone, by its input. No library multiplies
        these matrices out. `cr.ops.linear_backward` has the same numbers from two products, and
        here both were computed and compared.
        """
    )


def _chain(chapter: Chapter, layer: int) -> None:
    factors = chain(layer)
    limit = max(float(np.abs(factor.matrix).max()) for factor in factors)
    panels: list[Panel | str] = []
    for index, factor in enumerate(factors):
        if index:
            panels.append('<span class="sign">·</span>')
        rows, columns = factor.matrix.shape
        panels.append(
            Panel(
                matrix(factor.matrix, _plain(factor.name), limit),
                f"Factor {index + 1}, {rows} by {columns}.",
                kind="factor",
            )
        )
    panels.append('<span class="sign">=</span>')
    panels.append(Panel(matrix(factors.product, "∇Lᵀ", None), "The product, one row."))
    count = factors.product.size
    chapter.figure(
        f"chain-{layer}",
        *panels,
        caption=f"""The chain from the loss down to the {count} weights of layer {layer}, for one
        instance: blue is positive, orange negative, pale is zero. The product of the
        {len(factors)} factors and the gradient that training computes differ by
        {factors.error:.1e} of the largest element.""",
        code=(chain,),
        call=f"print(chain(layer={layer}))",
    )


def _plain(name: str) -> str:
    """The name of a factor with the superscripts that a line of plain text can have."""
    signs = str.maketrans("0123456789()", "⁰¹²³⁴⁵⁶⁷⁸⁹⁽⁾")
    parts = name.split("^")
    text = parts[0]
    for part in parts[1:]:
        end = part.index(")") + 1
        text += part[:end].translate(signs) + part[end:]
    return text
