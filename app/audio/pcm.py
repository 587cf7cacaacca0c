"""Samples as numbers: the two array types of the audio path, and the way between them.

Audio is mono everywhere behind the decoder, in arrays of shape (n,).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Int16 = NDArray[np.int16]
Float32 = NDArray[np.float32]

FULL_SCALE: Final = 32768.0
"""One more than the largest int16, so that both directions are exact powers of two."""

EMPTY: Final[Int16] = np.empty(0, np.int16)
"""No samples. Not writable, because it is shared."""
EMPTY.flags.writeable = False


def joined(parts: Iterable[Int16]) -> Int16:
    """One after the other, shape (n,); a single part as it is."""
    found = [part for part in parts if part.size]
    if len(found) == 1:
        return found[0]
    return np.concatenate(found) if found else EMPTY


def to_float(samples: Int16) -> Float32:
    """int16 to float32 in [-1, 1)."""
    return samples.astype(np.float32) / np.float32(FULL_SCALE)


def to_int16(samples: Float32) -> Int16:
    """float32 in [-1, 1] to int16: rounded, and clipped where it is outside."""
    scaled: Float32 = np.rint(samples * np.float32(FULL_SCALE))
    return np.clip(scaled, -32768.0, 32767.0).astype(np.int16)
