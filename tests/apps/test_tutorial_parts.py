"""Parts of the tutorial page: equations, text markup, listings and frames."""

from __future__ import annotations

import html
import inspect
import re

import pytest

INSTALL = 'the tutorial requires: pip install "chainrule[cli]"'
for module in ("matplotlib", "latex2mathml", "pygments"):
    pytest.importorskip(module, reason=INSTALL)

from chainrule.tutorial import mathml  # noqa: E402
from chainrule.tutorial.listing import highlighted  # noqa: E402
from chainrule.tutorial.page import rich  # noqa: E402
from chainrule.tutorial.svg import frame, svg  # noqa: E402


def test_latex_without_mathml_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"^tutorial: LaTeX must be convertible to MathML, got"):
        mathml.inline(r"\nosuchcommand{x}")


def test_each_aligned_line_becomes_an_element() -> None:
    found = mathml.lines(r"\begin{aligned} a &= b \\ c &= d \end{aligned}")
    assert [re.sub(r"<[^>]*>|&#x0003D;", "", each) for each in found] == ["ab", "cd"]


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
