"""Where sound begins and ends, on blocks of 10 ms, and the sentences that follow from it.

Two sans-time parts of the fake recogniser: :class:`LoudBlocks` turns samples into blocks that are
loud or not, :class:`SentenceTracker` turns those into sentences. Neither depends on how the audio
was cut into feeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from app.audio.pcm import Float32

SAMPLE_RATE: Final = 16_000
BLOCK_MS: Final = 10
BLOCK: Final = SAMPLE_RATE * BLOCK_MS // 1000

LOUD_RMS: Final = 0.005
"""A block is loud when its RMS is above this. Zeroed (gated) audio and the dither of a 16-bit
recording (RMS 1e-5) are silence; any tone or speech that a near-field gate lets through (from
0.006 on) is loud. The RMS, not the peak, so that the ringing of a resampler around the edge of a
tone does not lengthen it."""

_ENERGY: Final = LOUD_RMS**2


class LoudBlocks:
    """One stream's samples as 10 ms blocks."""

    def __init__(self) -> None:
        self.position_ms = 0
        self._rest: Float32 = np.empty(0, np.float32)

    def feed(self, samples: Float32) -> list[int]:
        """The start times (ms) of the loud blocks that ``samples`` complete, ascending."""
        if self._rest.size:
            samples = np.concatenate((self._rest, samples))
        whole = samples.size - samples.size % BLOCK
        # A copy of the few samples left over: a view would keep the whole feed alive.
        self._rest = samples[whole:].copy()
        if not whole:
            return []
        blocks = samples[:whole].reshape(-1, BLOCK)
        energy = np.einsum("ij,ij->i", blocks, blocks)
        first = self.position_ms
        self.position_ms += len(blocks) * BLOCK_MS
        return [
            first + BLOCK_MS * index for index in np.flatnonzero(energy > _ENERGY * BLOCK).tolist()
        ]

    def flush(self) -> tuple[int, int] | None:
        """The stream has ended: (start, end) in ms of the incomplete last block if it is loud.

        Its length is rounded to a millisecond; what rounds to nothing is nothing.
        """
        rest, self._rest = self._rest, self._rest[:0]
        length_ms = round(rest.size * 1000 / SAMPLE_RATE)
        if not length_ms:
            return None
        start_ms = self.position_ms
        self.position_ms += length_ms
        loud = float(np.dot(rest, rest)) > _ENERGY * rest.size
        return (start_ms, start_ms + length_ms) if loud else None


@dataclass(slots=True)
class Sentence:
    """From the start of the first loud block to the end of the last one, in ms; ``number`` counts
    the stream's sentences from 0."""

    number: int
    start_ms: int
    end_ms: int

    @property
    def length_ms(self) -> int:
        return self.end_ms - self.start_ms


class SentenceTracker:
    """Cuts loud blocks into sentences: at silence, or when one gets too long."""

    def __init__(self, max_silence_ms: int, max_sentence_ms: int) -> None:
        self.open: Sentence | None = None
        self.set_silence(max_silence_ms)
        # Rounded down to whole blocks: a sentence is never longer than what was asked for.
        self._max_sentence_ms = max(BLOCK_MS, max_sentence_ms - max_sentence_ms % BLOCK_MS)
        self._count = 0

    def set_silence(self, max_silence_ms: int) -> None:
        """Change the end-of-sentence silence; an open sentence follows the new one."""
        self._max_silence_ms = max(BLOCK_MS, max_silence_ms)

    def loud(self, start_ms: int, end_ms: int) -> bool:
        """Take in a loud block. True if it begins a sentence; call :meth:`due` before."""
        if self.open is not None:
            self.open.end_ms = end_ms
            return False
        self.open = Sentence(self._count, start_ms, end_ms)
        self._count += 1
        return True

    def due(self, position_ms: int) -> Sentence | None:
        """The open sentence, taken out, if it is over once the audio up to here was looked at."""
        sentence = self.open
        if sentence is None or position_ms < self._ends_at(sentence):
            return None
        self.open = None
        return sentence

    def finish(self) -> Sentence | None:
        """The audio is over: the open sentence, taken out."""
        sentence, self.open = self.open, None
        return sentence

    def _ends_at(self, sentence: Sentence) -> int:
        return min(
            sentence.end_ms + self._max_silence_ms, sentence.start_ms + self._max_sentence_ms
        )
