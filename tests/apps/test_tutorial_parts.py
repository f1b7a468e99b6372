"""Parts of the tutorial page: equations, markup, exercises, colors, frames, and the command."""

from __future__ import annotations

import base64
import html
import inspect
import io
import re
from pathlib import Path

import numpy as np
import pytest

from chainrule.cli import main

INSTALL = 'the tutorial requires: pip install "chainrule[cli]"'
for module in ("click", "matplotlib", "latex2mathml", "pygments"):
    pytest.importorskip(module, reason=INSTALL)

from chainrule.plots.style import BLUE, ORANGE, rgb  # noqa: E402
from chainrule.tutorial import mathml  # noqa: E402
from chainrule.tutorial.ch7_practice import (  # noqa: E402
    COUNT,
    QUICK_EPOCHS,
    loss_turn,
    overfit,
)
from chainrule.tutorial.exercises import Line, Setting  # noqa: E402
from chainrule.tutorial.heatmap import matrix_figure  # noqa: E402
from chainrule.tutorial.listing import highlighted  # noqa: E402
from chainrule.tutorial.markup import rich  # noqa: E402
from chainrule.tutorial.svg import (  # noqa: E402
    INKS,
    dark_filter,
    frame,
    on_paper,
    page_color,
    svg,
)


def test_latex_without_mathml_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"^tutorial: LaTeX must be convertible to MathML, got"):
        mathml.inline(r"\nosuchcommand{x}")


def test_each_aligned_line_becomes_an_element() -> None:
    found = mathml.lines(r"\begin{aligned} a &= b \\ c &= d \end{aligned}")
    assert [re.sub(r"<[^>]*>|&#x0003D;", "", each) for each in found] == ["ab", "cd"]


def test_a_long_line_can_break_before_a_relation_or_a_sum() -> None:
    (line,) = mathml.lines(r"f(a = b) = \sum_{i=1}^n x_i + \left( u + v \right), \quad i \in D")
    texts = [re.sub(r"<[^>]*>", "", part) for part in line.split("</math>")]
    texts = [html.unescape(text).replace("\u2003", "") for text in texts]
    assert texts == ["f(a=b)", "=∑i=1nxi", "+(u+v),", "i", "∈D", ""]
    # An operator at the start of a part has the spacing of an operator between operands.
    assert line.count('<mo form="infix">') == 3


def test_rich_text() -> None:
    assert rich("*a* **b** `c < d` (37)") == (
        '<em>a</em> <strong>b</strong> <code>c &lt; d</code> <a href="#eq-37">(37)</a>'
    )
    assert rich("$x$").startswith("<math")


def test_highlighting_preserves_the_source() -> None:
    source = inspect.getsource(mathml)
    shown = highlighted(source)
    assert html.unescape(re.sub(r"<[^>]*>", "", shown)) == source.rstrip()
    assert '<span class="k">def</span>' in shown
    assert highlighted('f"{x} b" # c') == (
        '<span class="s">f"{</span>x<span class="s">} b"</span> <span class="c"># c</span>'
    )


def double(x: int) -> int:
    y = x * 2
    return y


def test_a_line_exercise_is_the_first_line_of_its_function() -> None:
    def line(blank: str, correct: bool = True) -> Line:
        return Line("?", (6,), "", "", double, blank, correct)

    assert line("*").parts() == ("y = x ", " 2")
    assert line("*").check() == {"kind": "line", "answers": ["*"]}
    for wrong in (line("+"), line(" "), line("*", double(3) == 5)):
        with pytest.raises(RuntimeError, match=r"once and be correct, got 'y = x \* 2'$"):
            wrong.parts()


def test_a_setting_has_right_and_wrong_positions() -> None:
    for answers in ((), (0, 1), (2,)):
        with pytest.raises(ValueError, match="must be right and some wrong"):
            Setting("?", (6,), "", "", "η", ("a", "b"), answers).controls("x")
    assert 'value="1"' in Setting("?", (6,), "", "", "η", ("a", "b"), (0,)).controls("x")


def test_colors_on_white_paper_become_inks() -> None:
    """Each color equals its inks at their opacities over white."""
    palette = np.array([rgb(ink) for ink in INKS])
    colors = [*palette, (255, 255, 255), 0.3 * palette[1] + 0.7 * 255, (200, 200, 200)]
    colors += [0.2 * palette[0] + 0.1 * palette[3] + 0.7 * 255]
    weights = on_paper(np.array(colors))
    assert (weights >= 0).all()
    assert (weights.sum(axis=1) <= 1.0 + 1e-9).all()
    mixed = weights @ palette + 255.0 * (1.0 - weights.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(mixed, colors, atol=2.0)
    assert page_color("#ffffff") == "fill: var(--paper)"
    assert page_color(BLUE) == "fill: var(--blue)"
    assert re.fullmatch(
        r"stroke: var\(--ink\); stroke-opacity: 0\.\d+", page_color("#c8c8c8", "stroke")
    )


def test_dark_filter_converts_each_ink() -> None:
    dark = {"blue": "#5cb6f2", "orange": "#ff9e57", "green": "#45d0a4", "ink": "#e8e6e1"}
    matrix = np.array([float(each) for each in dark_filter(dark).split()]).reshape(4, 5)
    for ink, name in zip(INKS, ("blue", "orange", "green", "ink"), strict=True):
        for opacity in (0.25, 1.0):
            color = np.array([*rgb(ink), 255.0 * opacity, 255.0]) / 255.0
            expected = np.array([*rgb(dark[name]), 255.0 * opacity]) / 255.0
            np.testing.assert_allclose(matrix @ color, expected, atol=1e-3)


def test_images_of_a_figure_are_transparent() -> None:
    figure = matrix_figure(np.array([[0.0, 1.0], [-1.0, 0.0]]))
    found = svg(figure, "x", "A matrix")
    data = re.search(r"data:image/png;base64,([A-Za-z0-9+/=]+)", found)
    assert data
    image = pytest.importorskip("PIL.Image")
    pixels = np.asarray(image.open(io.BytesIO(base64.b64decode(data[1]))))
    assert sorted({tuple(each) for each in pixels.reshape(-1, 4).tolist()}) == sorted(
        [(*rgb(BLUE), 255), (*rgb(ORANGE), 255), tuple(pixels[0, 0].tolist())]
    )
    assert pixels[0, 0, 3] < 16


def test_text_on_overfitting_is_that_of_the_curves() -> None:
    """The quick run shows that the validation loss increases, and the text says what was found."""
    _, history = overfit(COUNT, 0.0, 0.0, QUICK_EPOCHS)
    losses = [epoch.validation_loss or 0.0 for epoch in history.epochs]
    best = int(np.argmin(losses))
    assert losses[-1] > 1.02 * losses[best]
    assert loss_turn(history) == (
        f"The validation loss falls to {losses[best]:.3f} in epoch {best + 1}, and increases to "
        f"{losses[-1]:.3f} at the end."
    )
    del history.epochs[best + 1 :]
    assert "does not increase" in loss_turn(history)


def test_frames_of_a_figure() -> None:
    from chainrule.plots.style import BLUE, new_figure

    def draw() -> str:
        figure = new_figure(3, 2)
        ax = figure.subplots()
        ax.plot([0, 1], color=BLUE, gid=frame(0))
        ax.plot([1, 0], color=BLUE, gid=frame(1, 3))
        return svg(figure, "x", "Two lines", start=2)

    found = draw()
    assert 'class="frame" data-from="0" data-to="0"' in found
    assert 'class="frame on" data-from="1" data-to="3"' in found
    assert "var(--blue)" in found
    assert 'aria-label="Two lines"' in found
    assert all(each.startswith("x-") for each in re.findall(r'\bid="([^"]*)"', found))
    assert found == draw()


# The command


def test_command_rejects_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tutorial", "--quick", "--out", str(tmp_path)]) == 2
    assert "path must be a regular file, got a folder" in capsys.readouterr().err


def test_command_without_its_extra_names_the_install_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "latex2mathml", None)
    assert main(["tutorial", "--out", str(tmp_path / "x.html")]) == 1
    assert 'pip install "chainrule[cli]"' in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()
