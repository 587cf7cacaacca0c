"""Figures, as a table for people and as one line of JSON for programs."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. ``target``: what we ask for (docs/benchmarks.md), "" for none."""

    name: str
    value: float
    unit: str
    target: str = ""


def table(title: str, figures: Sequence[Figure]) -> str:
    """The figures under each other."""
    rows = [(each.name, _number(each.value), each.unit, each.target) for each in figures]
    rows.insert(0, ("", "measured", "", "target"))
    widths = [max(_width(row[column]) for row in rows) for column in range(4)]
    lines = [title, "-" * (sum(widths) + 6)]
    for name, value, unit, target in rows:
        padded = name + " " * (widths[0] - _width(name))
        lines.append(f"{padded}  {value:>{widths[1]}}  {unit:<{widths[2]}}  {target}".rstrip())
    return "\n".join(lines)


def json_line(name: str, figures: Sequence[Figure], machine: Mapping[str, str]) -> str:
    """The same on one line."""
    numbers = [
        {**asdict(each), "value": None if math.isnan(each.value) else round(each.value, 4)}
        for each in figures
    ]
    return json.dumps({"benchmark": name, "figures": numbers, "machine": dict(machine)})


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)
