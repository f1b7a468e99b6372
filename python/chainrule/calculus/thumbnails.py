"""Small pictures of arrays: in block characters for a terminal, in SVG for a page."""

from __future__ import annotations

import numpy as np

from .._types import Array

SHADES = " ░▒▓█"
BARS = "▁▂▃▄▅▆▇█"
# Cells of a picture, for each of the first maps of an image, for a matrix, and for a vector.
MAPS = 4
MAP_TEXT, MATRIX_TEXT, VECTOR_TEXT = (8, 16), (8, 56), (1, 56)
MAP_SVG, MATRIX_SVG, VECTOR_SVG = (28, 28), (24, 72), (1, 96)
# Okabe and Ito's blue above 0 and orange below, as in `plots`: told apart with every common colour
# blindness.
BLUE, ORANGE = (0, 114, 178), (213, 94, 0)
LEVELS = 5
# Pixels on the page: a cell's side, larger where that still gives a small picture.
CELLS, SMALL = (4, 14), 140


def _tiles(value: Array) -> list[Array]:
    """What of an array is drawn: a row, a matrix, or the first maps of an image."""
    if value.ndim <= 2:
        return [np.atleast_2d(value)]
    if value.ndim == 3:
        return [value[:, :, k] for k in range(min(MAPS, value.shape[2]))]
    if value.ndim == 4:
        return [value[k, :, :, 0] for k in range(min(MAPS, value.shape[0]))]
    return [value.reshape(len(value), -1)]


def _blocks(tile: Array, most: tuple[int, int]) -> Array:
    """The tile in at most so many cells; of several values the one farthest from 0."""
    for axis, cells in enumerate(most):
        size = tile.shape[axis]
        if size > cells:
            starts = np.arange(cells) * size // cells
            low = np.minimum.reduceat(tile, starts, axis=axis)
            high = np.maximum.reduceat(tile, starts, axis=axis)
            tile = np.where(high >= -low, high, low)
    return tile


def _drawn(value: Array, sizes: tuple[tuple[int, int], ...]) -> tuple[list[Array], float]:
    """The tiles in cells, and the largest finite magnitude in them."""
    vector, matrix, maps = sizes
    most = vector if value.ndim < 2 else matrix if value.ndim == 2 else maps
    tiles = [_blocks(tile, most) for tile in _tiles(np.where(np.isfinite(value), value, 0))]
    return tiles, max(float(np.abs(tile).max(initial=0)) for tile in tiles)


def text_picture(value: Array) -> list[str]:
    """Return lines of characters: a vector as bars from its least to its largest element, anything
    else in shades of its absolute values. Of an image the first maps."""
    tiles, largest = _drawn(value, (VECTOR_TEXT, MATRIX_TEXT, MAP_TEXT))
    if value.ndim < 2:
        row = tiles[0][0]
        low, span = row.min(), row.max() - row.min()
        heights = (row - low) / span if span else np.zeros(len(row))
        return ["".join(BARS[min(int(h * len(BARS)), len(BARS) - 1)] for h in heights)]
    lines = []
    for i in range(tiles[0].shape[0]):
        pieces = []
        for tile in tiles:
            # The smallest value that is not 0 already shows.
            shades = np.ceil(np.abs(tile[i]) / (largest or 1) * (len(SHADES) - 1)).astype(int)
            wide = 2 if value.ndim > 2 and 2 * tile.shape[1] <= MAP_TEXT[1] else 1
            pieces.append("".join(SHADES[shade] * wide for shade in shades))
        lines.append("│" + "│".join(pieces) + "│")
    return lines


def svg_picture(value: Array) -> str:
    """Return an inline SVG: white is 0, blue above, orange below, darker farther off."""
    tiles, largest = _drawn(value, (VECTOR_SVG, MATRIX_SVG, MAP_SVG))
    paths: dict[int, list[str]] = {}
    left = 0
    for tile in tiles:
        levels = np.rint(tile / (largest or 1) * LEVELS).astype(int)
        for i, row in enumerate(levels):
            # Runs of one colour are one rectangle.
            ends = np.flatnonzero(np.diff(row, append=row[-1] + 1)) + 1
            for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
                if row[start]:
                    run = f"M{left + start} {i}h{end - start}v1h{start - end}z"
                    paths.setdefault(int(row[start]), []).append(run)
        left += tile.shape[1] + 1
    width, height = left - 1, tiles[0].shape[0]
    body = "".join(
        f'<path fill="{_colour(level)}" d="{"".join(runs)}"/>' for level, runs in paths.items()
    )
    frames = "".join(
        f'<rect x="{k * (tiles[0].shape[1] + 1)}" width="{tile.shape[1]}" height="{height}" '
        'fill="#fff" stroke="#ddd" stroke-width=".25"/>'
        for k, tile in enumerate(tiles)
    )
    cell = min(CELLS[1], max(CELLS[0], SMALL // width))
    high = max(CELLS[1], cell * height)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{cell * width}" height="{high}" '
        'preserveAspectRatio="none" shape-rendering="crispEdges" role="img">'
        f"{frames}{body}</svg>"
    )


def _colour(level: int) -> str:
    share = abs(level) / LEVELS
    colour = BLUE if level > 0 else ORANGE
    return "#" + "".join(f"{round(255 + share * (part - 255)):02x}" for part in colour)
