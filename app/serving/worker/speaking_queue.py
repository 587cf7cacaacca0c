"""Which sentence a synthesiser speaks next, and which texts it takes on.

Pure policy: no threads, no clock of its own, so a test replays it with a fake clock.

**Order.** Earliest deadline first: a sentence is due when its listener needs it, which is now for
the first sentence of a text, and for a later one when the audio before it has been played
(``lead_s``). So a book that is read far ahead never goes before a caller; and since the deadlines
of waiting sentences stand still while time goes on, nobody starves.

**Run-ahead.** A text that is more than ``RUN_AHEAD_S`` beyond playback gets what nobody else needs:
its sentence starts only if no other waits, and, where the engine has two slots or more, only if
another slot stays free after that, because a sentence that has begun cannot be interrupted. A hard
stop would slow down the clients that write files, and nobody would gain by it. Apart from that kept
slot, nothing waits while a slot is free.

**Admission.** A new text is refused when its first audio is predicted to be more than
``MAX_FIRST_AUDIO_S`` away; one that would start at once is not, however slow the engine is.
Sentences of texts that were accepted are refused only where the queue reaches its hard bound. New
texts can delay them beyond their deadline by about ``MAX_FIRST_AUDIO_S``, not more: what comes
after the deadline stands behind them.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from app.core.errors import FirstAudioTooLate

K = TypeVar("K", bound=Hashable)

MAX_FIRST_AUDIO_S: Final = 2.0
"""A caller who hears nothing for longer takes the line for dead; he is better told at once."""

RUN_AHEAD_S: Final = 10.0

_PRIOR_CHARACTERS: Final = 30
"""The prior weighs as much as a sentence of this length, so that a short first one (whose time is
mostly that of warming up) does not decide alone."""
_KEPT: Final = 0.9
"""Weight that a measurement has left after each newer one: the last ten sentences count."""
_LEAST_CHARACTERS: Final = 10
"""A shorter sentence takes an engine hardly less time."""


@dataclass(eq=False, slots=True)
class Sentence(Generic[K]):
    """A sentence that waits or runs. Times are seconds of the caller's clock."""

    key: K
    characters: int
    need_at: float
    queued_at: float
    started_at: float = 0.0
    has_spoken: bool = False
    cancelled: bool = False


class Pace:
    """How fast the engine is: exponentially weighted means over the sentences that it completed.
    ``prior_s_per_character`` is assumed before the first one."""

    def __init__(self, prior_s_per_character: float) -> None:
        self._seconds = prior_s_per_character * _PRIOR_CHARACTERS
        self._characters = float(_PRIOR_CHARACTERS)
        self._first_seconds = 0.0
        self._first_pieces = 0.0

    @property
    def s_per_character(self) -> float:
        """Engine time of a sentence per character."""
        return self._seconds / self._characters

    @property
    def s_to_first_piece(self) -> float:
        """From the start of a sentence to its first audio; 0 before the first measurement."""
        return self._first_seconds / self._first_pieces if self._first_pieces else 0.0

    def completed(self, characters: int, seconds: float) -> None:
        """A sentence took so long from its start to its end."""
        self._seconds = self._seconds * _KEPT + seconds
        self._characters = self._characters * _KEPT + characters

    def spoke(self, seconds: float) -> None:
        """A sentence took so long from its start to its first piece."""
        self._first_seconds = self._first_seconds * _KEPT + seconds
        self._first_pieces = self._first_pieces * _KEPT + 1

    def with_late(self, late: Iterable[tuple[int, float]]) -> float:
        """Seconds per character as if the sentences in ``late`` (characters and seconds until now),
        which take longer than expected, were complete now."""
        seconds, characters = self._seconds, self._characters
        for more_characters, more_seconds in late:
            seconds += more_seconds
            characters += more_characters
        return seconds / characters


class SpeakingQueue(Generic[K]):
    """The sentences of one synthesiser that wait, and those that it speaks (``running``).

    ``now`` in all methods is the time in seconds of one monotonic clock.
    """

    def __init__(self, slots: int, max_waiting: int, prior_s_per_character: float = 0.01) -> None:
        """``slots``: sentences that the engine speaks at the same time; ``max_waiting``: the hard
        bound of the queue; ``prior_s_per_character``: engine time, until it is measured."""
        self._slots = slots
        self._max_waiting = max_waiting
        self._waiting: list[Sentence[K]] = []  # by need_at; those of the same time as they came
        self.running: dict[K, Sentence[K]] = {}
        self.pace = Pace(prior_s_per_character)

    def __len__(self) -> int:
        """Sentences that wait."""
        return len(self._waiting)

    def add(self, key: K, characters: int, lead_s: float | None, now: float) -> None:
        """Queue a sentence. ``lead_s``: None for the first one of a new text, otherwise the seconds
        of audio that the listener still has before this sentence.

        Raises:
            FirstAudioTooLate: the queue is full, or a new text would have to wait too long.
        """
        if len(self._waiting) >= self._max_waiting:
            raise FirstAudioTooLate
        if lead_s is None and not self._in_time(now):
            raise FirstAudioTooLate
        characters = max(characters, _LEAST_CHARACTERS)
        sentence = Sentence(key, characters, need_at=now + (lead_s or 0.0), queued_at=now)
        insort(self._waiting, sentence, key=lambda each: each.need_at)

    def take(self, now: float) -> Sentence[K] | None:
        """The sentence to start now, which is running from here on; None if none is to start."""
        starts_at = self.due()
        if starts_at is None or starts_at > now:
            return None
        sentence = self._waiting.pop(0)
        sentence.started_at = now
        self.running[sentence.key] = sentence
        return sentence

    def due(self) -> float | None:
        """When the next sentence should start if nothing else happens: a time, -inf for at once,
        None if none waits or no slot is free."""
        free = self._slots - len(self.running)
        if not self._waiting or free <= 0:
            return None
        if free > 1 or self._slots == 1:
            return float("-inf")
        return self._waiting[0].need_at - RUN_AHEAD_S

    def spoke(self, key: K, now: float) -> None:
        """A running sentence has brought a piece."""
        sentence = self.running.get(key)
        if sentence is not None and not sentence.has_spoken:
            sentence.has_spoken = True
            self.pace.spoke(now - sentence.started_at)

    def cancel(self, key: K) -> None:
        """A sentence is not wanted any more: it waits no longer, or its slot is about to be free.
        Unknown keys are harmless."""
        running = self.running.get(key)
        if running is not None:
            running.cancelled = True
            return
        self._waiting = [each for each in self._waiting if each.key != key]

    def finished(self, key: K, now: float, *, completed: bool) -> None:
        """A running sentence has left its slot; ``completed``: it was spoken to its end, so that
        its time tells something."""
        sentence = self.running.pop(key)
        if completed and not sentence.cancelled:
            self.pace.completed(sentence.characters, now - sentence.started_at)

    def wait_s(self, now: float) -> float:
        """Predicted seconds until a sentence that is needed now could start; 0 for at once."""
        late = [
            (each.characters, now - each.started_at)
            for each in self.running.values()
            if now > self._expected_end(each) and not each.cancelled
        ]
        s_per_character = self.pace.with_late(late)
        free_in = [0.0] * (self._slots - len(self.running))
        free_in += [self._remainder(each, s_per_character, now) for each in self.running.values()]
        heapq.heapify(free_in)
        for each in self._waiting:
            if each.need_at > now:
                break
            heapq.heapreplace(free_in, free_in[0] + each.characters * s_per_character)
        return free_in[0]

    def _in_time(self, now: float) -> bool:
        wait_s = self.wait_s(now)
        return wait_s <= 0.0 or wait_s + self.pace.s_to_first_piece <= MAX_FIRST_AUDIO_S

    def _remainder(self, sentence: Sentence[K], s_per_character: float, now: float) -> float:
        """Seconds until a running sentence frees its slot. What is late is expected to take as long
        again as it is late: nothing better is known of it."""
        if sentence.cancelled:
            return 0.0
        to_go = sentence.started_at + sentence.characters * s_per_character - now
        return max(to_go, now - self._expected_end(sentence))

    def _expected_end(self, sentence: Sentence[K]) -> float:
        return sentence.started_at + sentence.characters * self.pace.s_per_character
