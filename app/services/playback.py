"""When a listener needs the next sentence of a text: from what went out to him, and when."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

FASTEST_CHARACTERS_PER_S: Final = 25
"""Nobody speaks faster (English readers reach 15, Chinese ones 6), so a sentence of so many letters
and digits lasts a second or more: enough to tell when the next one is needed, before this one is
spoken."""


class SpeechRate:
    """How long a text takes to speak, by what was spoken of it before."""

    _MARGIN: Final = 0.8
    """Sentences differ; the next one had better be asked for too early than too late."""

    def __init__(self) -> None:
        self._characters = 0
        self._seconds = 0.0

    def spoken(self, sentence: str, seconds: float) -> None:
        """A sentence is complete, and took so many seconds of audio at the voice's own speed."""
        self._characters += _spoken_characters(sentence)
        self._seconds += seconds

    def expected_s(self, sentence: str, speed: float) -> float:
        """Seconds that ``sentence`` will last, rather too few; ``speed``: 1.0 is the voice's
        own."""
        shortest = _spoken_characters(sentence) / FASTEST_CHARACTERS_PER_S / speed
        if not self._characters:
            return shortest
        measured = _spoken_characters(sentence) * self._seconds / self._characters / speed
        return max(shortest, measured * self._MARGIN)


class Playback:
    """How far a listener may be, who plays the audio from the moment that the first of it went
    out: nobody can be ahead of that."""

    def __init__(self, sample_rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._sample_rate = sample_rate
        self._clock = clock
        self._sent = 0
        self._began_at: float | None = None

    @property
    def sent_s(self) -> float:
        """Seconds of audio that went out so far."""
        return self._sent / self._sample_rate

    def sent(self, samples: int) -> None:
        """Audio goes out now."""
        if self._began_at is None:
            self._began_at = self._clock()
        self._sent += samples

    def lead_s(self, position_s: float = 0.0) -> float:
        """Seconds of audio that the listener has still to play before what is at ``position_s``
        of the whole, or before what goes out next, if that is later. Never below 0."""
        played_s = 0.0 if self._began_at is None else self._clock() - self._began_at
        return max(self.sent_s, position_s, played_s) - played_s


def _spoken_characters(sentence: str) -> int:
    return sum(map(str.isalnum, sentence))
