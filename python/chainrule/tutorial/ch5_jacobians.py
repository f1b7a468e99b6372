"""Chapter 5: Jacobians, and the gradient as a product of matrices; eq. (46)-(52)."""

from __future__ import annotations

import numpy as np

import chainrule as cr

from .heatmap import matrix
from .page import Chapter, Panel


def chain(layer: int) -> cr.calculus.Factors:
    network = cr.Sequential(
        cr.Linear(5), cr.ReLU(), cr.Linear(3), cr.ReLU(), input_shape=(4,), seed=18, dtype="float64"
    )
    x, y = np.array([0.9, -0.4, 0.7, 0.5]), np.array([0.2, 1.0, 0.0])
    return cr.calculus.jacobian_factors(network, x, y, cr.SquaredError(), layer=layer)


def write(chapter: Chapter, quick: bool) -> None:
    """Fill the chapter."""
    del quick  # A moment is no time.
    chapter.prose(
        """
        Linear algebra enters when functions have many inputs and many outputs. How each output
        answers to each input is a table with a row for each output and a column for each input:
        the **Jacobian**. It is the matrix of the one linear function that follows every change
        of $f$ near $x$.
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
        line. Multiplied from the left, each factor carries the row one layer further down, which
        is what (37) does, unit by unit.
        """
    )
    chapter.equations(51, 52)
    for layer in (1, 2):
        _chain(chapter, layer)
    chapter.prose(
        """
        The square matrices in the chain are the rectifiers': their diagonal is 1 where the unit
        lets through and 0 where it is silent, and a silent unit blots out its column to the left
        and its row to the right. The last factor is mostly empty too: a weight into neuron $i$
        moves $z_i$ alone, by the size of its input. For that reason no library multiplies these
        matrices out; `cr.ops.linear_backward` gets the same numbers from two small products. Here
        both ways were taken, and compared.
        """
    )


def _chain(chapter: Chapter, layer: int) -> None:
    factors = chain(layer)
    panels: list[Panel | str] = []
    for index, factor in enumerate(factors):
        rows, columns = factor.matrix.shape
        panels += ['<span class="sign">·</span>'] if index else []
        panels.append(
            Panel(
                matrix(np.asarray(factor.matrix)),
                f"Factor {index + 1} of the chain, {rows} by {columns}.",
                kind="factor",
                label=f"${factor.latex}$ {rows} × {columns}",
            )
        )
    count = factors.product.size
    panels.append('<span class="sign">=</span>')
    panels.append(
        Panel(
            matrix(factors.product),
            f"The product, one row of {count} numbers.",
            kind="factor",
            label=f"$J_L(W^{{({layer})}})$ 1 × {count}",
        )
    )
    chapter.figure(
        f"chain-{layer}",
        *panels,
        caption=f"""The chain from the loss down to the {count} weights of layer {layer}, for one
        instance. Blue is positive, orange negative, pale zero; each matrix has its own scale. The
        product of the {len(factors)} factors and the gradient that training computes differ by
        {factors.error:.1g} of the largest element.""",
        code=(chain,),
        call=f"print(chain(layer={layer}))",
    )
