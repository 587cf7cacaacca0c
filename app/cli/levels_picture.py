"""The level of a recording as a PNG: RMS on a logarithmic axis, over time."""

from __future__ import annotations

import math
from typing import Final

from app.audio.gate import BLOCK_MS
from app.audio.levels import Levels, Verdict
from app.audio.threshold import exactly
from app.cli.png import GLYPH_HEIGHT, Picture, text_width
from app.cli.time_axis import ticks

WIDTH: Final = 1000
HEIGHT: Final = 340
LEFT: Final = 76
RIGHT: Final = 12
TOP: Final = 34
BOTTOM: Final = 34
PLOT_WIDTH: Final = WIDTH - LEFT - RIGHT
PLOT_HEIGHT: Final = HEIGHT - TOP - BOTTOM

HIGHEST: Final = 1.0
_DECADES: Final = 4
"""Shown below full scale; more if the threshold is lower still."""
_MOST_DECADES: Final = 6
"""One sample of the smallest step in a block of 16 bits is nearly there; and there is no room for
longer numbers."""

COLOURS: Final = (
    (255, 255, 255),
    (64, 64, 64),
    (225, 225, 225),
    (214, 39, 40),
    (44, 140, 60),
    (240, 170, 30),
    (150, 160, 175),
)
_INK, _GRID, THRESHOLD, _OPEN, _HELD, _GATED = range(1, len(COLOURS))
BARS: Final = {Verdict.OPEN: _OPEN, Verdict.HELD: _HELD, Verdict.GATED: _GATED}

_TICK_PIXELS: Final = 90
_GAP: Final = 6


def picture(levels: Levels) -> bytes:
    """A PNG file."""
    canvas = Picture(WIDTH, HEIGHT, COLOURS)
    decades = _decades(levels.threshold)
    _draw_levels(canvas, decades)
    each, columns = levels.columns(PLOT_WIDTH)
    wide = PLOT_WIDTH // len(columns)
    for index, column in enumerate(columns):
        top = _y(column.rms, decades)
        canvas.fill(LEFT + index * wide, top, wide, TOP + PLOT_HEIGHT - top, BARS[column.verdict])
    _draw_times(canvas, levels.seconds, wide * 1000 / (BLOCK_MS * each))
    if levels.threshold > 0:
        canvas.fill(LEFT, _y(levels.threshold, decades), PLOT_WIDTH, 1, THRESHOLD)
    _draw_legend(canvas, levels.threshold)
    return canvas.encoded()


def _decades(threshold: float) -> int:
    if threshold <= 0:
        return _DECADES
    return min(_MOST_DECADES, max(_DECADES, math.ceil(-math.log10(threshold)) + 1))


def _y(rms: float, decades: int) -> int:
    """The height of a level on the canvas, within the plot."""
    below = -math.log10(max(rms, 10.0**-decades) / HIGHEST)
    return TOP + min(PLOT_HEIGHT, round(below / decades * PLOT_HEIGHT))


def _draw_levels(canvas: Picture, decades: int) -> None:
    for decade in range(decades + 1):
        y = TOP + round(decade / decades * PLOT_HEIGHT)
        label = f"{10.0**-decade:.{decade}f}"
        canvas.fill(LEFT, y, PLOT_WIDTH, 1, _GRID if decade < decades else _INK)
        canvas.write(LEFT - _GAP - text_width(label), y - GLYPH_HEIGHT // 2, label, _INK)
    canvas.fill(LEFT - 1, TOP, 1, PLOT_HEIGHT + 1, _INK)


def _draw_times(canvas: Picture, seconds: float, pixels_per_second: float) -> None:
    bottom = TOP + PLOT_HEIGHT
    most = max(1, int(seconds * pixels_per_second) // _TICK_PIXELS)
    for at, label in ticks(seconds, most):
        x = LEFT + round(at * pixels_per_second)
        if x > LEFT + PLOT_WIDTH:
            break
        canvas.fill(x, bottom, 1, _GAP, _INK)
        left = max(0, min(x - text_width(label) // 2, WIDTH - text_width(label)))
        canvas.write(left, bottom + _GAP + 4, label, _INK)


def _draw_legend(canvas: Picture, threshold: float) -> None:
    left = LEFT
    canvas.write(left, _GAP + 4, "RMS", _INK)
    left += text_width("RMS") + 4 * _GAP
    names = [("open", _OPEN), ("held", _HELD), ("gated", _GATED)]
    for name, colour in [*names, (f"threshold {exactly(threshold)}", THRESHOLD)]:
        canvas.fill(left, _GAP + 4, GLYPH_HEIGHT, GLYPH_HEIGHT, colour)
        left += GLYPH_HEIGHT + _GAP
        canvas.write(left, _GAP + 4, name, _INK)
        left += text_width(name) + 4 * _GAP
