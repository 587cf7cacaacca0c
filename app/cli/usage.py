"""``funspeech usage``: what projects have used, by day."""

from __future__ import annotations

import csv as csvlib
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal

from app.access.rows import UsageRow
from app.cli.database import asked, settings
from app.cli.listing import show_list
from app.cli.target import fail

_SHOWN_DAYS: Final = 30
_FIELDS: Final = (
    "day",
    "appkey",
    "kind",
    "tasks",
    "failed",
    "audio_ms",
    "characters",
)

Format = Literal["table", "csv", "json"]


def usage(first: str | None, last: str | None, appkey: str | None, form: Format) -> None:
    """Print a row for each day, project and kind (asr: recognition, tts: synthesis). ``first`` and
    ``last``: days in UTC, ``YYYY-MM-DD``; by default the last thirty."""
    today = datetime.now(UTC).date()
    end = _day("--to", last) if last is not None else today
    begin = _day("--from", first) if first is not None else end - timedelta(_SHOWN_DAYS - 1)
    if begin > end:
        fail(f"--from {begin} is after --to {end}")
    rows = asked(settings(), lambda store: store.usage(begin.isoformat(), end.isoformat(), appkey))
    if form == "csv":
        _csv(rows)
        return
    show_list(
        ("Day", "Appkey", "Kind", "Tasks", "Failed", "Audio", "Characters"),
        [_cells(row) for row in rows] + ([_total(rows)] if sys.stdout.isatty() else []),
        [_fields(row) for row in rows],
        json=form == "json",
    )


def _day(option: str, text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        fail(f"{option} {text[:40]}: expected a day such as 2026-03-31")


def _fields(row: UsageRow) -> dict[str, object]:
    values = (
        row.day,
        row.appkey,
        row.kind,
        row.used.tasks,
        row.used.failed,
        row.used.audio_ms,
        row.used.characters,
    )
    return dict(zip(_FIELDS, values, strict=True))


def _csv(rows: Sequence[UsageRow]) -> None:
    writer = csvlib.DictWriter(sys.stdout, _FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_fields, rows))


def _cells(row: UsageRow) -> tuple[str, ...]:
    used = row.used
    return (
        row.day,
        row.appkey,
        row.kind,
        str(used.tasks),
        str(used.failed),
        _seconds(used.audio_ms),
        str(used.characters),
    )


def _total(rows: Sequence[UsageRow]) -> tuple[str, ...]:
    """The last line of a table."""
    used = [row.used for row in rows]
    return (
        "all",
        "",
        "",
        str(sum(each.tasks for each in used)),
        str(sum(each.failed for each in used)),
        _seconds(sum(each.audio_ms for each in used)),
        str(sum(each.characters for each in used)),
    )


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f} s"
