"""The results of ``funspeech eval`` for people: a table, what it means, and texts side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from app.cli.evaluate_figures import Figures, Judged, percentile
from app.text.error_rate import Errors

_NONE: Final = "-"
_FEW: Final = 20
"""Labelled clips below which a bootstrap promises more than it can know."""


def table(found: Figures) -> Table:
    """A row for each figure; with two configurations the last column is the second less the
    first."""
    names = [column.name for column in found.columns]
    made = Table("", *names, *(["B - A"] if len(names) == 2 else []))
    for column in made.columns[1:]:
        column.justify = "right"
    for label, cells in _rows(found):
        made.add_row(Text(label), *(Text(cell) for cell in cells))
    return made


def _rows(found: Figures) -> list[tuple[str, list[str]]]:
    columns = found.columns
    rows: list[tuple[str, list[str]]] = []
    if found.labelled:
        rates = [column.errors.rate for column in columns]
        rows.append((found.measure, _cells(rates, 100, 2, " %")))
        for kind in ("substitutions", "deletions", "insertions"):
            counts = [float(getattr(column.errors, kind)) for column in columns]
            rows.append((kind, _cells(counts, 1, 0)))
    for name, label in (("latency_ms", "latency"), ("first_ms", "first text")):
        for percent in (50, 99) if name == "latency_ms" else (50,):
            values = [percentile(getattr(column, name), percent) for column in columns]
            rows.append((f"{label} p{percent}, ms", _cells(values, 1, 0)))
    for name, label in (("wall_rtf", "RTF, clock"), ("cpu_rtf", "RTF, CPU")):
        values = [getattr(column, name) for column in columns]
        if any(value is not None for value in values):
            rows.append((label, _cells(values, 1, 3)))
    rows.append(("failed clips", _cells([float(column.failed) for column in columns], 1, 0)))
    return rows


def _cells(values: Sequence[float | None], factor: float, digits: int, unit: str = "") -> list[str]:
    cells = [_NONE if each is None else f"{each * factor:.{digits}f}{unit}" for each in values]
    if len(values) == 2:
        first, second = values
        known = first is not None and second is not None
        less = (second - first) * factor if first is not None and second is not None else 0.0
        cells.append(f"{less:+.{digits}f}" if known else _NONE)
    return cells


def summary(found: Figures) -> list[str]:
    """What the table means, in sentences."""
    lines = [f"{_count(len(found.judged), 'clip')} with {found.seconds:.1f} s of audio compared"]
    if found.labelled:
        lines[0] += f", {found.labelled} of them with a label of {_units(found.columns[0].errors)}"
    if found.labelled and len(found.columns) == 2:
        lines.append(_verdict(found))
    if found.apart is not None:
        rate = 100 * (found.apart.rate or 0.0)
        lines.append(
            f"A and B differ in {found.different} of {_count(len(found.judged), 'clip')}, by "
            f"{_count(found.apart.count, 'unit')} ({rate:.2f} %)"
        )
    return lines


def _verdict(found: Figures) -> str:
    if found.difference is None:
        return "too few labelled clips to tell whether the difference is chance"
    low, high = (100 * each for each in found.difference)
    meaning = f"{'B' if low > 0 else 'A'} makes more errors"
    if low <= 0 <= high:
        meaning = "these clips show no difference"
    if found.labelled < _FEW:
        meaning += f" (but {found.labelled} clips are few to tell)"
    return (
        f"{found.measure} of B less that of A, 95 % confidence interval: {low:+.2f} to {high:+.2f} "
        f"points: {meaning}"
    )


def _units(errors: Errors) -> str:
    return f"{_count(errors.units, 'unit')} in all"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listing(found: Figures, clips: Sequence[Judged]) -> list[str]:
    """The clips to listen to: where they are, what was said, and what each made of it."""
    lines = []
    for judged in clips:
        counts = [str(each.count) for each in judged.errors]
        errors = f" (errors: {' and '.join(counts)})" if counts else ""
        lines += ["", f"{judged.clip.path}{errors}"]
        if judged.clip.text is not None:
            lines.append(f"  label  {_one_line(judged.clip.text)}")
        for column, text in zip(found.columns, judged.texts, strict=True):
            lines.append(f"  {column.name:<5}  {_one_line(text)}")
    return lines


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text) or _NONE
