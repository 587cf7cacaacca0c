"""Audio to send: 16 kHz mono PCM (s16le), and where sound is in it."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

Int16 = NDArray[np.int16]

RATE: Final = 16_000
FRAME_MS: Final = 100
EXAMPLES: Final = Path(__file__).resolve().parents[1] / "examples"

_BLOCK_MS: Final = 10
_LOUD_RMS: Final = 0.01
"""The server's own near-field threshold: quieter sound is nothing to it."""
_PAUSE_MS: Final = 500


def tone(ms: int) -> bytes:
    """A 440 Hz sine: speech to the fake engine. A multiple of 100 ms has whole periods, so such
    pieces follow each other without a click."""
    t = np.arange(RATE * ms // 1000) / RATE
    return (np.sin(2 * np.pi * 440 * t) * 0.3 * 32767).astype("<i2").tobytes()


def silence(ms: int) -> bytes:
    """Zeros."""
    return bytes(RATE * ms // 1000 * 2)


def example(name: str) -> Int16:
    """One of the spoken examples."""
    with wave.open(str(EXAMPLES / f"{name}.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")


def spoken(samples: Int16) -> list[tuple[int, int]]:
    """Where sound begins and ends (ms), pauses of half a second apart, by its level alone."""
    size = RATE * _BLOCK_MS // 1000
    blocks = samples[: len(samples) // size * size].reshape(-1, size) / 32768
    loud = np.flatnonzero(np.sqrt(np.mean(blocks**2, axis=1)) >= _LOUD_RMS) * _BLOCK_MS
    found: list[tuple[int, int]] = []
    for start in loud.tolist():
        if found and start - found[-1][1] < _PAUSE_MS:
            found[-1] = (found[-1][0], start + _BLOCK_MS)
        else:
            found.append((start, start + _BLOCK_MS))
    return found
