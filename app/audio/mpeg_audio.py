"""What stands around the frames of MPEG audio: ID3v2 tags, and the tag with the encoder's delay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.core.errors import BadAudio

MAX_TAG_BYTES: Final = 1024 * 1024
"""Of an ID3v2 tag: a picture has room in it."""

_TAG_HEADER: Final = 10
_FOOTER_FLAG: Final = 0x10

_DECODER_DELAY: Final = 529
"""Samples that a decoder is late by itself: 528 + 1, as LAME and FFmpeg have it."""


class TagSkipper:
    """Passes over the ID3v2 tags in front of a stream (id3.org, ID3v2.4.0 section 3.1)."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._over = False
        self.found = False
        """Whether there was a tag; what has one is meant to be MPEG audio."""

    def feed(self, data: bytes) -> bytes:
        """Take in the next bytes, and return those that are not of a tag.

        Raises:
            BadAudio: a tag of more than :data:`MAX_TAG_BYTES`.
        """
        while data and not self._over:
            if self._left:
                skipped = min(self._left, len(data))
                self._left -= skipped
                data = data[skipped:]
                continue
            wanted = _TAG_HEADER - len(self._head)
            self._head, data = self._head + data[:wanted], data[wanted:]
            data = self._judge() + data
        return data

    def flush(self) -> bytes:
        """The stream has ended: what might have become a tag."""
        rest, self._head = self._head, b""
        return rest

    @property
    def pending(self) -> int:
        """Bytes of a possible tag header that are kept."""
        return len(self._head)

    def preamble(self) -> bytes:
        """A tag that leads a new skipper to the state of this one."""
        size = self._left
        return b"ID3\4\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))

    def _judge(self) -> bytes:
        """Whether ``_head`` is a tag's; if not, it is given back."""
        head = self._head
        if not (head.startswith(b"ID3") or b"ID3".startswith(head)):
            return self._end()
        if len(head) < _TAG_HEADER:
            return b""
        if max(head[6:]) > 0x7F or head[3] == 0xFF:
            return self._end()
        self._left = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        if head[5] & _FOOTER_FLAG:
            self._left += _TAG_HEADER
        if self._left > MAX_TAG_BYTES:
            raise BadAudio("Too large ID3 tag: send the audio without its cover picture.")
        self._head = b""
        self.found = True
        return b""

    def _end(self) -> bytes:
        self._over = True
        return self.flush()


@dataclass(frozen=True, slots=True)
class Priming:
    """Samples of a decoded MP3 file that are not its audio, counted from its first frame:
    those before ``start``, and those from ``end`` up to ``total``."""

    start: int
    end: int
    total: int


def priming(frame: bytes) -> Priming | None:
    """What the tag frame at the beginning of an MP3 file says; None: ``frame`` holds audio.

    The frame is that of Xing with LAME's extension: number of frames, the encoder's delay and
    padding. Without these numbers nothing is known, and nothing is cut off.
    """
    at = _side_info_end(frame)
    if at is None or frame[at : at + 4] not in (b"Xing", b"Info") or len(frame) < at + 8:
        return None
    flags = frame[at + 7]
    lame = at + 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1)
    lame += 4 * (flags >> 3 & 1)
    if not flags & 1 or len(frame) < lame + 24 or not frame[lame : lame + 4].strip(b"\0"):
        return Priming(0, 0, 0)
    total = int.from_bytes(frame[at + 8 : at + 12], "big") * _frame_samples(frame)
    numbers = int.from_bytes(frame[lame + 21 : lame + 24], "big")
    delay, padding = numbers >> 12, numbers & 0xFFF
    start = delay + _DECODER_DELAY
    end = max(start, min(total, total - padding + _DECODER_DELAY))
    return Priming(start, end, max(end, total))


def _side_info_end(frame: bytes) -> int | None:
    """Where the tag would begin, if this is a frame of layer III (ISO/IEC 11172-3 2.4.1.7)."""
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:
        return None
    mono = frame[3] & 0xC0 == 0xC0
    if _mpeg1(frame):
        return 4 + (17 if mono else 32)
    return 4 + (9 if mono else 17)


def _frame_samples(frame: bytes) -> int:
    return 1152 if _mpeg1(frame) else 576


def _mpeg1(frame: bytes) -> bool:
    return frame[1] & 0x18 == 0x18
