"""Chapter 3: forward and backward pass of a network of three units, eq. (14)-(27)."""

from __future__ import annotations

from typing import Any

import numpy as np

import chainrule as cr
import chainrule.examples  # so that type checkers find cr.examples

from ..plots.style import BLUE, FAINT, GRAY, INK, ORANGE, PAPER, new_figure
from .exercises import Line, Number, Setting
from .page import Chapter, Panel, Slider
from .svg import LAST, frame

X, Y = (1.0, 2.0), (1.0,)
RATE = 0.1

# Slider positions: name, and keys of the trace entries that are computed there.
STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("input", ()),
    ("forward: layer 1", ("z^(1)", "a^(1)")),
    ("forward: layer 2", ("z^(2)", "y_hat")),
    ("forward: loss", ("l",)),
    ("backward, step 1", ("dl/dy_hat",)),
    ("backward, step 2", ("delta^(2)",)),
    ("backward, step 3", ("dl/dW^(2)",)),
    ("backward, step 4", ("dl/da^(1)",)),
    ("backward, step 5", ("delta^(1)",)),
    ("backward, step 6", ("dl/dW^(1)",)),
)
# Slider position at which each entry is computed.
FIRST_STEP = {name: index for index, (_, names) in enumerate(STEPS) for name in names}


def trace_instance(x: tuple[float, ...], y: tuple[float, ...]) -> cr.calculus.Trace:
    network = cr.examples.three_unit_network()
    return cr.calculus.trace(network, np.array(x), np.array(y), cr.SquaredError())


def descent_step(x: tuple[float, ...], y: tuple[float, ...], rate: float) -> tuple[float, float]:
    network = cr.examples.three_unit_network()
    loss = cr.SquaredError()
    before, _ = network.loss_and_gradient(np.array([x]), np.array([y]), loss)
    network.parameter_vector -= rate * network.gradient_vector
    after, _ = network.loss_and_gradient(np.array([x]), np.array([y]), loss)
    return before, after


def write(chapter: Chapter, quick: bool) -> None:
    """Fill the chapter."""
    del quick  # The chapter takes less than a second.
    chapter.prose(
        """
        In a network, the outputs of neurons are the inputs of other neurons. The notation is as
        follows. Layers are numbered from the input, which is layer 0. In each layer, position 0 is
        the constant 1 that is multiplied by the biases:
        """
    )
    chapter.equations(14, 15, 16)
    chapter.prose(
        """
        The smallest network with all parts of a deep network has three units and nine weights. Two
        units read the input, and the third reads their outputs.
        """
    )
    chapter.equations(17, 18, 19, 20)
    chapter.prose(
        """
        **Backpropagation** visits the units in reverse order. It computes one quantity per unit,
        the *error term*: the derivative of the loss with respect to the unit's weighted sum.
        """
    )
    chapter.equations(21)
    chapter.prose(
        """
        There are six steps. Each multiplies a known quantity by one local derivative, and no
        derivative is computed twice:
        """
    )
    chapter.equations(22, 23, 24, 25, 26, 27)
    _steps(chapter)
    _full_trace(chapter)
    _exercises(chapter)


def _steps(chapter: Chapter) -> None:
    trace = trace_instance(X, Y)
    figure = new_figure(*SIZE)
    figure.set_layout_engine("none")
    _draw(figure.add_axes((0, 0, 1, 1)), trace)
    notes = []
    for name, keys in STEPS:
        lines = [f"**{name[0].upper()}{name[1:]}**"]
        if not keys:
            lines.append(f"The instance $x$ = {_pair(X)}, its target $y$ = {Y[0]:g}, nine weights.")
        for key in keys:
            entry = trace.entry(key)
            for symbol, value, formula in entry.elements():
                line = f"{symbol.latex} = {formula.latex} = {_latex_number(value)}"
                lines.append(f"${line}$ {entry.equation}")
        notes.append("\n".join(lines))
    chapter.figure(
        "three-units",
        Panel(
            figure,
            "The network with two inputs, two hidden units and one output. Each slider position "
            "adds the values that it computes: sums and outputs at the units in the forward pass, "
            "error terms at the units and gradients at the weights in the backward pass.",
        ),
        caption="""The network from its inputs at the left to its output at the right. The slider
        selects a step: what it computes is highlighted, blue in the forward pass and orange in the
        backward pass. The nine weights are at their edges. The forward pass computes the sum $z$
        and the output $a$ of each unit. The backward pass computes the error term $\\delta$ of each
        unit and the gradient of each weight.""",
        code=(trace_instance,),
        call=f"print(trace_instance(x={X}, y={Y}))",
        slider=Slider(
            "step", [f"{i} of {len(STEPS) - 1}" for i in range(len(STEPS))], 0, len(STEPS) - 1
        ),
        notes=notes,
    )


def _latex_number(value: float) -> str:
    # Braces make the minus a sign instead of an operator, which has wider spacing.
    return f"{{{value:.6g}}}"


def _pair(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"


# In inches. A wider figure has illegible text on a phone.
SIZE = (4.9, 4.5)
INPUTS = ((0.45, 3.85), (0.45, 2.25), (0.45, 0.65))
HIDDEN = ((2.4, 4.05), (2.4, 2.8), (2.4, 1.0))
OUTPUT = (3.95, 2.1)
RADIUS = 0.36
# Center of the text above the output unit.
OUTPUT_LABEL_X = OUTPUT[0] + 0.42


def _draw(ax: Any, trace: cr.calculus.Trace) -> None:
    """Draw the network, with one frame per step."""
    ax.set(xlim=(0, SIZE[0]), ylim=(0, SIZE[1]), aspect="equal")
    ax.set_axis_off()
    edges = [
        (1, start, end, i, j)
        for i, end in enumerate(HIDDEN[1:], 1)
        for j, start in enumerate(INPUTS)
    ]
    edges += [(2, start, OUTPUT, 1, j) for j, start in enumerate(HIDDEN)]
    for layer, start, end, i, j in edges:
        _edge(ax, trace, layer, start, end, i, j)
    for text, position in zip(("1", f"x₁\n{X[0]:g}", f"x₂\n{X[1]:g}"), INPUTS, strict=True):
        _unit(ax, position, text, GRAY)
    _unit(ax, HIDDEN[0], "1", GRAY)
    for i, position in enumerate(HIDDEN[1:], 1):
        _unit(ax, position, "", INK)
        _values(
            ax,
            trace,
            position,
            ("z^(1)", f"z_{i}^(1)", f"z{'₀₁₂'[i]}"),
            ("a^(1)", f"a_{i}^(1)", f"a{'₀₁₂'[i]}"),
            ("delta^(1)", f"delta_{i}^(1)"),
        )
    _unit(ax, OUTPUT, "", INK)
    _values(
        ax,
        trace,
        OUTPUT,
        ("z^(2)", "z_1^(2)", "z"),
        ("y_hat", "y_hat", "ŷ"),
        ("delta^(2)", "delta_1^(2)"),
    )
    ax.annotate(
        "",
        (SIZE[0] - 0.1, OUTPUT[1]),
        (OUTPUT[0] + RADIUS, OUTPUT[1]),
        arrowprops={"arrowstyle": "-|>", "color": GRAY},
    )
    ax.text(OUTPUT_LABEL_X, OUTPUT[1] + 0.98, f"y = {Y[0]:g}", ha="center", fontsize=10, color=INK)
    loss = f"ℓ = {_short(trace['l'])}"
    ax.text(
        OUTPUT_LABEL_X,
        OUTPUT[1] + 0.72,
        loss,
        ha="center",
        fontsize=10,
        color=BLUE,
        weight="bold",
        gid=frame(FIRST_STEP["l"], LAST),
    )
    top = f"∂ℓ/∂ŷ = {_short(trace['dl/dy_hat'])}"
    ax.text(
        OUTPUT_LABEL_X,
        OUTPUT[1] + 0.46,
        top,
        ha="center",
        fontsize=9.5,
        color=ORANGE,
        gid=frame(FIRST_STEP["dl/dy_hat"], LAST),
    )


def _short(value: Any) -> str:
    return f"{float(np.asarray(value).ravel()[0]):.4g}".replace("-", "−")


def _unit(ax: Any, position: tuple[float, float], text: str, color: str) -> None:
    from matplotlib.patches import Circle

    ax.add_patch(
        Circle(position, RADIUS, facecolor=PAPER, edgecolor=color, linewidth=1.4, zorder=3)
    )
    ax.text(*position, text, ha="center", va="center", fontsize=10, color=INK, zorder=4)


def _values(
    ax: Any,
    trace: cr.calculus.Trace,
    position: tuple[float, float],
    z: tuple[str, str, str],
    a: tuple[str, str, str],
    delta: tuple[str, str],
) -> None:
    """Draw a unit's sum, output and error term from their step on, highlighted in that step."""
    from matplotlib.patches import Circle

    def highlight(key: str, color: str) -> None:
        style = {"facecolor": "none", "edgecolor": color, "linewidth": 3, "zorder": 4}
        ax.add_patch(Circle(position, RADIUS, gid=frame(FIRST_STEP[key]), **style))

    for (key, element, name), up in ((z, 0.13), (a, -0.13)):
        ax.text(
            position[0],
            position[1] + up,
            f"{name} {_short(trace[element])}",
            ha="center",
            va="center",
            fontsize=8.6,
            color=INK,
            zorder=5,
            gid=frame(FIRST_STEP[key], LAST),
        )
        highlight(key, BLUE)
    key, element = delta
    ax.text(
        position[0],
        position[1] - RADIUS - 0.17,
        f"δ = {_short(trace[element])}",
        ha="center",
        va="center",
        fontsize=9.5,
        color=ORANGE,
        weight="bold",
        zorder=5,
        gid=frame(FIRST_STEP[key], LAST),
    )
    highlight(key, ORANGE)


def _edge(
    ax: Any,
    trace: cr.calculus.Trace,
    layer: int,
    start: tuple[float, float],
    end: tuple[float, float],
    i: int,
    j: int,
) -> None:
    """Draw the edge of weight w_ij, with its weight and its gradient."""
    across = [start[0], end[0]], [start[1], end[1]]
    ax.plot(*across, color=FAINT, linewidth=1.6, zorder=1)
    forward = FIRST_STEP["z^(1)" if layer == 1 else "z^(2)"]
    ax.plot(*across, color=BLUE, linewidth=2, zorder=1, gid=frame(forward))
    back = FIRST_STEP[f"dl/dW^({layer})"]
    ax.plot(*across, color=ORANGE, linewidth=2, zorder=1, gid=frame(back))
    if layer == 2 and j > 0:
        ax.plot(*across, color=ORANGE, linewidth=2, zorder=1, gid=frame(FIRST_STEP["dl/da^(1)"]))
    # Positions at which the numbers of crossing edges do not overlap.
    share = 0.5 if layer == 2 else 0.6 if i == 1 else 0.3
    position = [start[k] + share * (end[k] - start[k]) for k in (0, 1)]
    box = {"boxstyle": "round,pad=0.12", "facecolor": PAPER, "edgecolor": "none"}
    weight = _short(trace[f"w_{i}{j}^({layer})"])
    gradient = _short(trace[f"dl/dw_{i}{j}^({layer})"])
    ax.text(*position, weight, ha="center", va="center", fontsize=9, color=INK, bbox=box, zorder=2)
    ax.text(
        position[0],
        position[1] - 0.19,
        gradient,
        ha="center",
        va="center",
        fontsize=9,
        color=ORANGE,
        weight="bold",
        bbox=box,
        zorder=2,
        gid=frame(back, LAST),
    )


def _full_trace(chapter: Chapter) -> None:
    chapter.heading("The full trace")
    trace = trace_instance(X, Y)
    before, after = descent_step(X, Y, RATE)
    chapter.prose(
        f"""
        The table shows the same values, as a notebook displays them. One step of gradient descent
        (6) with $\\eta$ = {RATE:g} reduces the loss from {before:.4f} to {after:.4f}.
        """
    )
    chapter.trace(trace)
    x, y = np.array([X]), np.array([Y])
    report = cr.calculus.check_gradient(cr.examples.three_unit_network(), x, y, cr.SquaredError())
    chapter.prose(
        """
        A finite-difference check confirms the six steps. It increases and decreases each weight
        slightly, and compares the change of the loss with the gradient.
        `cr.calculus.check_gradient` does this in float64:
        """
    )
    chapter.output(str(report))


def weight_derivative(trace: cr.calculus.Trace) -> float:
    derivative = trace["delta_1^(2)"] * trace["a_2^(1)"]
    return float(derivative)


def _exercises(chapter: Chapter) -> None:
    trace = trace_instance(X, (2.0,))
    output, top = float(np.ravel(trace["y_hat"])[0]), float(np.ravel(trace["dl/dy_hat"])[0])
    step = FIRST_STEP["dl/dW^(2)"]
    chapter.exercises(
        Number(
            f"""The network and its input stay as in the figure, and the target becomes $y$ = 2. The
            output remains {output:g}. Predict $\\partial\\ell/\\partial\\hat{{y}}$.""",
            (22,),
            "Twice the residual. The output is smaller than the target.",
            f"2 · ({output:g} − 2) = {_short(top)}.",
            answer=top,
            within=0.005,
        ),
        Setting(
            """Set the first step that computes the gradient of weights, with the numbering of the
            slider above.""",
            (24,),
            "The forward pass has three steps. The gradient of a weight requires an error term.",
            f"Step {step} of {len(STEPS) - 1}, “{STEPS[step][0]}”: the error term of the output "
            "unit, times the outputs of the hidden units.",
            label="step",
            names=[f"{i} of {len(STEPS) - 1}" for i in range(len(STEPS))],
            answers=[step],
        ),
        Line(
            "Complete the line, so that it computes the derivative for the weight $w_{12}^{(2)}$.",
            (24,),
            "The error term, times the activation that the weight multiplies.",
            "The weight $w_{12}^{(2)}$ multiplies the activation $a_2^{(1)}$.",
            function=weight_derivative,
            blank="a_2^(1)",
            correct=weight_derivative(trace) == float(trace["dl/dw_12^(2)"]),
        ),
    )
