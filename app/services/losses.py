"""How many workers died under one piece of work: it may be the one that kills them, and then must
not go round for ever."""

from __future__ import annotations

from typing import Final

MAX_LOSSES: Final = 5
"""Workers that may die under it in a row, without it having got any further."""


class LossCount:
    """The workers lost under one stream or sentence since it last got further."""

    def __init__(self) -> None:
        self._furthest = 0  # that any worker has got, in samples
        self._losses = 0

    def is_last(self, reached: int) -> bool:
        """Another worker died, ``reached`` samples into the work. Returns whether to give up."""
        if reached > self._furthest:
            self._furthest, self._losses = reached, 0
        self._losses += 1
        return self._losses > MAX_LOSSES
