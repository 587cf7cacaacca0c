"""WebM (Matroska, RFC 9559, in EBML, RFC 8794) with one track of Opus, read from a stream that
arrives in pieces, as a browser records it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from app.audio import opus_frames
from app.core.errors import BadAudio, UnsupportedFormat

MAX_ELEMENT_BYTES: Final = 64 * 1024
"""Of an element that is looked into: the tracks, or a block. No Opus packet is longer; the
pictures of a video are, and are passed over."""

_EBML: Final = 0x1A45DFA3
_SEGMENT: Final = 0x18538067
_CLUSTER: Final = 0x1F43B675
_TRACKS: Final = 0x1654AE6B
_TRACK: Final = 0xAE
_TRACK_NUMBER: Final = 0xD7
_CODEC_ID: Final = 0x86
_CODEC_PRIVATE: Final = 0x63A2
_SIMPLE_BLOCK: Final = 0xA3
_BLOCK_GROUP: Final = 0xA0
_BLOCK: Final = 0xA1
_DISCARD_PADDING: Final = 0x75A2
_VOID: Final = 0xEC

_ENTERED: Final = frozenset({_SEGMENT, _CLUSTER})
"""Their sizes are often unknown and never needed: what is in them is read as it comes."""
_KEPT: Final = frozenset({_TRACKS, _SIMPLE_BLOCK, _BLOCK_GROUP})

_MAX_ID_BYTES: Final = 4
_MAX_SIZE_BYTES: Final = 8
_LACING: Final = 0x06
_UNKNOWN: Final = 1 << 64
"""In place of a size: larger than every size."""
_OPUS: Final = b"A_OPUS"


@dataclass(frozen=True, slots=True)
class Head:
    """A recording begins. ``codec_private``: Opus's identification header."""

    codec_private: bytes


@dataclass(frozen=True, slots=True)
class Packet:
    """``data`` is empty if the block could not be read. ``discard_ns``: how much of the end of
    what it decodes to is padding."""

    data: bytes
    discard_ns: int = 0


class WebmReader:
    """Finds the packets of the first Opus track. Keeps at most one element."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._skip = 0
        self._begun = False
        self._head: bytes | None = None
        self._track = 0
        self.position = 0
        """Bytes fed that are done with: behind :meth:`preamble`, a new reader can go on there."""

    @property
    def buffered(self) -> int:
        """Bytes of an element that is not complete yet."""
        return len(self._data)

    def preamble(self) -> bytes:
        """A short beginning of a recording that leads a new reader to the state of this one."""
        if not self._begun:
            return b""
        start = _element(_EBML, b"") + _id(_SEGMENT) + b"\xff"  # of unknown size
        if self._head is not None:
            private = opus_frames.without_pre_skip(self._head)
            start += _element(
                _TRACKS,
                _element(
                    _TRACK,
                    _element(_TRACK_NUMBER, self._track.to_bytes(_MAX_SIZE_BYTES, "big"))
                    + _element(_CODEC_ID, _OPUS)
                    + _element(_CODEC_PRIVATE, private),
                ),
            )
        return start + (_id(_VOID) + _size(self._skip) if self._skip else b"")

    def feed(self, data: bytes) -> list[Head | Packet]:
        """Take in the next bytes, and return what they complete.

        Raises:
            BadAudio: this is no WebM, or it is damaged.
            UnsupportedFormat: none of the tracks is Opus that can be decoded.
        """
        self._data += data
        found: list[Head | Packet] = []
        start = self._passed_over(0)
        while (header := _header(self._data, start)) is not None:
            identity, size, body = header
            self._check(identity, size)
            if identity in _ENTERED:
                start = body
            elif identity not in _KEPT or size > MAX_ELEMENT_BYTES:
                self._skip = size
                start = self._passed_over(body)
            elif len(self._data) < body + size:
                break
            else:
                start = body + size
                found += self._look_into(identity, bytes(self._data[body:start]))
        self.position += start
        del self._data[:start]
        return found

    def _passed_over(self, start: int) -> int:
        """The end of what can be skipped from ``start`` on."""
        skipped = min(self._skip, len(self._data) - start)
        self._skip -= skipped
        return start + skipped

    def _check(self, identity: int, size: int) -> None:
        if not self._begun and identity != _EBML:
            raise BadAudio("The audio is no webm recording: check the format parameter.")
        self._begun = True
        too_large = identity == _TRACKS and size > MAX_ELEMENT_BYTES
        if identity not in _ENTERED and (size == _UNKNOWN or too_large):
            raise _damaged()

    def _look_into(self, identity: int, body: bytes) -> list[Head | Packet]:
        if identity == _TRACKS:
            self._track, self._head = _opus_track(body)
            return [Head(self._head)]
        if identity == _SIMPLE_BLOCK:
            return self._packet(body, 0)
        children = dict(_children(body))
        padding = int.from_bytes(children.get(_DISCARD_PADDING, b"")[:8], "big", signed=True)
        return self._packet(children.get(_BLOCK, b""), padding)

    def _packet(self, block: bytes, padding_ns: int) -> list[Head | Packet]:
        """Of a block: track number, 2 bytes of time, flags, data (RFC 9559 section 10)."""
        track, start = _number(block, 0, _MAX_SIZE_BYTES) or (0, 0)
        if self._head is None or track != self._track:
            return []
        flags = block[start + 2 : start + 3]
        # Laced blocks hold several packets; nobody records Opus that way.
        if not flags or flags[0] & _LACING:
            return [Packet(b"")]
        return [Packet(block[start + 3 :], max(0, padding_ns))]


def _opus_track(tracks: bytes) -> tuple[int, bytes]:
    """(number, checked identification header) of the first track with Opus."""
    for identity, body in _children(tracks):
        fields = dict(_children(body)) if identity == _TRACK else {}
        if fields.get(_CODEC_ID, b"").rstrip(b"\0") == _OPUS:
            number = int.from_bytes(fields.get(_TRACK_NUMBER, b"")[:_MAX_SIZE_BYTES], "big")
            return number, opus_frames.checked_head(fields.get(_CODEC_PRIVATE, b""))
    raise UnsupportedFormat("This webm has no Opus track: record audio/webm;codecs=opus.")


def _children(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements in a complete element."""
    start = 0
    while start < len(data):
        header = _header(data, start)
        if header is None:
            raise _damaged()
        identity, size, body = header
        if size > len(data) - body:
            raise _damaged()
        yield identity, data[body : body + size]
        start = body + size


def _header(data: bytes | bytearray, start: int) -> tuple[int, int, int] | None:
    """(identity, size of the body, where it begins); None: it is not complete."""
    identity = _number(data, start, _MAX_ID_BYTES, marked=True)
    if identity is None:
        return None
    size = _number(data, identity[1], _MAX_SIZE_BYTES)
    if size is None:
        return None
    return identity[0], size[0], size[1]


def _number(
    data: bytes | bytearray, start: int, max_bytes: int, *, marked: bool = False
) -> tuple[int, int] | None:
    """(value, where it ends) of a number of variable length (RFC 8794 section 4).

    The leading zeros of the first byte tell the length; ``marked`` keeps the 1 behind them, which
    belongs to the identities of elements. All bits set is :data:`_UNKNOWN`.
    """
    if start >= len(data):
        return None
    length = 9 - data[start].bit_length()
    if length > max_bytes:
        raise _damaged()
    end = start + length
    if end > len(data):
        return None
    value = int.from_bytes(data[start:end], "big")
    if marked:
        return value, end
    bits = (1 << 7 * length) - 1
    return (_UNKNOWN if value & bits == bits else value & bits), end


def _damaged() -> BadAudio:
    return BadAudio(
        "The webm recording is damaged: send all of its bytes, in order, from the first on."
    )


def _id(identity: int) -> bytes:
    return identity.to_bytes((identity.bit_length() + 7) // 8, "big")


def _size(size: int) -> bytes:
    return (1 << 56 | size).to_bytes(_MAX_SIZE_BYTES, "big")


def _element(identity: int, body: bytes) -> bytes:
    return _id(identity) + _size(len(body)) + body
