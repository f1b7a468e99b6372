"""Chapter 3: the network of three units, forward and back; eq. (14)-(27)."""

from __future__ import annotations

from typing import Any

import numpy as np

import chainrule as cr

from ..plots.style import BLUE, FAINT, GREY, INK, ORANGE, PAPER, new_figure
from .page import Chapter, Panel, Slider
from .svg import LAST, frame

X, Y = (1.0, 2.0), (1.0,)
RATE = 0.1

# The slider's positions: a name, and what is computed there.
STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("given", ()),
    ("forward: layer 1", ("z^(1)", "a^(1)")),
    ("forward: layer 2", ("z^(2)", "y_hat")),
    ("forward: the loss", ("l",)),
    ("back, step 1", ("dl/dy_hat",)),
    ("back, step 2", ("delta^(2)",)),
    ("back, step 3", ("dl/dW^(2)",)),
    ("back, step 4", ("dl/da^(1)",)),
    ("back, step 5", ("delta^(1)",)),
    ("back, step 6", ("dl/dW^(1)",)),
)
WHEN = {name: index for index, (_, names) in enumerate(STEPS) for name in names}


def watch(x: tuple[float, ...], y: tuple[float, ...]) -> cr.calculus.Trace:
    network = cr.examples.three_unit_network()
    return cr.calculus.trace(network, np.array(x), np.array(y), cr.SquaredError())


def step(x: tuple[float, ...], y: tuple[float, ...], rate: float) -> tuple[float, float]:
    network = cr.examples.three_unit_network()
    loss = cr.SquaredError()
    before, _ = network.loss_and_gradient(np.array([x]), np.array([y]), loss)
    network.parameter_vector -= rate * network.gradient_vector
    after, _ = network.loss_and_gradient(np.array([x]), np.array([y]), loss)
    return before, after


def write(chapter: Chapter, quick: bool) -> None:
    """Fill the chapter."""
    del quick  # A moment is no time.
    chapter.prose(
        """
        Neurons that feed neurons make a network. Before anything can be said about it, everything
        in it needs a name. Layers are counted from the bottom, the input being layer 0, and in each
        layer position 0 is the constant 1 that carries the biases:
        """
    )
    chapter.equations(14, 15, 16)
    chapter.prose(
        """
        The smallest network with everything in it has three of these units and nine weights: two
        units read the input, one reads the two.
        """
    )
    chapter.equations(17, 18, 19, 20)
    chapter.prose(
        """
        **Backpropagation** goes down the same stairs. It carries one quantity from unit to unit,
        the *error term*: how the loss answers to that unit's sum.
        """
    )
    chapter.equations(21)
    chapter.prose(
        """
        Six steps, each a product of what is known already with one local derivative. Nothing is
        ever differentiated twice:
        """
    )
    chapter.equations(22, 23, 24, 25, 26, 27)
    _steps(chapter)
    _whole(chapter)


def _steps(chapter: Chapter) -> None:
    trace = watch(X, Y)
    figure = new_figure(*SIZE)
    figure.set_layout_engine("none")
    _draw(figure.add_axes((0, 0, 1, 1)), trace)
    told = []
    for name, keys in STEPS:
        lines = [f"**{name[0].upper()}{name[1:]}**"]
        if not keys:
            lines.append(f"The instance $x$ = {_pair(X)}, its target $y$ = {Y[0]:g}, nine weights.")
        for key in keys:
            entry = trace.entry(key)
            for symbol, value, formula in entry.elements():
                line = f"{symbol.latex} = {formula.latex} = {_plain(value)}"
                lines.append(f"${line}$ {entry.equation}")
        told.append("\n".join(lines))
    chapter.figure(
        "three-units",
        Panel(
            figure,
            "The network with two inputs, two hidden units and one output. At each position of "
            "the slider the values computed there appear: outputs at the units going forward, "
            "error terms at the units and gradients at the weights going back.",
        ),
        caption="""The nine weights stand on their edges. Step through: going forward, each unit
        gets its sum $z$ and its output $a$; going back, each unit gets its error term $\\delta$ and
        each edge its gradient.""",
        code=(watch,),
        call=f"print(watch(x={X}, y={Y}))",
        slider=Slider(
            "step", [f"{i} of {len(STEPS) - 1}" for i in range(len(STEPS))], 0, len(STEPS) - 1
        ),
        told=told,
    )


def _plain(value: float) -> str:
    # In braces a minus is a sign, not a subtraction, and stands close to its number.
    return f"{{{value:.6g}}}"


def _pair(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"


# In inches; no wider, so that writing stays legible on a phone.
SIZE = (4.9, 4.5)
INPUTS = ((0.45, 3.85), (0.45, 2.25), (0.45, 0.65))
HIDDEN = ((2.4, 4.05), (2.4, 2.8), (2.4, 1.0))
OUTPUT = (3.95, 2.1)
RADIUS = 0.36
# The middle of what is written above the output unit.
ABOVE = OUTPUT[0] + 0.42


def _draw(ax: Any, trace: cr.calculus.Trace) -> None:
    """Draw the network, and at each step what it adds."""
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
    for text, place in zip(("1", f"x₁\n{X[0]:g}", f"x₂\n{X[1]:g}"), INPUTS, strict=True):
        _unit(ax, place, text, GREY)
    _unit(ax, HIDDEN[0], "1", GREY)
    for i, place in enumerate(HIDDEN[1:], 1):
        _unit(ax, place, "", INK)
        _values(
            ax,
            trace,
            place,
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
        arrowprops={"arrowstyle": "-|>", "color": GREY},
    )
    ax.text(ABOVE, OUTPUT[1] + 0.98, f"y = {Y[0]:g}", ha="center", fontsize=10, color=INK)
    loss = f"ℓ = {_short(trace['l'])}"
    ax.text(
        ABOVE,
        OUTPUT[1] + 0.72,
        loss,
        ha="center",
        fontsize=10,
        color=BLUE,
        weight="bold",
        gid=frame(WHEN["l"], LAST),
    )
    top = f"∂ℓ/∂ŷ = {_short(trace['dl/dy_hat'])}"
    ax.text(
        ABOVE,
        OUTPUT[1] + 0.46,
        top,
        ha="center",
        fontsize=9.5,
        color=ORANGE,
        gid=frame(WHEN["dl/dy_hat"], LAST),
    )


def _short(value: Any) -> str:
    return f"{float(np.asarray(value).ravel()[0]):.4g}".replace("-", "−")


def _unit(ax: Any, place: tuple[float, float], text: str, colour: str) -> None:
    from matplotlib.patches import Circle

    ax.add_patch(Circle(place, RADIUS, facecolor=PAPER, edgecolor=colour, linewidth=1.4, zorder=3))
    ax.text(*place, text, ha="center", va="center", fontsize=10, color=INK, zorder=4)


def _values(
    ax: Any,
    trace: cr.calculus.Trace,
    place: tuple[float, float],
    z: tuple[str, str, str],
    a: tuple[str, str, str],
    delta: tuple[str, str],
) -> None:
    """Write a unit's sum, output and error term, each from its step on, bright in its step."""
    from matplotlib.patches import Circle

    for (key, element, name), up in ((z, 0.13), (a, -0.13)):
        ax.text(
            place[0],
            place[1] + up,
            f"{name} {_short(trace[element])}",
            ha="center",
            va="center",
            fontsize=8.6,
            color=INK,
            zorder=5,
            gid=frame(WHEN[key], LAST),
        )
        ax.add_patch(
            Circle(
                place,
                RADIUS,
                facecolor="none",
                edgecolor=BLUE,
                linewidth=3,
                zorder=4,
                gid=frame(WHEN[key]),
            )
        )
    key, element = delta
    ax.text(
        place[0],
        place[1] - RADIUS - 0.17,
        f"δ = {_short(trace[element])}",
        ha="center",
        va="center",
        fontsize=9.5,
        color=ORANGE,
        weight="bold",
        zorder=5,
        gid=frame(WHEN[key], LAST),
    )
    ax.add_patch(
        Circle(
            place,
            RADIUS,
            facecolor="none",
            edgecolor=ORANGE,
            linewidth=3,
            zorder=4,
            gid=frame(WHEN[key]),
        )
    )


def _edge(
    ax: Any,
    trace: cr.calculus.Trace,
    layer: int,
    start: tuple[float, float],
    end: tuple[float, float],
    i: int,
    j: int,
) -> None:
    across = [start[0], end[0]], [start[1], end[1]]
    ax.plot(*across, color=FAINT, linewidth=1.6, zorder=1)
    forward = WHEN["z^(1)" if layer == 1 else "z^(2)"]
    ax.plot(*across, color=BLUE, linewidth=2, zorder=1, gid=frame(forward))
    back = WHEN[f"dl/dW^({layer})"]
    ax.plot(*across, color=ORANGE, linewidth=2, zorder=1, gid=frame(back))
    if layer == 2 and j > 0:
        ax.plot(*across, color=ORANGE, linewidth=2, zorder=1, gid=frame(WHEN["dl/da^(1)"]))
    # Where crossing edges leave room for their numbers.
    share = 0.5 if layer == 2 else 0.6 if i == 1 else 0.3
    place = [start[k] + share * (end[k] - start[k]) for k in (0, 1)]
    box = {"boxstyle": "round,pad=0.12", "facecolor": PAPER, "edgecolor": "none"}
    weight = _short(trace[f"w_{i}{j}^({layer})"])
    gradient = _short(trace[f"dl/dw_{i}{j}^({layer})"])
    ax.text(*place, weight, ha="center", va="center", fontsize=9, color=INK, bbox=box, zorder=2)
    ax.text(
        place[0],
        place[1] - 0.19,
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


def _whole(chapter: Chapter) -> None:
    chapter.heading("The whole trace")
    trace = watch(X, Y)
    before, after = step(X, Y, RATE)
    chapter.prose(
        f"""
        The same as one table, as a notebook shows it. One step along this gradient, eq. (6) with
        $\\eta$ = {RATE:g}, takes the loss from {before:.4f} to {after:.4f}.
        """
    )
    chapter.trace(trace)
    x, y = np.array([X]), np.array([Y])
    report = cr.calculus.check_gradient(cr.examples.three_unit_network(), x, y, cr.SquaredError())
    chapter.prose(
        """
        How do we know that the six steps are right? By asking the loss itself: turn each weight a
        little up and a little down, and see by how much the loss differs.
        `cr.calculus.check_gradient` does so in double precision:
        """
    )
    chapter.printed(str(report))
