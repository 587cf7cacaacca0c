"""The sample formats of WAV files that need no codec library, each to 16 bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.audio import wav
from app.audio.pcm import Float32, Int16, to_int16


@dataclass(frozen=True, slots=True)
class SampleFormat:
    """``size``: bytes per sample of one channel. ``read``: a whole number of samples, channels
    interleaved, to int16 of shape (n,)."""

    size: int
    read: Callable[[bytes], Int16]


def bounded(samples: NDArray[np.floating]) -> Float32:
    """Floats of any origin to float32 in [-1, 1]: NaN becomes 0, the rest is clipped."""
    clipped: Float32 = np.clip(np.nan_to_num(samples, nan=0.0), -1.0, 1.0).astype(np.float32)
    return clipped


def _s16(data: bytes) -> Int16:
    return np.frombuffer(data, "<i2").astype(np.int16, copy=False)


def _u8(data: bytes) -> Int16:
    return (np.frombuffer(data, np.uint8).astype(np.int16) - 128) << 8


def _s24(data: bytes) -> Int16:
    """The upper 16 of 24 bits."""
    upper = np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(-1, 3)[:, 1:])
    return upper.view("<i2").reshape(-1).astype(np.int16, copy=False)


def _s32(data: bytes) -> Int16:
    """The upper 16 of 32 bits."""
    return np.frombuffer(data, "<i2")[1::2].astype(np.int16)


def _f32(data: bytes) -> Int16:
    return to_int16(bounded(np.frombuffer(data, "<f4")))


def _f64(data: bytes) -> Int16:
    return to_int16(bounded(np.frombuffer(data, "<f8")))


def _mulaw_table() -> Int16:
    """ITU-T G.711 mu-law: sign, 3 bits of exponent, 4 of mantissa, all inverted."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4 & 7).astype(np.int16), (code & 15).astype(np.int16)
    size = ((mantissa << 3) + 0x84 << exponent) - 0x84
    return np.where(code & 0x80, -size, size).astype(np.int16)


def _alaw_table() -> Int16:
    """ITU-T G.711 A-law: sign, exponent and mantissa with every second bit inverted."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (code >> 4 & 7).astype(np.int16), (code & 15).astype(np.int16)
    fine = (mantissa << 4) + 8
    size = np.where(exponent == 0, fine, fine + 0x100 << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, size, -size).astype(np.int16)


def _by_table(table: Int16) -> Callable[[bytes], Int16]:
    return lambda data: table[np.frombuffer(data, np.uint8)]


S16: Final = SampleFormat(2, _s16)

READABLE: Final[dict[tuple[int, int], SampleFormat]] = {
    (wav.CODEC_PCM, 8): SampleFormat(1, _u8),
    (wav.CODEC_PCM, 16): S16,
    (wav.CODEC_PCM, 24): SampleFormat(3, _s24),
    (wav.CODEC_PCM, 32): SampleFormat(4, _s32),
    (wav.CODEC_FLOAT, 32): SampleFormat(4, _f32),
    (wav.CODEC_FLOAT, 64): SampleFormat(8, _f64),
    (wav.CODEC_ALAW, 8): SampleFormat(1, _by_table(_alaw_table())),
    (wav.CODEC_MULAW, 8): SampleFormat(1, _by_table(_mulaw_table())),
}
"""By (codec number, bits) of a WAV header."""
