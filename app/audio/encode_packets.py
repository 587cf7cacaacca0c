"""Samples to the packets of one of FFmpeg's encoders; what is put around a packet is the business
of the format.

PyAV is imported at the first use: most requests want PCM.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import numpy as np

from app.audio.pcm import Int16

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext
    from av.audio.frame import AudioFrame


class PacketEncoder:
    """A mono stream through ``codec`` (FFmpeg's name) at ``sample_rate`` (Hz).

    ``sample_format``: what the encoder itself works on, in FFmpeg's names; ours are converted.
    ``bit_rate``: bits per second, None for an encoder without loss. Blocking work; not for use by
    two threads at once.
    """

    def __init__(
        self,
        codec: str,
        sample_rate: int,
        sample_format: str,
        *,
        bit_rate: int | None = None,
        options: Mapping[str, str],
    ) -> None:
        self._name: Final = codec
        self._sample_rate = sample_rate
        self._sample_format = sample_format
        self._bit_rate = bit_rate
        self._options = options
        self._opened: AudioCodecContext | None = None
        self._position = 0

    @property
    def extradata(self) -> bytes:
        """What the encoder has to say about the stream: about its end, too, once that is over."""
        return self._codec().extradata or b""

    def feed(self, samples: Int16) -> list[bytes]:
        """Take in the next samples, shape (n,); the packets that they complete, none empty."""
        return self._packets(self._frame(samples)) if samples.size else []

    def flush(self) -> list[bytes]:
        """The stream has ended: the rest. The encoder is used up."""
        return self._packets(None)

    def _packets(self, frame: AudioFrame | None) -> list[bytes]:
        found = map(bytes, self._codec().encode(frame))
        return [packet for packet in found if packet]

    def _codec(self) -> AudioCodecContext:
        if self._opened is None:
            from av import AudioCodecContext, CodecContext

            codec = CodecContext.create(self._name, "w")
            assert isinstance(codec, AudioCodecContext)
            codec.sample_rate = self._sample_rate
            codec.format = self._sample_format
            codec.layout = "mono"
            codec.thread_count = 1
            if self._bit_rate is not None:
                codec.bit_rate = self._bit_rate
            codec.options = dict(self._options)
            codec.open()
            self._opened = codec
        return self._opened

    def _frame(self, samples: Int16) -> AudioFrame:
        from av.audio.frame import AudioFrame

        packed = np.ascontiguousarray(samples).reshape(1, -1)
        frame = AudioFrame.from_ndarray(packed, format="s16", layout="mono")
        frame.sample_rate = self._sample_rate
        frame.pts = self._position
        frame.time_base = Fraction(1, self._sample_rate)
        self._position += samples.size
        return frame
