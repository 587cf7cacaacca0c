"""How loud audio is, block by block, and what the near-field gate makes of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from app.audio.gate import BLOCK_MS, BLOCK_SAMPLES, NearFieldGate
from app.audio.pcm import FULL_SCALE, Int16

Float64 = NDArray[np.float64]


class Verdict(StrEnum):
    """What became of a block of 100 ms; the first two have passed."""

    OPEN = "open"
    """Passed, at the threshold or above."""
    HELD = "held"
    """Passed below the threshold, because a sentence was open."""
    GATED = "gated"
    """Silenced; it may be above the threshold, if its neighbours did not confirm it."""


@dataclass(frozen=True, slots=True)
class Column:
    """One or more blocks in a row, by the RMS (full scale is 1) and the verdict of the loudest."""

    rms: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Levels:
    """A recording under the gate.

    ``rms``: of each block of 100 ms (the last may be shorter), shape (n,), full scale is 1.
    ``verdicts``: as many. ``threshold`` and ``hold_ms``: of the gate. ``openings``: how often a
    sentence began to count as open.
    """

    rms: Float64
    verdicts: tuple[Verdict, ...]
    threshold: float
    hold_ms: int
    openings: int

    @property
    def seconds(self) -> float:
        """Length of the audio, in whole blocks."""
        return len(self.verdicts) * BLOCK_MS / 1000

    @property
    def passed(self) -> Float64:
        """The RMS of the blocks that passed."""
        return self.rms[self._passed]

    @property
    def gated(self) -> Float64:
        """The RMS of the others."""
        return self.rms[~self._passed]

    @property
    def _passed(self) -> NDArray[np.bool_]:
        return np.array([each is not Verdict.GATED for each in self.verdicts], dtype=np.bool_)

    def columns(self, most: int) -> tuple[int, list[Column]]:
        """At most ``most`` columns, and how many blocks make one."""
        each = max(1, -(-len(self.verdicts) // most))
        return each, [
            self._loudest(start, start + each) for start in range(0, len(self.verdicts), each)
        ]

    def _loudest(self, start: int, end: int) -> Column:
        at = start + int(np.argmax(self.rms[start:end]))
        return Column(float(self.rms[at]), self.verdicts[at])


def measure(pieces: Iterable[Int16], threshold: float, hold_ms: int) -> Levels:
    """Put 16 kHz audio, cut anywhere, through a :class:`~app.audio.gate.NearFieldGate`."""
    gate = NearFieldGate(threshold, hold_ms)
    rms: list[float] = []
    passed: list[bool] = []

    def given(out: Int16) -> None:
        # Of whole blocks, as they were fed. What the gate silences is zeros, and what it passes is
        # not: zeros pass at a threshold of 0 only.
        for start in range(0, out.size, BLOCK_SAMPLES):
            passed.append(threshold == 0 or bool(out[start : start + BLOCK_SAMPLES].any()))

    for block in _blocks(pieces):
        rms.append(_rms(block))
        given(gate.feed(block))
    given(gate.flush())
    verdicts = tuple(map(_verdict, rms, passed, [threshold] * len(rms)))
    return Levels(np.array(rms, np.float64), verdicts, threshold, hold_ms, gate.openings)


def _verdict(rms: float, passed: bool, threshold: float) -> Verdict:
    if not passed:
        return Verdict.GATED
    return Verdict.OPEN if rms >= threshold else Verdict.HELD


def _rms(block: Int16) -> float:
    wide = block.astype(np.float64)
    return float(np.sqrt(np.dot(wide, wide) / block.size)) / FULL_SCALE


def _blocks(pieces: Iterable[Int16]) -> Iterator[Int16]:
    """The same audio in the gate's blocks; the last may be shorter."""
    rest = np.empty(0, np.int16)
    for piece in pieces:
        rest = np.concatenate([rest, piece])
        whole = rest.size - rest.size % BLOCK_SAMPLES
        yield from rest[:whole].reshape(-1, BLOCK_SAMPLES)
        rest = rest[whole:]
    if rest.size:
        yield rest
