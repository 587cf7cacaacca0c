"""The level of a recording as lines of characters: readable without colour, and in ASCII."""

from __future__ import annotations

import math
from typing import Final

from rich.text import Text

from app.audio.gate import BLOCK_MS
from app.audio.levels import Column, Levels, Verdict
from app.audio.threshold import exactly, rounded
from app.cli.time_axis import ticks

MARKS: Final = {Verdict.OPEN: "#", Verdict.HELD: "+", Verdict.GATED: "."}
LINE: Final = "-"

_STYLES: Final = {"#": "green", "+": "yellow", ".": "dim", LINE: "red"}
_ROW_FACTOR: Final = 10**0.2
"""From one row to the next: 4 dB."""
_ROWS_BELOW: Final = 5
_LABEL_WIDTH: Final = 9
_MIN_COLUMNS: Final = 20
_TICK_COLUMNS: Final = 12
_NO_THRESHOLD: Final = 0.01
"""What the rows are counted from where the threshold is 0 and lets everything through."""


def chart(levels: Levels, width: int) -> list[Text]:
    """At most ``width`` characters wide, but never less than 20 columns. A row is filled where the
    level reaches the value at its left; the row of the threshold is drawn through."""
    rows = {value: _label(value, levels.threshold) for value in _rows(levels)}
    margin = max(_LABEL_WIDTH, *map(len, rows.values()))
    each, columns = levels.columns(max(_MIN_COLUMNS, width - margin - 1))
    lines = [
        _row(f"{label:>{margin}}|", value, LINE if value == levels.threshold else " ", columns)
        for value, label in rows.items()
    ]
    lines += [Text(" " * margin + line) for line in _time_axis(levels.seconds, each, len(columns))]
    lines.append(_legend(" " * (margin + 1), levels.threshold))
    if each > 1:
        seconds = each * BLOCK_MS / 1000
        lines.append(Text(f"{'':{margin}} a column is the loudest block in {seconds:g} s"))
    return lines


def _rows(levels: Levels) -> list[float]:
    """The level of each row, from the top; the threshold's own is exactly one of them."""
    base = levels.threshold or _NO_THRESHOLD
    highest = max(float(levels.rms.max()), base)
    above = math.floor(math.log(highest / base, _ROW_FACTOR))
    return [base * _ROW_FACTOR**step for step in range(above, -_ROWS_BELOW - 1, -1)]


def _label(value: float, threshold: float) -> str:
    return f"{exactly(threshold)} >" if value == threshold else f"{rounded(value)}  "


def _row(start: str, value: float, empty: str, columns: list[Column]) -> Text:
    text = Text(start)
    for column in columns:
        mark = MARKS[column.verdict] if column.rms >= value else empty
        text.append(mark, _STYLES.get(mark))
    text.rstrip()
    return text


def _time_axis(seconds: float, each: int, columns: int) -> list[str]:
    line = ["-"] * columns
    labels = [" "] * (columns + _TICK_COLUMNS)
    for at, label in ticks(seconds, max(1, columns // _TICK_COLUMNS)):
        column = at * 1000 // BLOCK_MS // each
        if column < columns:
            line[column] = "+"
            labels[column : column + len(label)] = label
    return [f"+{''.join(line)}", f" {''.join(labels).rstrip()}"]


def _legend(start: str, threshold: float) -> Text:
    text = Text(start)
    for mark, meaning in (
        (MARKS[Verdict.OPEN], "open"),
        (MARKS[Verdict.HELD], "held (below the threshold)"),
        (MARKS[Verdict.GATED], "gated"),
    ):
        text.append(mark, _STYLES[mark]).append(f" {meaning}   ")
    if threshold:
        text.append(LINE * 2, _STYLES[LINE]).append(" threshold")
    text.rstrip()
    return text
