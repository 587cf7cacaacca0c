"""The RIFF/WAVE container: a header that arrives in pieces is read, and headers are written.

Only the container is here; which of its codecs are understood is the decoder's business.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from app.core.errors import BadAudio

MAX_HEADER_BYTES: Final = 64 * 1024
"""Everything before the samples. Real headers have 44 bytes, or a few hundred with tags; without
a bound a client could make the server keep a header that never ends."""

UNKNOWN_SIZE: Final = 0xFFFFFFFF
"""A size field of a stream whose length was not known when its header was written."""

CODEC_PCM: Final = 0x0001
CODEC_FLOAT: Final = 0x0003
CODEC_ALAW: Final = 0x0006
CODEC_MULAW: Final = 0x0007
CODEC_EXTENSIBLE: Final = 0xFFFE

_ADVICE: Final = "send a true header, or the samples alone as pcm."

_RIFF_BYTES: Final = 12
_CHUNK: Final = struct.Struct("<4sI")
_FORMAT: Final = struct.Struct("<HHIIHH")
_SUBFORMAT_OFFSET: Final = 24
"""Of the sub-format's GUID in a format chunk of WAVE_FORMAT_EXTENSIBLE; its first two bytes are
the codec number that the plain format would have had."""
_HEADER: Final = struct.Struct("<4sI4s4sIHHIIHH4sI")


@dataclass(frozen=True, slots=True)
class WavHeader:
    """What a header says. ``data_bytes`` is None for a stream that goes on until it ends;
    ``size`` is the number of bytes before the first sample."""

    codec: int
    channels: int
    sample_rate: int
    bits: int
    data_bytes: int | None
    size: int


class HeaderReader:
    """Reads one header that arrives in pieces; what it has read is not looked at again."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._position = 0
        self._riff: bool | None = None
        self._format: tuple[int, int, int, int] | None = None

    @property
    def riff(self) -> bool | None:
        """Whether this is a RIFF/WAVE file; None while there are too few bytes to tell."""
        return self._riff

    @property
    def received(self) -> bytes:
        """All bytes fed so far."""
        return bytes(self._data)

    def feed(self, data: bytes) -> WavHeader | None:
        """Take in the next bytes; the header once it is complete, None before and if ``riff`` is
        not true.

        Chunks that are neither ``fmt `` nor ``data`` are skipped, with the padding byte after a
        chunk of odd length.

        Raises:
            BadAudio: no usable format chunk before the samples, or more than
                :data:`MAX_HEADER_BYTES` before them.
        """
        self._data += data
        if self._riff is None:
            self._riff = _is_riff(bytes(self._data[:_RIFF_BYTES]))
            self._position = _RIFF_BYTES
        return self._chunks() if self._riff else None

    def _chunks(self) -> WavHeader | None:
        while True:
            start = self._position + _CHUNK.size
            if start > MAX_HEADER_BYTES:
                raise _too_large()
            if start > len(self._data):
                return None
            name, size = _CHUNK.unpack_from(self._data, self._position)
            if name == b"data":
                if self._format is None:
                    raise BadAudio(f"Invalid wav header! The format chunk is missing: {_ADVICE}")
                return WavHeader(*self._format, data_bytes=_data_bytes(size), size=start)
            if name == b"fmt ":
                if start + size > MAX_HEADER_BYTES:
                    raise _too_large()
                if start + size > len(self._data):
                    return None
                self._format = _format_fields(bytes(self._data[start : start + size]))
            self._position = start + size + size % 2


def _too_large() -> BadAudio:
    return BadAudio(
        f"Too large wav header! The samples must begin within {MAX_HEADER_BYTES} bytes: leave out "
        "tags and pictures."
    )


def _is_riff(head: bytes) -> bool | None:
    riff, wave = head[:4], head[8:]
    if not b"RIFF".startswith(riff) or not b"WAVE".startswith(wave):
        return False
    return True if len(head) == _RIFF_BYTES else None


def _format_fields(chunk: bytes) -> tuple[int, int, int, int]:
    """(codec, channels, sample rate, bits) of a format chunk."""
    if len(chunk) < _FORMAT.size:
        raise BadAudio(f"Invalid wav header! The format chunk is too short: {_ADVICE}")
    codec, channels, rate, _, _, bits = _FORMAT.unpack_from(chunk)
    if codec == CODEC_EXTENSIBLE and len(chunk) >= _SUBFORMAT_OFFSET + 2:
        (codec,) = struct.unpack_from("<H", chunk, _SUBFORMAT_OFFSET)
    return codec, channels, rate, bits


def codec_of(head: bytes) -> tuple[int, int] | None:
    """(codec number, bits per sample) of a RIFF/WAVE file that begins with ``head``; None if that
    is too short to tell. The format chunk itself need not be complete."""
    start = _RIFF_BYTES
    while start + _CHUNK.size <= len(head):
        name, size = _CHUNK.unpack_from(head, start)
        start += _CHUNK.size
        if name == b"fmt ":
            seen = head[start : start + size]
            if len(seen) < min(size, _SUBFORMAT_OFFSET + 2) or size < _FORMAT.size:
                return None
            codec, _, _, bits = _format_fields(seen)
            return codec, bits
        start += size + size % 2
    return None


def _data_bytes(size: int) -> int | None:
    """Streams leave 0 or a huge number where the length would be (nls-protocol.md 4.2)."""
    return None if size == 0 or size >= 0x7FFFFFFF - 255 else size


def make_header(sample_rate: int, total_samples: int | None, info: bytes = b"") -> bytes:
    """The 44 bytes before 16-bit mono PCM; ``total_samples`` None for a length not yet known.
    ``info``: chunks of even length to stand before the samples."""
    if total_samples is None:
        riff_bytes = data_bytes = UNKNOWN_SIZE
    else:
        data_bytes = 2 * total_samples
        riff_bytes = data_bytes + len(info) + _HEADER.size - _CHUNK.size
    header = _HEADER.pack(
        b"RIFF",
        riff_bytes,
        b"WAVE",
        b"fmt ",
        _FORMAT.size,
        CODEC_PCM,
        1,
        sample_rate,
        2 * sample_rate,
        2,
        16,
        b"data",
        data_bytes,
    )
    return header[: -_CHUNK.size] + info + header[-_CHUNK.size :]
