"""Which of the streams that are ready form the next step of an engine, and when.

Pure policy: no threads, no clock of its own, so a test replays it with a fake clock. Oldest first,
at most ``max_batch``; at most one step per ``tick_s`` unless somebody is in a hurry (the end of a
task), because a step for one stream costs almost as much as a step for many.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Batcher(Generic[K]):
    """The ready streams of one service. Times are seconds of any monotonic clock."""

    def __init__(self, max_batch: int | None, tick_s: float) -> None:
        self._max_batch = max_batch
        self._tick_s = tick_s
        self._ready: dict[K, None] = {}
        self._urgent: set[K] = set()
        self._last_step: float | None = None

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: K, *, urgent: bool = False) -> None:
        """``key`` has a step's worth of audio. It keeps its place if it is here already."""
        self._ready.setdefault(key)
        if urgent:
            self._urgent.add(key)

    def discard(self, key: K) -> None:
        """``key`` is gone; unknown keys are harmless."""
        self._ready.pop(key, None)
        self._urgent.discard(key)

    def due(self) -> float | None:
        """When the next step should start: a time, -inf for at once, None if nobody is ready."""
        if not self._ready:
            return None
        if self._urgent or self._last_step is None:
            return float("-inf")
        return self._last_step + self._tick_s

    def take(self, now: float) -> list[K]:
        """The streams of the step that starts now, oldest first; they are ready no more."""
        keys = list(self._ready)
        if self._max_batch is not None and len(keys) > self._max_batch:
            keys = keys[: self._max_batch]
        for key in keys:
            del self._ready[key]
            self._urgent.discard(key)
        self._last_step = now
        return keys
