"""The near-field gate: audio that is too quiet to be the person at the microphone becomes silence.

Without it a recogniser in a noisy room writes down the neighbours and the television.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from app.audio.pcm import EMPTY, FULL_SCALE, Int16

SAMPLE_RATE: Final = 16_000
BLOCK_MS: Final = 100
BLOCK_SAMPLES: Final = SAMPLE_RATE * BLOCK_MS // 1000
OPEN_FACTOR: Final = 0.6
"""Share of the threshold that is enough while a sentence is open: people get quieter towards the
end of a sentence (design.md 3)."""


SURE_FACTOR: Final = 2.0
"""A block of so many thresholds opens the gate at once. A weaker one needs a successor that also
reaches the threshold: far speech of half the threshold on average has single blocks above it."""


class NearFieldGate:
    """Compares the RMS of fixed blocks of 100 ms of a 16 kHz stream with ``threshold`` (full
    scale is 1.0; 0 lets everything through).

    A block below it comes out as zeros, so all later times stay right. A sentence counts as open
    from a block that passed until ``hold_ms`` of gated blocks in a row. While none is open, a
    block between one and ``SURE_FACTOR`` thresholds is held back until the next one has confirmed
    it (both pass) or not (it becomes zeros); at the end of the stream it passes. Blocks lie on
    a fixed timeline from the first sample, so the result does not depend on how the client cut its
    audio.
    Not for use by two threads at once.
    """

    def __init__(self, threshold: float, hold_ms: int) -> None:
        self._threshold = threshold
        self._hold_ms = hold_ms
        self._pending: list[Int16] = []
        self._pending_samples = 0
        self._doubtful: Int16 | None = None
        self._open = False
        self._gated_run_ms = 0
        self._passed_samples = 0
        self._gated_samples = 0

    @property
    def passed_ms(self) -> int:
        """Audio that was let through since the start."""
        return self._passed_samples * 1000 // SAMPLE_RATE

    @property
    def gated_ms(self) -> int:
        """Audio that was silenced since the start."""
        return self._gated_samples * 1000 // SAMPLE_RATE

    def configure(self, hold_ms: int) -> None:
        """Change the hold time of a running stream."""
        self._hold_ms = hold_ms

    def feed(self, samples: Int16) -> Int16:
        """Take in the next samples (16 kHz), and return the blocks that they complete."""
        self._pending.append(samples)
        self._pending_samples += samples.size
        if self._pending_samples < BLOCK_SAMPLES:
            return EMPTY
        joined = np.concatenate(self._pending)
        usable = joined.size - joined.size % BLOCK_SAMPLES
        self._pending = [joined[usable:]]
        self._pending_samples = joined.size - usable
        out: list[Int16] = []
        for block in joined[:usable].reshape(-1, BLOCK_SAMPLES):
            self._judge(block, out)
        return _joined(out)

    def flush(self) -> Int16:
        """The stream has ended: what is held back, and the last, partial block, judged by its own
        RMS."""
        out: list[Int16] = []
        if self._pending_samples:
            self._judge(np.concatenate(self._pending), out)
            self._pending = []
            self._pending_samples = 0
        if self._doubtful is not None:
            self._pass(self._doubtful, out)
            self._doubtful = None
        return _joined(out)

    def _judge(self, block: Int16, out: list[Int16]) -> None:
        """Append to ``out`` what is decided now: ``block`` itself, and one held back before it."""
        wide = block.astype(np.float32)
        rms = float(np.sqrt(np.dot(wide, wide) / block.size)) / FULL_SCALE
        doubtful, self._doubtful = self._doubtful, None
        loud = rms >= self._threshold * (OPEN_FACTOR if self._open else 1.0)
        sure = self._open or doubtful is not None or rms >= self._threshold * SURE_FACTOR
        if doubtful is not None:
            (self._pass if loud else self._silence)(doubtful, out)
        if not loud:
            self._silence(block, out)
        elif sure:
            self._pass(block, out)
        else:
            self._doubtful = block

    def _pass(self, block: Int16, out: list[Int16]) -> None:
        self._open = True
        self._gated_run_ms = 0
        self._passed_samples += block.size
        out.append(block)

    def _silence(self, block: Int16, out: list[Int16]) -> None:
        self._gated_run_ms += BLOCK_MS
        self._open = self._open and self._gated_run_ms < self._hold_ms
        self._gated_samples += block.size
        block.fill(0)
        out.append(block)


def _joined(blocks: list[Int16]) -> Int16:
    return np.concatenate(blocks) if blocks else EMPTY
