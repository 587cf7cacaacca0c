"""Which sentences the second pass hears next. Pure policy: no thread, no clock of its own, so that
a test replays it with a fake clock. Times are seconds of any monotonic clock.

Two lanes. In the *live* one each sentence has a deadline, and the earliest goes first; in the
*bulk* one (files and REST, whose tasks are not live) the oldest does. Live sentences go first,
but after :data:`LIVE_IN_A_ROW` batches of them one of the other lane has its turn.

A batch is built around the sentence whose turn it is, from those that are most like it in length:
as far as no more than a quarter of it is padding, and it has no more audio than the model wants at
once. How long a second of audio takes is learnt from the batches, and a batch does not grow beyond
what its earliest deadline, or those who wait meanwhile, leave time for. A sentence that cannot be
done in time any more is not begun: otherwise, once there is too much to do, each one would be begun
just before its deadline, and be done too late.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from app.engines.base import MAX_PADDING

K = TypeVar("K", bound=Hashable)

LIVE_IN_A_ROW: Final = 4
"""Batches of live sentences, while others wait, before one of these."""

MAX_BATCH: Final = 64
"""Sentences in a batch; reached by those that need nothing but punctuation, which have no audio."""

MAX_WAITING_S: Final = 240.0
"""Audio that may wait in each lane (8 MB). More would wait for longer than clients do."""

MAX_WAITING: Final = 1024
"""Sentences that may wait in each lane."""

_DOUBT: Final = 5
"""Sentences that expire in a row, and no batch begun: then the learnt time is doubted, and lowered
until one is begun, since only a batch can correct it."""

_FORGETTING: Final = 0.8
"""What a batch leaves of the weight of those before it, in the learnt time."""


@dataclass(slots=True, eq=False)
class _Entry(Generic[K]):
    """A sentence. ``deadline`` None: of the bulk lane. ``expires``: it is given up then."""

    key: K
    seconds: float
    deadline: float | None
    expires: bool

    @property
    def live(self) -> bool:
        return self.deadline is not None

    @property
    def expiry(self) -> float:
        return self.deadline if self.expires and self.deadline is not None else float("inf")


class RefineQueue(Generic[K]):
    """The sentences that wait, and those of the batch that runs.

    ``max_batch_s``: audio, padding included, that the model wants at once at most. ``max_run_s``:
    a batch does not grow beyond what probably takes so long, so that who comes meanwhile is not
    kept for long; a single sentence may take longer.
    """

    def __init__(self, max_batch_s: float, max_run_s: float) -> None:
        self._max_batch_s = max_batch_s
        self._max_run_s = max_run_s
        self._waiting: dict[K, _Entry[K]] = {}
        self._running: dict[K, _Entry[K]] = {}
        self._running_s = 0.0  # audio of the batch that runs, padding included
        self._live_in_a_row = 0
        self._not_begun = 0  # that expired since a batch was begun
        self._learnt_s = 0.0  # time of the latest batches, and their audio
        self._learnt_audio_s = 0.0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def has_room(self, seconds: float, *, live: bool) -> bool:
        """Whether a sentence of so many seconds may be added to that lane. One that is empty
        takes anything."""
        lane = [each.seconds for each in self._waiting.values() if each.live is live]
        return not lane or (len(lane) < MAX_WAITING and sum(lane) + seconds <= MAX_WAITING_S)

    def add(self, key: K, seconds: float, *, deadline: float | None, expires: bool = False) -> None:
        """A sentence waits. ``deadline``: None for the bulk lane; ``expires``: :meth:`expired`
        gives it up then, otherwise the deadline is only its place among the others."""
        self._waiting[key] = _Entry(key, seconds, deadline, expires)

    def discard(self, key: K) -> None:
        """Nobody wants it any more; unknown keys are harmless."""
        self._waiting.pop(key, None)
        self._running.pop(key, None)

    def next_expiry(self) -> float | None:
        """When to call :meth:`expired` next; None if nothing expires."""
        first = min((each.expiry for each in self._all()), default=float("inf"))
        return None if first == float("inf") else first

    def expired(self, now: float) -> list[K]:
        """Those whose deadline has come, begun or not: they are discarded."""
        keys = [each.key for each in self._all() if each.expiry <= now]
        for key in keys:
            if self._waiting.pop(key, None) is not None and not self._running_s:
                self._not_begun += 1
                if self._not_begun > _DOUBT:
                    self._learnt_s *= _FORGETTING
            self._running.pop(key, None)
        return keys

    def take(self, now: float) -> list[K]:
        """The batch that starts now; empty if nobody waits, or only those who are too late. One at
        a time: see :meth:`done`."""
        seed = self._next(now)
        if seed is None:
            return []
        batch, time_left = [seed], min(self._max_run_s, seed.expiry - now)
        others = (each for each in self._waiting.values() if each is not seed)
        for each in sorted(
            others, key=lambda each: (each.live is not seed.live, abs(each.seconds - seed.seconds))
        ):
            time = min(time_left, each.expiry - now)
            if self._fits(batch, each, time):
                batch.append(each)
                time_left = time
        self._running = {each.key: self._waiting.pop(each.key) for each in batch}
        self._running_s = _padded_s(batch)
        self._not_begun = 0
        return list(self._running)

    def done(self, took_s: float) -> list[K]:
        """The batch is done, in that time. Those of it that are still wanted."""
        if self._running_s:
            self._learnt_s = self._learnt_s * _FORGETTING + took_s
            self._learnt_audio_s = self._learnt_audio_s * _FORGETTING + self._running_s
        wanted, self._running, self._running_s = list(self._running), {}, 0.0
        return wanted

    def _all(self) -> list[_Entry[K]]:
        return [*self._waiting.values(), *self._running.values()]

    def _time(self, audio_s: float) -> float:
        """How long so much audio probably takes; 0 while nothing is known."""
        return self._learnt_s / self._learnt_audio_s * audio_s if self._learnt_audio_s else 0.0

    def _next(self, now: float) -> _Entry[K] | None:
        """Whose turn it is."""
        bulk = next((each for each in self._waiting.values() if not each.live), None)
        live = [each for each in self._waiting.values() if each.live and self._in_time(each, now)]
        first = min(live, key=lambda each: each.deadline or 0.0, default=None)
        if bulk is None or first is None:
            self._live_in_a_row = 0
            return first or bulk
        if self._live_in_a_row == LIVE_IN_A_ROW:
            self._live_in_a_row = 0
            return bulk
        self._live_in_a_row += 1
        return first

    def _in_time(self, each: _Entry[K], now: float) -> bool:
        """Whether it would probably be done before its expiry."""
        return now + self._time(each.seconds) <= each.expiry

    def _fits(self, batch: list[_Entry[K]], each: _Entry[K], time_left: float) -> bool:
        joined = [*batch, each]
        padded_s = _padded_s(joined)
        audio_s = sum(each.seconds for each in joined)
        return (
            len(joined) <= MAX_BATCH
            and padded_s <= self._max_batch_s
            and padded_s - audio_s <= MAX_PADDING * padded_s
            and self._time(padded_s) <= time_left
        )


def _padded_s(batch: list[_Entry[K]]) -> float:
    return len(batch) * max(each.seconds for each in batch)
