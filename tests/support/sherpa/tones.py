"""A tone alphabet: sound whose text is known, without a voice.

Each letter is a tone in the middle of its own mel band. The tiny models of this package hear and
speak it, so a test knows the text of a sound, and what one model speaks another hears. All sound
here is float32, mono, shape (samples,).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.audio.pcm import Float32

RATE: Final = 16_000
"""Samples per second of what the recognisers get."""
LETTERS: Final = "你好世界天气今明"
BANDS: Final = tuple(range(20, 20 + 7 * len(LETTERS), 7))
"""For each letter, the index of its band among the 80 mel bands."""
TONE_MS: Final = 160
GAP_MS: Final = 80
"""Silence behind each tone, so that a letter can be repeated."""

LEAD_MS: Final = 120
"""Silence before the first tone: no model sees anything rise in its very first frame."""
_RAMP_MS: Final = 15

Chord = int | tuple[int, ...]
"""The index of a letter, or of several that sound at once."""


def frequency(letter: int) -> float:
    """The middle of a letter's band in Hz.

    The runtime's mel bands end at 7600 Hz for zipformers and at 8000 Hz for Paraformer and
    SenseVoice (sherpa-onnx 1.13.4, features.cc): the tone is in the right band of both.
    """
    low, high = _mel(20.0), _mel(7800.0)
    width = (high - low) / 81
    return float(700 * np.expm1((low + (BANDS[letter] + 1) * width) / 1127))


def spoken(text: str, *, rate: int = RATE) -> Float32:
    """A text in letters of the alphabet."""
    return tones([LETTERS.index(letter) for letter in text], rate=rate)


def tones(
    chords: Sequence[Chord], *, gap_ms: int = GAP_MS, level: float = 0.3, rate: int = RATE
) -> Float32:
    """Silence, then each chord with its gap; ``level`` is the chord's amplitude."""
    parts = [silence(LEAD_MS, rate=rate)]
    for chord in chords:
        letters = chord if isinstance(chord, tuple) else (chord,)
        parts += [_chord(letters, level, rate), silence(gap_ms, rate=rate)]
    return np.concatenate(parts)


def silence(ms: int, *, rate: int = RATE) -> Float32:
    """Nothing."""
    return np.zeros(rate * ms // 1000, np.float32)


def hummed(text: str, *, level: float = 0.2, lead_ms: int = 300, after_ms: int = 1200) -> Float32:
    """The same tones over a hum that silero takes for a voice, which bare tones are not.

    The hum has harmonics of 120 Hz with vibrato and tremolo and lies below the first letter. It
    begins 50 ms before the tones and ends with the last gap.
    """
    sound = np.concatenate([silence(lead_ms), spoken(text), silence(after_ms)])
    seconds = np.arange(sound.size) / RATE
    on = np.zeros(sound.size)
    on[RATE * (lead_ms - 50) // 1000 : sound.size - RATE * after_ms // 1000] = 1.0
    window = np.hanning(801)
    on = np.convolve(on, window / window.sum(), "same")
    pitch = 120 * (1 + 0.1 * np.sin(2 * np.pi * 3 * seconds))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    voice = (np.sin(phase) + np.sin(2 * phase) / 2 + np.sin(3 * phase) / 3) / 2
    tremolo = 1 + 0.7 * np.sin(2 * np.pi * 4 * seconds)
    return (sound + level * on * tremolo * voice).astype(np.float32)


def _mel(hz: float) -> float:
    return 1127 * float(np.log1p(hz / 700))


def _chord(letters: tuple[int, ...], level: float, rate: int) -> Float32:
    seconds = np.arange(rate * TONE_MS // 1000) / rate
    waves: NDArray[np.float64] = np.sum(
        [np.sin(2 * np.pi * frequency(letter) * seconds) for letter in letters], axis=0
    )
    ramp = rate * _RAMP_MS // 1000
    envelope = np.ones(seconds.size)
    envelope[:ramp], envelope[-ramp:] = np.split(np.hanning(2 * ramp), 2)
    return (envelope * level / len(letters) * waves).astype(np.float32)
