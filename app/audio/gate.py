"""The near-field gate: audio that is too quiet to be the person at the microphone becomes silence.

Without it a recogniser in a noisy room writes down the neighbours and the television.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from app.audio.pcm import FULL_SCALE, Int16, joined

SAMPLE_RATE: Final = 16_000
BLOCK_MS: Final = 100
BLOCK_SAMPLES: Final = SAMPLE_RATE * BLOCK_MS // 1000
OPEN_FACTOR: Final = 0.6
"""Share of the threshold that is enough while a sentence is open: people get quieter towards the
end of a sentence."""


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
    a fixed timeline from the first sample, so the samples do not depend on how the client cut its
    audio. A block whose first part is so loud that the rest cannot matter passes as it comes; the
    others come out when they are complete. Not for use by two threads at once.
    """

    def __init__(self, threshold: float, hold_ms: int) -> None:
        self._threshold = threshold
        self._hold_ms = hold_ms
        self._open = False
        self._gated_run_ms = 0
        self._passed_samples = 0
        self._gated_samples = 0
        self._openings = 0
        self._doubtful: list[Int16] = []
        # The block under way: what of it is undecided, how much came, the sum of its squares.
        self._undecided: list[Int16] = []
        self._passing = False
        self._size = 0
        self._energy = 0.0

    @property
    def passed_ms(self) -> int:
        """Audio that was let through since the start."""
        return self._passed_samples * 1000 // SAMPLE_RATE

    @property
    def gated_ms(self) -> int:
        """Audio that was silenced since the start."""
        return self._gated_samples * 1000 // SAMPLE_RATE

    @property
    def openings(self) -> int:
        """How often a sentence began to count as open."""
        return self._openings

    def configure(self, hold_ms: int) -> None:
        """Change the hold time of a running stream."""
        self._hold_ms = hold_ms

    def feed(self, samples: Int16) -> Int16:
        """Take in the next samples (16 kHz), and return those that are decided by now."""
        out: list[Int16] = []
        start = 0
        while start < samples.size:
            part = samples[start : start + BLOCK_SAMPLES - self._size]
            start += part.size
            self._take(part, out)
        return joined(out)

    def flush(self) -> Int16:
        """The stream has ended: what is held back, and the last, partial block, judged by its own
        RMS."""
        out: list[Int16] = []
        if self._size:
            self._judge(out)
        if self._doubtful:
            self._pass(self._doubtful, out)
        return joined(out)

    def _take(self, part: Int16, out: list[Int16]) -> None:
        """More of the block under way, at most to its end."""
        # Exact in float64, so that the split cannot change it.
        wide = part.astype(np.float64)
        self._energy += float(np.dot(wide, wide))
        self._size += part.size
        self._undecided.append(part)
        if self._passing or self._energy >= self._limit(self._sure_factor) * BLOCK_SAMPLES:
            self._pass(self._doubtful, out)
            self._pass(self._undecided, out)
            self._passing = True
        if self._size == BLOCK_SAMPLES:
            self._judge(out)

    @property
    def _sure_factor(self) -> float:
        """Thresholds that open the gate without a doubt, or keep it open."""
        if self._open:
            return OPEN_FACTOR
        return 1.0 if self._doubtful else SURE_FACTOR

    def _limit(self, factor: float) -> float:
        """Mean square, in sample units, at ``factor`` thresholds."""
        return (self._threshold * factor * FULL_SCALE) ** 2

    def _judge(self, out: list[Int16]) -> None:
        """The block under way is complete, or the stream's last."""
        level = self._energy / self._size
        if not self._passing:
            if level >= self._limit(self._sure_factor):
                self._pass(self._doubtful, out)
                self._pass(self._undecided, out)
            else:
                self._silence(self._doubtful, out)
                if level >= self._limit(1.0):
                    self._doubtful = self._undecided
                else:
                    self._silence(self._undecided, out)
        self._undecided = []
        self._passing = False
        self._size = 0
        self._energy = 0.0

    def _pass(self, parts: list[Int16], out: list[Int16]) -> None:
        for part in parts:
            self._openings += not self._open
            self._open = True
            self._gated_run_ms = 0
            self._passed_samples += part.size
            out.append(part)
        parts.clear()

    def _silence(self, parts: list[Int16], out: list[Int16]) -> None:
        size = sum(part.size for part in parts)
        if size:
            self._gated_run_ms += BLOCK_MS
            self._open = self._open and self._gated_run_ms < self._hold_ms
            self._gated_samples += size
            out.append(np.zeros(size, dtype=np.int16))
        parts.clear()
