"""Which of the streams that are ready form the next step of an engine, and when.

Pure policy: no threads, no clock of its own, so a test replays it with a fake clock. Oldest first,
at most ``max_batch``; at most one step per ``tick_s`` unless somebody is in a hurry (the end of a
task), because a step for one stream costs almost as much as a step for many. ``scheduling.py`` has
the policy for steps that take long.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

AT_ONCE: Final = float("-inf")
"""What ``due`` says when the next step should not wait."""


class Batcher(Generic[K]):
    """The ready streams of one service. Times are seconds of any monotonic clock."""

    def __init__(self, max_batch: int | None, tick_s: float) -> None:
        self._max_batch = max_batch
        self._tick_s = tick_s
        self._ready: dict[K, float] = {}  # since when, the oldest first
        self._urgent: set[K] = set()
        self._last_step: float | None = None

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def oldest(self) -> float | None:
        """Since when the first of the ready streams is ready; None if nobody is."""
        return next(iter(self._ready.values()), None)

    def add(self, key: K, now: float, *, urgent: bool = False) -> None:
        """``key`` has a step's worth of audio. It keeps its place if it is here already."""
        self._ready.setdefault(key, now)
        if urgent:
            self._urgent.add(key)

    def discard(self, key: K) -> None:
        """``key`` is gone; unknown keys are harmless."""
        self._ready.pop(key, None)
        self._urgent.discard(key)

    def due(self, now: float) -> float | None:
        """When the next step should start, as far as can be told ``now``: a time, ``AT_ONCE``,
        or None if nobody is ready."""
        if not self._ready:
            return None
        if self._urgent or self._last_step is None:
            return AT_ONCE
        return self._last_step + self._tick_s

    def take(self, now: float) -> list[K]:
        """The streams of the step that starts now, oldest first; they are ready no more."""
        keys = list(self._ready)
        cap = self.cap()
        if cap is not None and len(keys) > cap:
            keys = keys[:cap]
        for key in keys:
            del self._ready[key]
            self._urgent.discard(key)
        self._last_step = now
        return keys

    def cap(self) -> int | None:
        """The most streams that the next step may have; None for no limit."""
        return self._max_batch

    def took(self, streams: int, seconds: float) -> None:
        """A step of so many streams took so long. The plain tick makes no use of it."""
