"""MP3 of a constant bit rate, by LAME."""

from __future__ import annotations

import struct
from typing import Final

from app.audio.encode_mark import id3_tag
from app.audio.encode_packets import PacketEncoder
from app.audio.pcm import Int16

ENCODER_DELAY: Final = 576
"""Samples that LAME puts in front of the audio. A decoder is 529 late on top of that, which it
knows of itself."""

_PADDING_BIT: Final = 0x02
"""In the third byte of a frame's header: the frame is one byte longer than the others."""

_HAS_ALL_FIELDS: Final = 0x0F
"""Number of frames, number of bytes, table of contents, quality."""

_WRITER: Final = b"LAME3.100"
"""Players read the delay only behind a name that they know."""

_TABLE_ENTRIES: Final = 100
_FIELDS: Final = struct.Struct(">4sIII100sI9s12s3s4xI2s")
"""Magic, flags, frames, bytes, table of contents, quality; LAME's part: version, what is of no
use here (levels, presets), delay and padding, reserved, bytes, checksum of the music. The
checksum of all that comes behind it."""


class Mp3Encoder:
    """Frames of 24 to 72 ms.

    A stream begins with its first frame. It has no place to tell how much silence the encoder puts
    around the audio, so that is heard: 1,105 samples in front (138 ms at 8 kHz, 69 ms at 16 kHz,
    23 ms at 48 kHz), and some behind. A file whose length is known begins with a frame that tells
    it (the "Info" tag, with LAME's extension), so players cut it away.
    """

    blocking: Final = True

    def __init__(self, sample_rate: int, mark: str = "") -> None:
        self._tag = id3_tag(mark) if mark else b""
        self._mpeg1 = sample_rate >= 32_000
        bit_rate = _bit_rate(sample_rate)
        self._codec = PacketEncoder(
            "libmp3lame",
            sample_rate,
            "s16p",
            bit_rate=bit_rate,
            # Without the reservoir a frame does not wait for the ones behind it; level 7 costs
            # half the CPU time of the default.
            options={"reservoir": "0", "compression_level": "7"},
        )
        # Both versions of MPEG have 1,152 samples or half of that, at 8 bits a byte.
        self._frame_samples = 1_152 if self._mpeg1 else 576
        self._frame_bytes = self._frame_samples // 8 * bit_rate // sample_rate
        self._first_header = b""
        self._frames = 0
        self._bytes = 0

    def header(self, total_samples: int | None) -> bytes:
        """See :class:`app.audio.encode.Encoder`: the mark, and a frame without sound if the length
        is known."""
        if total_samples is None or not self._frames:
            return self._tag
        padding = self._frames * self._frame_samples - ENCODER_DELAY - total_samples
        return self._tag + self._info_frame(padding)

    def encode(self, samples: Int16) -> bytes:
        """See :class:`app.audio.encode.Encoder`."""
        return self._counted(self._codec.feed(samples))

    def finish(self) -> bytes:
        """See :class:`app.audio.encode.Encoder`."""
        return self._counted(self._codec.flush())

    def _counted(self, frames: list[bytes]) -> bytes:
        data = b"".join(frames)
        self._first_header = self._first_header or data[:4]
        self._frames += len(frames)
        self._bytes += len(data)
        return data

    def _info_frame(self, padding: int) -> bytes:
        """``padding``: samples behind the audio."""
        head = bytearray(self._first_header)
        head[2] &= ~_PADDING_BIT
        # Of one channel; no bit of it is set, so the frame is silent for players that do not know
        # the tag.
        side_info = bytes(17 if self._mpeg1 else 9)
        fields = _FIELDS.pack(
            b"Info",
            _HAS_ALL_FIELDS,
            self._frames,
            self._frame_bytes + self._bytes,
            bytes(entry * 256 // _TABLE_ENTRIES for entry in range(_TABLE_ENTRIES)),
            0,
            _WRITER,
            b"",
            (ENCODER_DELAY << 12 | padding).to_bytes(3, "big"),
            self._frame_bytes + self._bytes,
            b"",
        )
        tag = bytes(head) + side_info + fields
        return (tag + _crc16(tag).to_bytes(2, "big")).ljust(self._frame_bytes, b"\0")


def _bit_rate(sample_rate: int) -> int:
    """A frame has room for the tag at each of these, and every MPEG version has them."""
    if sample_rate < 16_000:
        return 32_000
    if sample_rate < 32_000:
        return 48_000 if sample_rate == 16_000 else 64_000
    return 96_000


def _crc16(data: bytes) -> int:
    """CRC-16/ARC, which LAME's part of the tag ends with."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc
