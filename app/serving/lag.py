"""How far recognition is behind the audio, sampled."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

from app.core import metrics

_NEVER: Final = sys.maxsize

PAUSE_S: Final = 1.0
"""A client that sends nothing for so long has paused: the engine's chunk waits for it, which is no
lag of ours."""


class LagMeter:
    """Follows one moment of a stream's audio at a time, about one in a second of audio, from when
    it is sent to the worker until the worker has done with it."""

    def __init__(self, sample_rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._sample_rate = sample_rate
        self._clock = clock
        self._sent = 0
        self._processed = 0
        self._next_mark = 0  # position from which on the next moment is chosen
        self._mark = _NEVER  # position of the one that is followed
        self._marked_at = 0.0
        self._last_sent_at = 0.0

    def sent(self, samples: int) -> None:
        """So many more samples have come, and are on their way."""
        self._sent += samples
        if self._sent < self._next_mark:
            return
        now = self._clock()
        if self._mark == _NEVER:
            self._mark, self._marked_at = self._sent, now
        elif now - self._last_sent_at > PAUSE_S:
            self._forget()
        self._last_sent_at = now

    def processed(self, samples: int) -> None:
        """The worker has done with so many more."""
        self._processed += samples
        if self._processed >= self._mark:
            metrics.LAG.observe(self._clock() - self._marked_at)
            self._forget()

    def _forget(self) -> None:
        self._mark = _NEVER
        self._next_mark = self._sent + self._sample_rate
