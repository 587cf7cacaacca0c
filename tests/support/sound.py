"""Test signals: mono int16 arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Int16 = NDArray[np.int16]


def tone(ms: int, rate: int = 16_000, hz: float = 440.0, level: float = 0.3) -> Int16:
    """A sine: loud, so speech to the fake engine."""
    t = np.arange(rate * ms // 1000) / rate
    return (np.sin(2 * np.pi * hz * t) * level * 32767).astype(np.int16)


def silence(ms: int, rate: int = 16_000) -> Int16:
    """Nothing."""
    return np.zeros(rate * ms // 1000, dtype=np.int16)


def joined(*parts: Int16) -> Int16:
    """One after the other."""
    return np.concatenate(parts)


def main_frequency(samples: Int16, rate: int) -> float:
    """The strongest frequency in Hz."""
    spectrum = np.abs(np.fft.rfft(samples.astype(np.float64) * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))
