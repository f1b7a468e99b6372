"""Pictures of arrays: what is seen in them, cell by cell, as characters and as SVG."""

from __future__ import annotations

import re

import numpy as np
import pytest

from chainrule.calculus.thumbnails import svg_picture, text_picture


def test_a_vector_is_bars() -> None:
    assert text_picture(np.arange(8.0)) == ["▁▂▃▄▅▆▇█"]
    assert text_picture(np.array([-2.0, 2.0, -2.0])) == ["▁█▁"]
    assert text_picture(np.full(5, 3.0)) == ["▁▁▁▁▁"]


def test_a_matrix_is_shades_of_its_magnitude() -> None:
    assert text_picture(np.array([[0, 1e-6, 0.5, -1.0], [0.25, 0.3, 0.8, 0]])) == [
        "│ ░▒█│",
        "│░▒█ │",
    ]
    assert text_picture(np.zeros((1, 3))) == ["│   │"]


def test_small_maps_are_wide_and_lie_side_by_side() -> None:
    maps = np.zeros((2, 2, 5))
    maps[0, 0, 0] = maps[1, 1, 1] = maps[0, 1, 3] = 1
    maps[..., 4] = 1  # a fifth map is not drawn
    assert text_picture(maps) == ["│██  │    │    │  ██│", "│    │  ██│    │    │"]
    batch = np.moveaxis(maps, 2, 0)[..., None]
    assert text_picture(batch) == text_picture(maps)


def test_large_arrays_keep_what_is_farthest_from_zero() -> None:
    """One value in a desert shows, whether it is positive or negative."""
    for sign in (1, -1):
        image = np.zeros((160, 320, 1))
        image[25, 310] = sign
        lines = text_picture(image)
        assert len(lines) == 8
        assert [line.count("█") for line in lines] == [0, 1, 0, 0, 0, 0, 0, 0]
        assert lines[1].index("█") == 1 + 15
        vector = np.zeros(1000)
        vector[999] = sign
        bars = text_picture(vector)[0]
        assert len(bars) == 56
        assert bars[-1] == ("█" if sign > 0 else "▁") != bars[0]
        assert svg_picture(image).count("<path") == 1
        colour = "#0072b2" if sign > 0 else "#d55e00"
        assert f'fill="{colour}"' in svg_picture(image)


def cells(svg: str) -> dict[tuple[int, int], str]:
    """The colour of each cell that is drawn."""
    found = {}
    for colour, runs in re.findall(r'<path fill="(#\w+)" d="([^"]*)"', svg):
        for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", runs):
            for k in range(int(width)):
                assert (int(x) + k, int(y)) not in found, "drawn twice"
                found[int(x) + k, int(y)] = colour
        assert re.sub(r"M(\d+) (\d+)h(\d+)v1h-\3z", "", runs) == ""
    return found


def test_svg_has_a_cell_for_each_value_that_is_not_zero() -> None:
    value = np.array([[1.0, 1.0, 0.0, -1.0], [0.0, -0.4, 0.4, 0.01]])
    svg = svg_picture(value)
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
    # The second map begins one cell behind the first.
    assert cells(svg_picture(maps)) == {(4, 2): "#0072b2"}


@pytest.mark.parametrize("shape", [(5,), (2, 3), (3, 4, 2), (2, 3, 4, 1), (2, 2, 2, 2, 2)])
@pytest.mark.parametrize("filling", [0.0, np.nan, np.inf])
def test_nothing_and_worse_can_be_drawn(shape: tuple[int, ...], filling: float) -> None:
    value = np.full(shape, filling)
    lines = text_picture(value)
    assert len({len(line) for line in lines}) == 1
    assert not set("".join(lines)) - set(" │▁")
    assert cells(svg_picture(value)) == {}
