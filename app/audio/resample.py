"""One sample rate to another, as the audio arrives."""

from __future__ import annotations

from fractions import Fraction
from typing import Final, Literal

import numpy as np
import soxr  # type: ignore[import-untyped]  # the package has no py.typed marker

from app.audio.pcm import EMPTY, Int16, to_float, to_int16

Quality = Literal["LQ", "HQ"]

SOXR_DTYPE: Final = "float32"
"""soxr dithers int16 output: silence would come out as noise of one step, and the result would
depend on how the input was cut (by two steps, measured). In float32 neither happens, and it costs
half as much."""


class Resampler:
    """A mono stream from ``in_rate`` to ``out_rate`` (Hz). Not for use by two threads at once.

    The samples that come out are the same for every way to cut the input, and are
    ``round(n * out_rate / in_rate)`` in number for ``n`` samples, once flushed; equal rates pass
    the input on untouched.

    ``quality``: ``HQ`` has its first output after 60 to 100 ms of input and then stays up to 35 ms
    behind, which is nothing against a recogniser's step or an engine's first piece; ``LQ`` has its
    first after 30 to 80 ms and stays 8 ms behind, for audio that comes in pieces of a few ms, at
    the price of a duller top of the band.
    """

    def __init__(self, in_rate: int, out_rate: int, quality: Quality = "HQ") -> None:
        self.in_rate = in_rate
        self.out_rate = out_rate
        self._taken = 0
        self._given = 0
        self._stream: soxr.ResampleStream | None = None
        if in_rate != out_rate:
            self._stream = soxr.ResampleStream(
                in_rate, out_rate, 1, dtype=SOXR_DTYPE, quality=quality
            )

    def feed(self, samples: Int16) -> Int16:
        """Take in the next samples, and return what is ready: shape (n,), maybe empty."""
        if self._stream is None:
            return samples
        if not samples.size:
            return EMPTY
        self._taken += samples.size
        ready = to_int16(self._stream.resample_chunk(to_float(samples)))
        self._given += ready.size
        return ready

    def flush(self) -> Int16:
        """The stream has ended: the rest. A new stream may then begin."""
        if self._stream is None or not self._taken:
            return EMPTY
        tail = to_int16(self._stream.resample_chunk(np.empty(0, np.float32), last=True))
        # The number of samples is kept by us: soxr's own count is off by one for some lengths.
        total = round(Fraction(self._taken * self.out_rate, self.in_rate))
        missing = max(0, total - self._given)
        self._stream.clear()
        self._taken = self._given = 0
        if tail.size >= missing:
            return tail[:missing]
        return np.pad(tail, (0, missing - tail.size), mode="edge" if tail.size else "constant")
