"""The results of ``funspeech eval`` as lines of characters: ASCII, readable without colour."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from rich.text import Text

from app.cli.evaluate_figures import Column, Figures, percentile

_KINDS: Final = (
    ("S", "substitutions", "red"),
    ("D", "deletions", "yellow"),
    ("I", "insertions", "magenta"),
)
_BOX: Final = (1, 25, 50, 75, 99)
_MIN_COLUMNS: Final = 20
_MARGIN: Final = 4


def chart(found: Figures, width: int) -> list[Text]:
    """At most ``width`` characters wide, but never less than some 20: the errors of each
    configuration by their kinds, and its latencies."""
    room = max(_MIN_COLUMNS, width - _MARGIN)
    lines: list[Text] = []
    if found.labelled and any(column.errors.count for column in found.columns):
        lines += _errors(found, room)
    if any(column.latency_ms for column in found.columns):
        lines += _latencies(found.columns, room)
    return lines


def _errors(found: Figures, room: int) -> list[Text]:
    most = max(column.errors.count for column in found.columns)
    lines = [Text(f"errors, {most} fill the line")]
    for column in found.columns:
        line = Text(f"{column.name:>{_MARGIN - 2}} |")
        end = 0
        for mark, kind, style in _KINDS:
            # Rounded at the ends of the parts, so that they fill the whole.
            start, end = end, end + int(getattr(column.errors, kind))
            line.append(mark * (end * room // most - start * room // most), style)
        lines.append(line)
    legend = Text(" " * _MARGIN)
    for mark, kind, style in _KINDS:
        legend.append(mark, style).append(f" {kind}   ")
    legend.rstrip()
    return [*lines, legend]


def _latencies(columns: Sequence[Column], room: int) -> list[Text]:
    boxes = [[percentile(column.latency_ms, each) for each in _BOX] for column in columns]
    most = max((value for box in boxes for value in box if value is not None), default=0.0)
    lines = [Text(f"latency, 0 to {most:.0f} ms")]
    for column, box in zip(columns, boxes, strict=True):
        line = Text(f"{column.name:>{_MARGIN - 2}} |")
        line.append(_box([each for each in box if each is not None], most, room), "green")
        lines.append(line)
    lines.append(
        Text(f"{' ' * _MARGIN}- p{_BOX[0]} to p{_BOX[-1]}   = p{_BOX[1]} to p{_BOX[3]}   # median")
    )
    return lines


def _box(percentiles: Sequence[float], most: float, room: int) -> str:
    """A box plot on its side."""
    places = [int(max(0.0, each) / most * (room - 1)) if most > 0 else 0 for each in percentiles]
    if not places:
        return ""
    marks = [" "] * room
    for (start, end), mark in zip(pairwise(places), "-==-", strict=True):
        marks[start : end + 1] = mark * (end + 1 - start)
    for place in places[1:4]:
        marks[place] = "="
    marks[places[2]] = "#"
    return "".join(marks).rstrip()
