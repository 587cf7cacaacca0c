"""Where each format keeps a mark: a short text under the name :data:`NAME` in the file's metadata.

PCM, ``opu`` and ADTS have no place for one.
"""

from __future__ import annotations

import json
import struct
from typing import Final

NAME: Final = "AIGC"
"""The key that GB 45438-2025 has for the label of generated content."""

_CHUNK: Final = struct.Struct("<4sI")
_LENGTH: Final = struct.Struct("<I")
_UTF_8: Final = b"\x03"
"""The encoding of a text in ID3 (ID3v2.4.0, section 4)."""


def riff_info(mark: str) -> bytes:
    """A LIST chunk of RIFF with one comment, ``{"AIGC": …}``; ``mark`` is JSON itself. Of even
    length."""
    text = f"{{{json.dumps(NAME)}:{mark}}}".encode() + b"\0"
    comment = _CHUNK.pack(b"ICMT", len(text)) + text + b"\0" * (len(text) % 2)
    return _CHUNK.pack(b"LIST", 4 + len(comment)) + b"INFO" + comment


def id3_tag(mark: str) -> bytes:
    """An ID3v2.4.0 tag with one user-defined text frame, to go before an MP3 stream."""
    text = _UTF_8 + NAME.encode() + b"\0" + mark.encode() + b"\0"
    frame = b"TXXX" + _synchsafe(len(text)) + b"\0\0" + text
    return b"ID3\x04\0\0" + _synchsafe(len(frame)) + frame


def vorbis_comment(vendor: str, mark: str) -> bytes:
    """The comments of FLAC (RFC 9639 section 8.6) and, behind its magic, of Opus (RFC 7845 section
    5.2): who made the stream, and ``mark`` unless it is empty."""
    comments = [f"{NAME}={mark}".encode()] if mark else []
    fields = [_counted(vendor.encode()), _LENGTH.pack(len(comments)), *map(_counted, comments)]
    return b"".join(fields)


def _counted(text: bytes) -> bytes:
    return _LENGTH.pack(len(text)) + text


def _synchsafe(number: int) -> bytes:
    """28 bits in four bytes, the highest bit of each left out (ID3v2.4.0, section 6.2)."""
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))
