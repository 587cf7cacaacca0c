"""AAC-LC in ADTS frames (ISO/IEC 14496-3 section 1.A.2): playable from any frame on."""

from __future__ import annotations

from typing import Final

import numpy as np

from app.audio.encode_packets import PacketEncoder
from app.audio.pcm import Int16

_RATES: Final = (
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
)  # fmt: skip
"""By the number that stands for each in an ADTS header."""

_LC_PROFILE: Final = 1
_MONO: Final = 1
_HEADER_BYTES: Final = 7

_HASTE_SAMPLES: Final = 64
"""Of silence in front of a stream of 8 kHz. The encoder gives its first frame when it has two, of
1,024 samples each: 256 ms, of which this takes away 8."""


class AacEncoder:
    """One ADTS header for each frame of 1,024 samples, and nothing in front of the first.

    ADTS cannot tell how much silence the encoder puts around the audio: it begins 1,024 samples
    late (128 ms at 8 kHz, 21 ms at 48 kHz; 64 more at 8 kHz), and some follows it.
    """

    blocking: Final = True

    def __init__(self, sample_rate: int, mark: str = "") -> None:
        """``mark`` has no place in ADTS."""
        self._codec = PacketEncoder(
            "aac",
            sample_rate,
            "fltp",
            bit_rate=_bit_rate(sample_rate),
            # The default search costs four times the CPU time.
            options={"aac_coder": "fast"},
        )
        self._rate_number = _RATES.index(sample_rate)
        self._hurry = sample_rate == _RATES[-1]

    def header(self, total_samples: int | None) -> bytes:
        """See :class:`app.audio.encode.Encoder`: nothing."""
        return b""

    def encode(self, samples: Int16) -> bytes:
        """See :class:`app.audio.encode.Encoder`."""
        if self._hurry and samples.size:
            self._hurry = False
            samples = np.concatenate([np.zeros(_HASTE_SAMPLES, np.int16), samples])
        return self._framed(self._codec.feed(samples))

    def finish(self) -> bytes:
        """See :class:`app.audio.encode.Encoder`."""
        return self._framed(self._codec.flush())

    def _framed(self, packets: list[bytes]) -> bytes:
        return b"".join(
            part for packet in packets for part in (self._adts_header(len(packet)), packet)
        )

    def _adts_header(self, packet_bytes: int) -> bytes:
        """MPEG-4, no checksum, one frame, a buffer fullness of 0x7FF (variable bit rate)."""
        size = packet_bytes + _HEADER_BYTES
        bits = 0xFFF1 << 40
        bits |= _LC_PROFILE << 38 | self._rate_number << 34 | _MONO << 30
        bits |= size << 13 | 0x7FF << 2
        return bits.to_bytes(_HEADER_BYTES, "big")


def _bit_rate(sample_rate: int) -> int:
    """Two to three bits a sample: speech is as good as the band allows."""
    return {8_000: 24_000, 11_025: 32_000, 16_000: 48_000}.get(
        sample_rate, 64_000 if sample_rate < 32_000 else 96_000
    )
