"""Ticks of a time axis."""

from __future__ import annotations

from typing import Final

_STEPS_S: Final = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400)


def ticks(seconds: float, most: int) -> list[tuple[int, str]]:
    """(seconds, label) of at most ``most`` ticks (one at least), at round times, from 0 on."""
    step = next((each for each in _STEPS_S if seconds / each < most), 86_400)
    return [(at, label(at)) for at in range(0, int(seconds) + 1, step)]


def label(seconds: int) -> str:
    """``1:05``, or ``1:00:05`` from an hour on."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
