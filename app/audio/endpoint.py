"""Where sentences begin and end, from speech probabilities. Pure decisions: no model, no clock.

Positions are in samples (16 kHz) since the start of the stream.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

SAMPLE_RATE: Final = 16_000
WINDOW_SAMPLES: Final = 512
"""Samples per probability of the server's own VAD; the same number as in ``vad.py``, which is too
heavy to import here."""

START_PROBABILITY: Final = 0.5
"""A window from this on is speech. silero's own default."""
STOP_PROBABILITY: Final = 0.35
"""Speech goes on down to this: the default's 0.15 below the start, so that a weak syllable does
not make a hole."""
NOISE_STEP: Final = 0.4
"""What a noise threshold of 1 adds to both probabilities, and -1 takes away."""
_LOWEST, _HIGHEST = 0.05, 0.95
"""Where that ends: below, silence would be speech; above, hardly anything."""
START_WINDOWS: Final = 3
START_SPEECH_WINDOWS: Final = 2
"""A sentence begins when 2 of the last 3 windows (96 ms) are speech: one alone is a click. Of
shorter windows as many more as the same time needs."""

SHORTEST_CUT_SAMPLES: Final = (START_WINDOWS + 1) * WINDOW_SAMPLES
"""A smaller limit on the length of a sentence counts as this (128 ms; with windows of another
length, those that confirm a start and one more)."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """A sentence begins at ``sample``: the first of the windows that showed it."""

    sample: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The sentence that began at ``start_sample`` ends at ``end_sample``, the end of its last
    window of speech. ``cut``: it had reached its greatest length, not a pause."""

    start_sample: int
    end_sample: int
    cut: bool


Endpoint = SpeechStarted | SpeechStopped


class Endpointer:
    """Finds the sentences of one stream.

    ``max_sentence_silence_ms``: silence that ends a sentence. ``max_sentence_ms``: a sentence is
    cut before it becomes longer; if speech goes on, the next begins right there.
    ``window_samples``: samples per probability. ``noise_threshold``: from -1 to 1, towards 1 more
    is taken for noise and towards -1 for speech (``speech_noise_threshold``, nls-protocol.md 2.1).
    """

    def __init__(
        self,
        max_sentence_silence_ms: int,
        max_sentence_ms: int,
        window_samples: int = WINDOW_SAMPLES,
        noise_threshold: float = 0.0,
    ) -> None:
        self.configure(max_sentence_silence_ms)
        self._speech_from = _shifted(START_PROBABILITY, noise_threshold)
        self._speech_down_to = _shifted(STOP_PROBABILITY, noise_threshold)
        self._window = window_samples
        start_windows = max(START_WINDOWS, round(START_WINDOWS * WINDOW_SAMPLES / window_samples))
        self._start_speech = math.ceil(start_windows * START_SPEECH_WINDOWS / START_WINDOWS)
        # At least the windows that confirm a start and one more, so that every limit holds.
        self._max_sentence = max(_samples(max_sentence_ms), (start_windows + 1) * window_samples)
        self._position = 0
        self._recent: deque[bool] = deque(maxlen=start_windows)
        self._start: int | None = None
        self._speech_end = 0
        self._speaking = False

    def configure(self, max_sentence_silence_ms: int) -> None:
        """Change the silence that ends a sentence; it holds for one that is open too."""
        self._max_silence = _samples(max_sentence_silence_ms)

    def feed(self, probability: float) -> list[Endpoint]:
        """Take in the speech probability of the next window."""
        self._position += self._window
        if self._start is None:
            return self._feed_closed(probability)
        return self._feed_open(self._start, probability)

    def flush(self, total_samples: int) -> list[Endpoint]:
        """The stream has ended after ``total_samples``: end the open sentence.

        A start that was still waiting to be confirmed counts, so that a very short utterance is
        heard. Samples after the last whole window belong to the speech that they follow.
        """
        endpoints: list[Endpoint] = []
        if self._start is None and any(self._recent):
            endpoints.append(self._open())
        if self._start is not None:
            # The caller may have padded the last window, so the true length has the last word.
            end = total_samples if self._speaking else min(self._speech_end, total_samples)
            self._speech_end = end
            endpoints.append(self._close(self._start, cut=False))
        self._recent.clear()
        self._speaking = False
        return endpoints

    def _feed_closed(self, probability: float) -> list[Endpoint]:
        if self._speaking and probability >= self._speech_down_to:
            # The last sentence was cut in the middle of speech, which goes on.
            self._recent.append(True)
            return [self._open()]
        self._speaking = False
        self._recent.append(probability >= self._speech_from)
        if sum(self._recent) < self._start_speech:
            return []
        return [self._open()]

    def _feed_open(self, start: int, probability: float) -> list[Endpoint]:
        if probability >= self._speech_from:
            self._speaking = True
        elif probability < self._speech_down_to:
            self._speaking = False
        if self._speaking:
            self._speech_end = self._position
        if self._position - self._speech_end >= self._max_silence and not self._speaking:
            return [self._close(start, cut=False)]
        if self._position + self._window - start > self._max_sentence:
            return [self._close(start, cut=True)]
        return []

    def _open(self) -> SpeechStarted:
        """Begin a sentence at the first window of speech among the recent ones."""
        oldest = self._position - len(self._recent) * self._window
        recent = list(self._recent)
        self._start = oldest + recent.index(True) * self._window
        self._speaking = recent[-1]
        self._speech_end = self._position - recent[::-1].index(True) * self._window
        return SpeechStarted(self._start)

    def _close(self, start: int, cut: bool) -> SpeechStopped:
        self._start = None
        self._recent.clear()
        self._speaking = self._speaking and cut
        return SpeechStopped(start, self._speech_end, cut)


def _shifted(probability: float, noise_threshold: float) -> float:
    return min(max(probability + NOISE_STEP * noise_threshold, _LOWEST), _HIGHEST)


def _samples(ms: int) -> int:
    return ms * SAMPLE_RATE // 1000
