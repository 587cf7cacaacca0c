"""What the command line may change of a measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FULL_SECONDS: Final = 60.0
FULL_RUNS: Final = 3


@dataclass(frozen=True, slots=True)
class Options:
    """``seconds``: the length of each measured part; ``sessions``: clients at a time. None takes
    the measurement's own default. ``full``: take the time that figures to publish need, where the
    length in seconds says nothing."""

    seconds: float | None = None
    sessions: int | None = None
    full: bool = False
