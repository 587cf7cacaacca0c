"""Figures, as a table for people and as one line of JSON for programs."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from benchmarks.measure import percentile
from benchmarks.options import Options


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. ``target``: what we ask for (docs/benchmarks.md), "" for none.
    ``runs``: what each of several runs measured, where ``value`` is made of them."""

    name: str
    value: float
    unit: str
    target: str = ""
    runs: tuple[float, ...] = ()


def combined(runs: Sequence[Sequence[Figure]]) -> list[Figure]:
    """Several runs of a measurement as one: medians, but the worst of figures that ought to be 0.

    A figure that some run lacks is left out.
    """
    by_name = [{each.name: each for each in run} for run in runs]
    figures = []
    for first in runs[0]:
        if all(first.name in run for run in by_name):
            values = tuple(run[first.name].value for run in by_name)
            value = max(values) if first.target == "0" else percentile(values, 50)
            figures.append(replace(first, value=value, runs=values))
    return figures


def table(title: str, figures: Sequence[Figure]) -> str:
    """The figures under each other."""
    rows = [
        (each.name, _number(each.value), each.unit, each.target, _range(each)) for each in figures
    ]
    rows.insert(0, ("", "measured", "", "target", "runs" if any(row[4] for row in rows) else ""))
    widths = [max(_width(row[column]) for row in rows) for column in range(5)]
    lines = [title, "-" * (sum(widths) + 8)]
    for name, value, *others in rows:
        padded = name + " " * (widths[0] - _width(name))
        cells = [f"{cell:<{width}}" for cell, width in zip(others, widths[2:], strict=True)]
        lines.append("  ".join([padded, f"{value:>{widths[1]}}", *cells]).rstrip())
    return "\n".join(lines)


def json_line(
    name: str, figures: Sequence[Figure], machine: Mapping[str, str], options: Options
) -> str:
    """The same on one line."""
    numbers = [
        {
            **asdict(each),
            "value": _rounded(each.value),
            "runs": [_rounded(value) for value in each.runs],
        }
        for each in figures
    ]
    return json.dumps(
        {
            "benchmark": name,
            "options": asdict(options),
            "figures": numbers,
            "machine": dict(machine),
        }
    )


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _range(figure: Figure) -> str:
    if not figure.runs or min(figure.runs) == max(figure.runs):
        return ""
    return f"{_number(min(figure.runs))} to {_number(max(figure.runs))}"


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)
