"""Opus in the two ways that clients know: as an Ogg stream, and in NLS's own frames.

Both are packets of 20 ms. Opus has rates of its own; audio at another one is resampled upwards.
"""

from __future__ import annotations

import random
import struct
from typing import Final

from app.audio.encode_mark import vorbis_comment
from app.audio.encode_packets import PacketEncoder
from app.audio.ogg import make_page
from app.audio.opus_frames import frame
from app.audio.pcm import Int16
from app.audio.resample import Resampler

GRANULE_RATE: Final = 48_000
"""Of the clock of an Opus stream, whatever the rate of the audio (RFC 7845 section 4)."""

_PACKET_GRANULES: Final = GRANULE_RATE // 50
_PRE_SKIP: Final = struct.Struct("<H")
_PRE_SKIP_OFFSET: Final = 10
_INPUT_RATE: Final = struct.Struct("<I")
_INPUT_RATE_OFFSET: Final = 12
"""Both in the identification header (RFC 7845 section 5.1)."""

_VENDOR: Final = "FunSpeech"
_TAGS: Final = b"OpusTags"
"""What the comment header begins with (RFC 7845 section 5.2)."""

_OPUS_RATES: Final = {11_025: 16_000, 22_050: 24_000, 32_000: 48_000, 44_100: 48_000}
"""Of the encoder, where it does not have the rate itself (Hz)."""

_OGG_BIT_RATES: Final = {8_000: 20_000, 16_000: 32_000, 24_000: 48_000, 48_000: 64_000}
"""Bits per second, by the encoder's rate."""

_FRAMED_BIT_RATE: Final = 27_800


class _Packets:
    """Samples at any rate to packets at a rate of Opus."""

    def __init__(self, sample_rate: int, opus_rate: int, bit_rate: int) -> None:
        self.opus_rate = opus_rate
        self.samples = 0
        """Given to the encoder so far, at ``opus_rate``."""
        self._resampler = Resampler(sample_rate, opus_rate)
        self.codec = PacketEncoder(
            "libopus",
            opus_rate,
            "s16",
            bit_rate=bit_rate,
            options={
                "application": "voip",
                "frame_duration": "20",
                "compression_level": "8",  # as NLS's C++ SDK has it
                # No packet takes more than 255 bytes, which is all that a frame of NLS has.
                "vbr": "constrained",
            },
        )

    def feed(self, samples: Int16) -> list[bytes]:
        return self._encode(self._resampler.feed(samples))

    def flush(self) -> list[bytes]:
        rest = self._encode(self._resampler.flush())
        return rest + self.codec.flush() if self.samples else []

    def _encode(self, samples: Int16) -> list[bytes]:
        self.samples += samples.size
        return self.codec.feed(samples)


class OggOpusEncoder:
    """An Ogg Opus stream (RFC 7845), a page for each packet so that none waits for others; it
    decodes to exactly the samples that went in."""

    blocking: Final = True

    def __init__(self, sample_rate: int, mark: str = "") -> None:
        self._sample_rate = sample_rate
        self._tags = _TAGS + vorbis_comment(_VENDOR, mark)
        opus_rate = _OPUS_RATES.get(sample_rate, sample_rate)
        self._packets = _Packets(sample_rate, opus_rate, _OGG_BIT_RATES[opus_rate])
        # Tells streams apart that somebody puts one behind the other in one file.
        self._serial = random.getrandbits(32)
        self._given = 0

    def header(self, total_samples: int | None) -> bytes:
        """See :class:`app.audio.encode.Encoder`: two pages. The length is told by the last one."""
        head = bytearray(self._packets.codec.extradata)
        _INPUT_RATE.pack_into(head, _INPUT_RATE_OFFSET, self._sample_rate)
        return make_page(bytes(head), serial=self._serial, begin=True) + make_page(
            self._tags, serial=self._serial, number=1
        )

    def encode(self, samples: Int16) -> bytes:
        """See :class:`app.audio.encode.Encoder`."""
        return b"".join(map(self._page, self._packets.feed(samples)))

    def finish(self) -> bytes:
        """See :class:`app.audio.encode.Encoder`."""
        packets = self._packets.flush()
        if not packets:
            return b""
        pages = [self._page(packet) for packet in packets[:-1]]
        return b"".join([*pages, self._page(packets[-1], end=self._end())])

    def _page(self, packet: bytes, end: int | None = None) -> bytes:
        """``end``: the granule position at which the stream ends, on its last page."""
        self._given += 1
        return make_page(
            packet,
            serial=self._serial,
            number=self._given + 1,
            granule=self._given * _PACKET_GRANULES if end is None else end,
            end=end is not None,
        )

    def _end(self) -> int:
        """Where the audio ends in the last packet, which is longer."""
        (pre_skip,) = _PRE_SKIP.unpack_from(self._packets.codec.extradata, _PRE_SKIP_OFFSET)
        samples = self._packets.samples * GRANULE_RATE // self._packets.opus_rate
        return int(pre_skip) + samples


class FramedOpusEncoder:
    """NLS's ``opu``: each packet behind one byte with its length, as its C++ SDK makes it: 20 ms,
    16 kHz, 27.8 kbit/s. At 8 kHz the packets are of that rate; any Opus decoder takes both.

    There is no place to tell the encoder's delay: the audio is 6.5 ms late, and there is up to a
    packet of silence behind it.
    """

    blocking: Final = True

    def __init__(self, sample_rate: int, mark: str = "") -> None:
        """``mark`` has no place in it."""
        opus_rate = 8_000 if sample_rate == 8_000 else 16_000
        self._packets = _Packets(sample_rate, opus_rate, _FRAMED_BIT_RATE)

    def header(self, total_samples: int | None) -> bytes:
        """See :class:`app.audio.encode.Encoder`: nothing."""
        return b""

    def encode(self, samples: Int16) -> bytes:
        """See :class:`app.audio.encode.Encoder`."""
        return b"".join(map(frame, self._packets.feed(samples)))

    def finish(self) -> bytes:
        """See :class:`app.audio.encode.Encoder`."""
        return b"".join(map(frame, self._packets.flush()))
