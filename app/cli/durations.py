"""Lengths of time as people write them: ``90s``, ``45m``, ``1h30m``."""

from __future__ import annotations

import re
from typing import Final

from app.core.errors import InvalidRequest

_UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_PART: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([dhms])")


def seconds(text: str) -> int:
    """The whole seconds of a length of time; 0 needs no unit.

    Raises:
        InvalidRequest: it is none.
    """
    written = "".join(text.lower().split())
    if written == "0":
        return 0
    parts = _PART.findall(written)
    if not parts or "".join(number + unit for number, unit in parts) != written:
        raise InvalidRequest(f"{text[:40]!r} is no length of time such as 90s, 45m, 2h or 1h30m")
    return round(sum(float(number) * _UNITS[unit] for number, unit in parts))


def duration(length_s: int) -> str:
    """The shortest way to write it: 5400 is ``1h30m``."""
    parts = []
    for unit, size in _UNITS.items():
        count, length_s = divmod(length_s, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
