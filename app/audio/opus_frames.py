"""Opus packets without a container, and what can be told of one without decoding it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from app.core.errors import BadAudio, UnsupportedFormat

SAMPLE_RATE: Final = 48_000
"""Of everything that an Opus decoder gives, whatever went into the encoder (Hz)."""

MAX_FRAMED_BYTES: Final = 255
MAX_FRAME_BYTES: Final = 1275
"""Of one frame; a packet holds up to 48 (RFC 6716 section 3.2)."""
MAX_PACKET_SAMPLES: Final = 5_760
"""120 ms at 48 kHz (RFC 6716 section 3.2.5)."""

HEAD_MAGIC: Final = b"OpusHead"
TAGS_MAGIC: Final = b"OpusTags"
"""How the headers begin; no packet of audio can begin like that."""
_HEAD_BYTES: Final = 19
_MAX_CHANNELS: Final = 8
"""Of the channel mapping families that have a meaning as loudspeakers (RFC 7845 section 5.1.1)."""
_PRE_SKIP_OFFSET: Final = 10


def frame(packet: bytes) -> bytes:
    """A packet as NLS's ``opu`` has it: behind one byte with its length.

    Raises:
        ValueError: an empty packet, or one longer than 255 bytes.
    """
    if not 0 < len(packet) <= MAX_FRAMED_BYTES:
        raise ValueError("a framed packet has 1 to 255 bytes")
    return bytes([len(packet)]) + packet


_STEREO: Final = 4
"""The bit of a packet's first byte (RFC 6716 section 3.1)."""


class FrameReader:
    """Takes framed packets apart; where the pieces of the stream begin and end does not matter."""

    def __init__(self) -> None:
        self._rest = b""
        self.position = 0
        """Bytes fed until the end of the last whole packet."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take in the next bytes, and return the packets that they complete, maybe empty ones."""
        data = self._rest + data
        packets = []
        start = 0
        while start < len(data) and (end := start + 1 + data[start]) <= len(data):
            packets.append(data[start + 1 : end])
            start = end
        self._rest = data[start:]
        self.position += start
        return packets


def framing(messages: Sequence[bytes]) -> bool | None:
    """Whether a stream that begins with these messages of a client is made of framed packets;
    False: each message is one bare packet. None: not to be told yet, which is the case of one
    message with one packet, since every tenth bare one begins with what could be its length.

    Framed are chains that end where their message does, all packets of one duration and alike in
    their channels.
    """
    packets = []
    for message in messages:
        reader = FrameReader()
        packets += reader.feed(message)
        if reader.position != len(message) or not message:
            return False
    kinds = {(packet_samples(packet), packet[0] & _STEREO if packet else 0) for packet in packets}
    if len(kinds) != 1 or None in next(iter(kinds)):
        return False
    return True if len(packets) > 1 else None


def packet_samples(packet: bytes) -> int | None:
    """How much a packet decodes to, in samples at 48 kHz; None if it cannot be one.

    By its first bytes and its length (RFC 6716 sections 3.1 and 3.2).
    """
    if not packet:
        return None
    code = packet[0] & 3
    frames = (1, 2, 2, 0)[code]
    if code == 3:
        frames = packet[1] & 0x3F if len(packet) > 1 else 0
    samples = frames * _frame_samples(packet[0] >> 3)
    if not 0 < samples <= MAX_PACKET_SAMPLES or (code == 1 and len(packet) % 2 == 0):
        return None
    # Two bytes of length per frame at most, the two of the header, and padding, which only
    # code 3 has.
    if code != 3 and len(packet) > frames * (MAX_FRAME_BYTES + 2) + 1:
        return None
    return samples


def _frame_samples(config: int) -> int:
    if config < 12:  # SILK: 10, 20, 40, 60 ms
        return (480, 960, 1_920, 2_880)[config & 3]
    if config < 16:  # hybrid: 10, 20 ms
        return (480, 960)[config & 1]
    return 120 << (config & 3)  # CELT: 2.5 to 20 ms


def checked_head(head: bytes) -> bytes:
    """An identification header that the decoder can be set up with (RFC 7845 section 5.1).

    Raises:
        BadAudio: damaged.
        UnsupportedFormat: more than 8 channels, or channels that are no loudspeakers.
    """
    if len(head) < _HEAD_BYTES or not head.startswith(HEAD_MAGIC) or head[8] & 0xF0:
        raise BadAudio("Invalid opus header!")
    channels, family = head[9], head[18]
    if channels > _MAX_CHANNELS or family > 1:
        raise UnsupportedFormat("This opus channel layout is not supported: send mono.")
    if channels == 0 or (family == 0 and channels > 2):
        raise BadAudio("Invalid opus header!")
    if family == 1 and not _mapping_holds(head, channels):
        raise BadAudio("Invalid opus header!")
    return head[: _HEAD_BYTES + (2 + channels if family else 0)]


def _mapping_holds(head: bytes, channels: int) -> bool:
    mapping = head[_HEAD_BYTES + 2 :]
    if len(mapping) < channels:
        return False
    streams, coupled = head[_HEAD_BYTES], head[_HEAD_BYTES + 1]
    return 0 < streams <= channels and coupled <= streams


def without_pre_skip(head: bytes) -> bytes:
    """The header for a decoder that goes on in the middle, where nothing is to be skipped."""
    return head[:_PRE_SKIP_OFFSET] + struct.pack("<H", 0) + head[_PRE_SKIP_OFFSET + 2 :]
