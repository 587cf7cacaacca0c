"""What the command line may change of a measurement."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """``seconds``: the length of the measured part; ``sessions``: clients at a time. None takes
    the measurement's own default."""

    seconds: float | None = None
    sessions: int | None = None
