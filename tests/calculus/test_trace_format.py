"""Images of arrays in a trace, cell by cell, as block characters and as SVG."""

from __future__ import annotations

import re

import numpy as np
import pytest

from chainrule.calculus.trace_format import svg_image, text_image


def test_a_vector_is_shown_as_bars() -> None:
    assert text_image(np.arange(8.0)) == ["▁▂▃▄▅▆▇█"]
    assert text_image(np.array([-2.0, 2.0, -2.0])) == ["▁█▁"]
    assert text_image(np.full(5, 3.0)) == ["▁▁▁▁▁"]


def test_a_matrix_is_shown_as_shades_of_its_magnitude() -> None:
    assert text_image(np.array([[0, 1e-6, 0.5, -1.0], [0.25, 0.3, 0.8, 0]])) == [
        "│ ░▒█│",
        "│░▒█ │",
    ]
    assert text_image(np.zeros((1, 3))) == ["│   │"]


def test_small_maps_have_two_characters_per_cell_and_are_side_by_side() -> None:
    maps = np.zeros((2, 2, 5))
    maps[0, 0, 0] = maps[1, 1, 1] = maps[0, 1, 3] = 1
    maps[..., 4] = 1  # a fifth map is not shown
    assert text_image(maps) == ["│██  │    │    │  ██│", "│    │  ██│    │    │"]
    batch = np.moveaxis(maps, 2, 0)[..., None]
    assert text_image(batch) == text_image(maps)


def test_downsampling_keeps_the_value_farthest_from_zero() -> None:
    """A single nonzero value is visible, for either sign."""
    for sign in (1, -1):
        image = np.zeros((160, 320, 1))
        image[25, 310] = sign
        lines = text_image(image)
        assert len(lines) == 8
        assert [line.count("█") for line in lines] == [0, 1, 0, 0, 0, 0, 0, 0]
        assert lines[1].index("█") == 1 + 15
        vector = np.zeros(1000)
        vector[999] = sign
        bars = text_image(vector)[0]
        assert len(bars) == 56
        assert bars[-1] == ("█" if sign > 0 else "▁") != bars[0]
        assert svg_image(image).count("<path") == 1
        color = "#0072b2" if sign > 0 else "#d55e00"
        assert f'fill="{color}"' in svg_image(image)


def cells(svg: str) -> dict[tuple[int, int], str]:
    """Return the color of each colored cell."""
    found = {}
    for color, runs in re.findall(r'<path fill="(#\w+)" d="([^"]*)"', svg):
        for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", runs):
            for k in range(int(width)):
                assert (int(x) + k, int(y)) not in found, "a cell is drawn twice"
                found[int(x) + k, int(y)] = color
        assert re.sub(r"M(\d+) (\d+)h(\d+)v1h-\3z", "", runs) == ""
    return found


def test_svg_has_one_cell_per_nonzero_value() -> None:
    value = np.array([[1.0, 1.0, 0.0, -1.0], [0.0, -0.4, 0.4, 0.01]])
    svg = svg_image(value)
    assert cells(svg) == {
        (0, 0): "#0072b2",
        (1, 0): "#0072b2",
        (3, 0): "#d55e00",
        (1, 1): "#eebf99",
        (2, 1): "#99c7e0",
    }
    assert 'viewBox="0 0 4 2"' in svg
    maps = np.zeros((3, 3, 2))
    maps[2, 0, 1] = 5
    # One empty cell separates the maps.
    assert cells(svg_image(maps)) == {(4, 2): "#0072b2"}


@pytest.mark.parametrize("shape", [(5,), (2, 3), (3, 4, 2), (2, 3, 4, 1), (2, 2, 2, 2, 2)])
@pytest.mark.parametrize("filling", [0.0, np.nan, np.inf])
def test_zeros_and_values_that_are_not_finite_give_an_empty_image(
    shape: tuple[int, ...], filling: float
) -> None:
    value = np.full(shape, filling)
    lines = text_image(value)
    assert len({len(line) for line in lines}) == 1
    assert not set("".join(lines)) - set(" │▁")
    assert cells(svg_image(value)) == {}
