"""The results of ``funspeech eval`` as a PNG: at the left how many of the units are errors, at the
right which share of the clips was complete how soon after its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from app.cli.evaluate_figures import Column, Figures
from app.cli.png import GLYPH_HEIGHT, Picture, text_width

WIDTH: Final = 1000
HEIGHT: Final = 340
TOP: Final = 52
BOTTOM: Final = 34
PLOT_HEIGHT: Final = HEIGHT - TOP - BOTTOM
PLOT_WIDTH: Final = 400
LEFTS: Final = (76, 564)
"""Of the two plots."""

COLOURS: Final = (
    (255, 255, 255),
    (64, 64, 64),
    (225, 225, 225),
    (214, 39, 40),
    (240, 170, 30),
    (150, 90, 180),
    (44, 140, 60),
    (31, 119, 180),
)
_INK, _GRID, SUBSTITUTION, DELETION, INSERTION, _A, _B = range(1, len(COLOURS))
KINDS: Final = (
    ("substitutions", "replaced", SUBSTITUTION),
    ("deletions", "deleted", DELETION),
    ("insertions", "inserted", INSERTION),
)
"""Names in the figures, and in letters that the font has."""
LINES: Final = (_A, _B)
"""Of the first and the second configuration."""

_GAP: Final = 6
_LEGEND_TOP: Final = 28
_STEPS: Final = 5
"""At most so many lines of the grid."""
_LINE: Final = 2


def picture(found: Figures) -> bytes:
    """A PNG file."""
    canvas = Picture(WIDTH, HEIGHT, COLOURS)
    if found.labelled:
        _draw_errors(canvas, found)
    if any(column.latency_ms for column in found.columns):
        _draw_latencies(canvas, found.columns)
    return canvas.encoded()


def step(most: float) -> float:
    """A round distance of at most :data:`_STEPS` lines that reach ``most``."""
    least = max(most, 1e-9) / _STEPS
    decade = 10.0 ** math.floor(math.log10(least))
    return next(decade * each for each in (1, 2, 5, 10) if decade * each >= least * (1 - 1e-9))


def _draw_errors(canvas: Picture, found: Figures) -> None:
    left = LEFTS[0]
    rates = [100 * (column.errors.rate or 0.0) for column in found.columns]
    top = _draw_axes(canvas, left, max(rates), f"{found.measure} in percent")
    wide = PLOT_WIDTH // (2 * len(rates) + 1)
    for index, column in enumerate(found.columns):
        x, y, count = left + (2 * index + 1) * wide, TOP + PLOT_HEIGHT, 0
        for kind, _, colour in KINDS:
            count += int(getattr(column.errors, kind))
            height = round(100 * count / max(1, column.errors.units) / top * PLOT_HEIGHT)
            upper = TOP + PLOT_HEIGHT - height
            canvas.fill(x, upper, wide, y - upper, colour)
            y = upper
        _draw_centred(canvas, x + wide // 2, column.name)
    _draw_legend(canvas, left, [(name, colour) for _, name, colour in KINDS])


def _draw_latencies(canvas: Picture, columns: Sequence[Column]) -> None:
    left = LEFTS[1]
    most = max(column.latency_ms[-1] for column in columns if column.latency_ms)
    _draw_axes(canvas, left, 100, "clips completed within ms: percent")
    distance = step(most)
    top = distance * math.ceil(most / distance * (1 - 1e-9))
    for index in range(round(top / distance) + 1):
        x = left + round(index * distance / top * PLOT_WIDTH)
        canvas.fill(x, TOP + PLOT_HEIGHT, 1, _GAP, _INK)
        _draw_centred(canvas, x, _number(index * distance))
    for column, colour in zip(columns, LINES, strict=False):
        _draw_share(canvas, left, _share(column.latency_ms, top), colour)
    _draw_legend(
        canvas, left, [(each.name, line) for each, line in zip(columns, LINES, strict=False)]
    )


def _share(values: Sequence[float], top: float) -> Callable[[int], float]:
    """From a pixel of the axis to the share of the values that lie below it."""
    return lambda x: sum(each <= x / PLOT_WIDTH * top for each in values) / max(1, len(values))


def _draw_share(canvas: Picture, left: int, share: Callable[[int], float], colour: int) -> None:
    before = TOP + PLOT_HEIGHT
    for x in range(PLOT_WIDTH + 1):
        y = TOP + PLOT_HEIGHT - round(share(x) * PLOT_HEIGHT)
        canvas.fill(left + x, y, _LINE, before - y + _LINE, colour)
        before = y


def _draw_axes(canvas: Picture, left: int, most: float, title: str) -> float:
    """The grid of a plot whose values reach ``most``; returns the value at its top."""
    distance = step(most)
    top = distance * max(1, math.ceil(most / distance * (1 - 1e-9)))
    for index in range(round(top / distance) + 1):
        y = TOP + PLOT_HEIGHT - round(index * distance / top * PLOT_HEIGHT)
        label = _number(index * distance)
        canvas.fill(left, y, PLOT_WIDTH, 1, _GRID if index else _INK)
        canvas.write(left - _GAP - text_width(label), y - GLYPH_HEIGHT // 2, label, _INK)
    canvas.fill(left - 1, TOP, 1, PLOT_HEIGHT + 1, _INK)
    canvas.write(left, _GAP, title, _INK)
    return top


def _number(value: float) -> str:
    """Never as a power of ten."""
    text = f"{value:.6f}"
    return text.rstrip("0").rstrip(".")


def _draw_centred(canvas: Picture, x: int, text: str) -> None:
    at = min(x - text_width(text) // 2, WIDTH - text_width(text))
    canvas.write(at, TOP + PLOT_HEIGHT + _GAP + 4, text, _INK)


def _draw_legend(canvas: Picture, left: int, names: Sequence[tuple[str, int]]) -> None:
    for name, colour in names:
        canvas.fill(left, _LEGEND_TOP, GLYPH_HEIGHT, GLYPH_HEIGHT, colour)
        left += GLYPH_HEIGHT + _GAP
        canvas.write(left, _LEGEND_TOP, name, _INK)
        left += text_width(name) + 2 * _GAP
