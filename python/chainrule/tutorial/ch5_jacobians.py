"""Chapter 5: Jacobians, and the gradient as a product of matrices, eq. (46)-(52)."""

from __future__ import annotations

import numpy as np

import chainrule as cr

from .._types import Array
from .exercises import Line, Number, Setting
from .heatmap import matrix_figure
from .page import Chapter, Panel


def chain_factors(layer: int) -> cr.calculus.Factors:
    network = cr.Sequential(
        cr.Linear(5), cr.ReLU(), cr.Linear(3), cr.ReLU(), input_shape=(4,), seed=18, dtype="float64"
    )
    x, y = np.array([0.9, -0.4, 0.7, 0.5]), np.array([0.2, 1.0, 0.0])
    return cr.calculus.jacobian_factors(network, x, y, cr.SquaredError(), layer=layer)


def write(chapter: Chapter, quick: bool) -> None:
    """Fill the chapter."""
    del quick  # The chapter takes less than a second.
    chapter.prose(
        """
        Linear algebra describes functions with many inputs and many outputs. The **Jacobian** is
        the matrix of all partial derivatives, with one row per output and one column per input. It
        is the matrix of the linear function that approximates $f$ near $x$.
        """
    )
    chapter.equations(46)
    chapter.prose(
        """
        Write all weights of the network as one vector. The loss is then a function from $P$ numbers
        to one number, and its Jacobian is a single row. The transpose of this row is the gradient.
        The gradient over a data set is the mean of the gradients of its instances.
        """
    )
    chapter.equations(47, 48, 49, 50)
    chapter.prose(
        """
        A network is a composition of functions. By the *chain rule*, the Jacobian of a composition
        is the product of the Jacobians. This is backpropagation in matrix form. Evaluated from left
        to right, each product moves the row one layer towards the input, as (37) does unit by unit.
        """
    )
    chapter.equations(51, 52)
    for layer in (1, 2):
        _factors(chapter, layer)
    chapter.prose(
        """
        The square matrices are the Jacobians of the ReLU layers. Their diagonal is 1 for an active
        unit and 0 for an inactive one. In the product, an inactive unit removes one column of the
        factor to its left and one row of the factor to its right. The last factor is sparse: a
        weight of neuron $i$ changes only $z_i$, in proportion to its input. Libraries therefore do
        not multiply these matrices. `cr.ops.linear_backward` computes the same numbers with two
        small matrix products. The figures compare both results.
        """
    )
    _exercises(chapter)


def _factors(chapter: Chapter, layer: int) -> None:
    factors = chain_factors(layer)
    panels: list[Panel | str] = []
    for index, factor in enumerate(factors):
        rows, columns = factor.matrix.shape
        panels += ['<span class="operator">·</span>'] if index else []
        panels.append(
            Panel(
                matrix_figure(np.asarray(factor.matrix)),
                f"Factor {index + 1} of the product, {rows} by {columns}.",
                kind="factor",
                label=f"${factor.latex}$ {rows} × {columns}",
            )
        )
    count = factors.product.size
    panels.append('<span class="operator">=</span>')
    panels.append(
        Panel(
            matrix_figure(factors.product),
            f"The product, one row of {count} numbers.",
            kind="factor",
            label=f"$J_L(W^{{({layer})}})$ 1 × {count}",
        )
    )
    chapter.figure(
        f"chain-{layer}",
        *panels,
        caption=f"""The Jacobians from the loss to the {count} weights of layer {layer}, for one
        instance, in the order of (51), and their product. Blue is positive, orange negative, and a
        pale cell zero. Each matrix has its own scale.
        The largest difference between the product of the {len(factors)} factors and the gradient
        of the training step is {factors.error:.1g}, relative to the largest element.""",
        code=(chain_factors,),
        call=f"print(chain_factors(layer={layer}))",
    )


def chain_rule(jacobian_of_g: Array, jacobian_of_f: Array) -> Array:
    jacobian = jacobian_of_g @ jacobian_of_f
    return jacobian


def _exercises(chapter: Chapter) -> None:
    network = cr.Sequential(cr.Linear(10), input_shape=(784,))
    jacobian = cr.calculus.jacobian(network, np.zeros(784, dtype=np.float32))
    z = np.array([-2.0, 0.0, 0.5, 3.0])
    ones = int(np.count_nonzero(cr.calculus.layer_jacobian(cr.ReLU(), z)))
    twice = cr.Sequential(cr.Softmax(), cr.Softmax(), input_shape=(4,), dtype="float64")
    inner = cr.calculus.layer_jacobian(cr.Softmax(), z)
    outer = cr.calculus.layer_jacobian(cr.Softmax(), cr.ops.softmax(z[None])[0])
    expected = cr.calculus.jacobian(twice, z)
    chapter.exercises(
        Number(
            """A network maps an image of 784 pixels to 10 outputs. Predict the number of elements
            of its Jacobian.""",
            (46,),
            "There is one row per output and one column per input.",
            f"{jacobian.shape[0]} rows of {jacobian.shape[1]} columns have {jacobian.size:,} "
            "elements.",
            answer=jacobian.size,
        ),
        Setting(
            """A ReLU layer reads $z$ = (−2, 0, 0.5, 3). Set the number of ones in its Jacobian.""",
            (16, 51),
            "The derivative at exactly 0 is 0.",
            f"Two elements of $z$ are positive, so {ones} elements of the diagonal are 1.",
            label="ones",
            names=[str(number) for number in range(5)],
            answers=[ones],
        ),
        Line(
            """`f` is the function that is applied first. Complete the line, so that it computes the
            Jacobian of the composition.""",
            (51,),
            "The chain rule multiplies matrices.",
            "The Jacobian of a composition is the matrix product of the Jacobians.",
            function=chain_rule,
            blank="@",
            correct=np.allclose(chain_rule(outer, inner), expected),
        ),
    )
