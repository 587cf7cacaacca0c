"""What :class:`app.serving.worker.segmenting.SegmentingRecognition` knows of a task: its audio, its
sentences, and where each of them is.

Positions are samples (16 kHz) since the start of the stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec
import numpy as np

from app.audio.endpoint import Endpointer
from app.audio.pcm import Int16
from app.core.speech import RecognitionOptions, Word
from app.serving.worker.ordering import Place, SentenceOrder
from app.serving.worker.refining import Refinement
from app.serving.worker.tasks import RecognitionSink
from app.serving.worker.writing import Finish

SAMPLE_RATE: Final = 16_000
"""The VAD's rate; the parts of an engine that hears sentences have the same."""


def to_ms(samples: int) -> int:
    """Samples to whole milliseconds."""
    return samples * 1000 // SAMPLE_RATE


@dataclass(slots=True, eq=False)
class Sentence:
    """A sentence that the VAD found. ``stop`` is None while it is open. ``fed`` is the position
    up to which its audio was taken in; ``audio`` keeps that where it is heard whole later.
    ``raw`` is the text of the first pass so far, ``shown`` the same with what it needed, ``told``
    what the client has of it."""

    start: int
    feed_start: int
    fed: int
    stop: int | None = None
    feed_stop: int | None = None
    handle: object | None = None
    place: Place | None = None
    audio: list[Int16] = field(default_factory=list)
    raw: str = ""
    shown: str = ""
    told: str = ""

    def take_audio(self) -> Int16:
        """All of the audio that was kept; it is kept no longer."""
        pieces, self.audio = self.audio, []
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int16)

    def placed(self, words: Sequence[Word]) -> tuple[Word, ...]:
        """The words in the task's time, inside their sentence: the engine heard the pre-roll too,
        and may put the beginning of a word there."""
        first = to_ms(self.start)
        last = to_ms(self.fed if self.stop is None else self.stop)
        offset = to_ms(self.feed_start)

        def inside(ms: int) -> int:
            return min(max(ms + offset, first), last)

        return tuple(Word(word.text, inside(word.start_ms), inside(word.end_ms)) for word in words)


class StreamOwner(Protocol):
    """Who serves the streams."""

    def audio_came(self, stream: SegmentedStream) -> None:
        """A stream has more audio, or its end."""

    def gone(self, stream: SegmentedStream) -> None:
        """A stream was cancelled."""


@dataclass(slots=True, eq=False)
class SegmentedStream:
    """One task.

    ``first_pass``: its sentences are heard as they are spoken. ``needs``: what the texts of that
    lack. ``sentences`` are those that are not yet through it, ``refining`` the final texts that
    are on their way, ``order`` what the client is told of all of them.
    """

    owner: StreamOwner
    options: RecognitionOptions
    sink: RecognitionSink
    log_id: str
    endpointer: Endpointer
    vad: object
    first_pass: bool
    needs: Finish
    order: SentenceOrder
    audio: list[Int16] = field(default_factory=list)
    base: int = 0  # position of the first kept sample
    total: int = 0  # position after the last sample that came
    heard: int = 0  # position up to which the VAD has listened
    given: int = 0  # position up to which audio belongs to sentences that have ended
    processed: int = 0  # position that the sink was told
    sentences: deque[Sentence] = field(default_factory=deque)
    refining: set[Refinement] = field(default_factory=set)
    ended: bool = False
    flushed: bool = False
    closed: bool = False

    def feed(self, samples: Int16) -> None:
        """More audio."""
        self.audio.append(samples)
        self.total += len(samples)
        self.owner.audio_came(self)

    def end(self) -> None:
        """No more audio."""
        self.ended = True
        self.owner.audio_came(self)

    def configure(self, max_sentence_silence_ms: int) -> None:
        """Change the end-of-sentence silence."""
        self.endpointer.configure(max_sentence_silence_ms)

    def tell_source_rate(self, source_rate: int) -> None:
        """What follows is made from audio of this rate (Hz)."""
        self.options = msgspec.structs.replace(self.options, source_rate=source_rate)

    def cancel(self) -> None:
        """Forget the stream; its sink is called no more."""
        if not self.closed:
            self.closed = True
            self.owner.gone(self)

    def available(self, sentence: Sentence) -> int:
        """The position up to which there is audio for a sentence."""
        return self.heard if sentence.feed_stop is None else sentence.feed_stop

    def slice(self, start: int, stop: int) -> Int16:
        """The kept audio from ``start`` to ``stop``."""
        if len(self.audio) != 1:
            self.audio = [np.concatenate(self.audio)] if self.audio else []
        if not self.audio:
            return np.zeros(0, dtype=np.int16)
        return self.audio[0][start - self.base : stop - self.base]

    def forget(self, position: int) -> None:
        """Drop the audio before ``position``."""
        drop = position - self.base
        while drop > 0 and self.audio:
            first = self.audio[0]
            taken = min(drop, len(first))
            if taken == len(first):
                self.audio.pop(0)
            else:
                # A copy, so that the long block behind the slice is freed.
                self.audio[0] = first[taken:].copy()
            self.base += taken
            drop -= taken
