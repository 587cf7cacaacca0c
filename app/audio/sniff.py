"""What a client's audio really is: its format name is a hint that the first bytes may overrule.

Clients label their audio wrongly (raw PCM as wav, Ogg as mp3), so the content decides wherever it
can be told for sure. Pure: nothing is decoded here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from app.audio import wav
from app.core.errors import BadAudio, UnsupportedFormat
from app.core.speech import format_name

MAX_HEAD_BYTES: Final = 64
"""No decision needs more bytes than these."""


class Kind(StrEnum):
    """A container and what is in it, as far as the way of decoding depends on it."""

    PCM = "pcm"
    WAV = "wav"
    """With samples that ``decode.py`` reads. What is called wav and has no header is ``PCM``; only
    of a stream of a few bytes that is not known."""
    MP3 = "mp3"
    AAC = "aac"
    """With ADTS headers."""
    OGG_OPUS = "ogg-opus"
    WEBM = "webm"
    OPU = "opu"
    """Opus packets, one byte with its length before each: NLS's name for it."""
    OPUS_PACKETS = "opus-packets"
    """Called opus, but not Ogg: the first message tells whether it is ``OPU`` or bare packets,
    one per message."""
    WAV_FILE = "wav-file"
    """With a codec that only whole files are decoded for (ADPCM, GSM)."""
    M4A = "m4a"
    FLAC = "flac"
    OGG = "ogg"
    """With another codec than Opus and Speex."""
    SPEEX = "speex"
    """In Ogg."""
    AMR = "amr"
    """Narrow or wide band."""
    WMA = "wma"


LOCAL: Final = frozenset({Kind.PCM, Kind.WAV})
"""Decoded by ``decode.py``, with nothing but numpy."""

STREAMING: Final = frozenset(
    {Kind.MP3, Kind.AAC, Kind.OGG_OPUS, Kind.WEBM, Kind.OPU, Kind.OPUS_PACKETS}
)
"""Decoded by ``streaming.py``, as the bytes arrive."""

FILES: Final = frozenset(Kind) - LOCAL - STREAMING
"""Decoded when the whole file is there."""

_HINTS: Final[dict[str, Kind]] = {
    "pcm": Kind.PCM,
    "wav": Kind.WAV,
    "mp3": Kind.MP3,
    "aac": Kind.AAC,
    "m4a": Kind.M4A,
    "mp4": Kind.M4A,
    "flac": Kind.FLAC,
    "ogg": Kind.OPUS_PACKETS,
    "opus": Kind.OPUS_PACKETS,
    "opu": Kind.OPU,
    "webm": Kind.WEBM,
    "amr": Kind.AMR,
    "amr-nb": Kind.AMR,
    "amrnb": Kind.AMR,
    "amr-wb": Kind.AMR,
    "amrwb": Kind.AMR,
    "speex": Kind.SPEEX,
    "spx": Kind.SPEEX,
    "wma": Kind.WMA,
}

FORMATS: Final = tuple(_HINTS)
"""All names that :func:`hinted` takes, in lower case, as they are shown to clients."""

_Magic = tuple[tuple[int, bytes], ...]
"""(offset, bytes) pairs that must all be there."""

_MAGICS: Final[tuple[tuple[_Magic, Kind], ...]] = (
    (((0, b"RIFF"), (8, b"WAVE")), Kind.WAV),
    (((0, b"fLaC"),), Kind.FLAC),
    # The first page holds exactly one packet, whose one segment begins at 28 (RFC 3533 section 6,
    # RFC 7845 section 3).
    (((0, b"OggS"), (28, b"OpusHead")), Kind.OGG_OPUS),
    (((0, b"OggS"), (28, b"Speex   ")), Kind.SPEEX),
    (((0, b"OggS"),), Kind.OGG),
    (((0, b"\x1a\x45\xdf\xa3"),), Kind.WEBM),
    # Real boxes of this type are shorter than 256 bytes.
    (((0, b"\0\0\0"), (4, b"ftyp")), Kind.M4A),
    (((0, b"#!AMR"),), Kind.AMR),
    (((0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),), Kind.WMA),
    # ID3v2.2 to 2.4; what is behind the tag is told by the hint (below).
    (((0, b"ID3\2\0"),), Kind.MP3),
    (((0, b"ID3\3\0"),), Kind.MP3),
    (((0, b"ID3\4\0"),), Kind.MP3),
)
"""None is shorter than 4 bytes: raw samples do not look like that by chance."""

_WAV_FILE_CODECS: Final = frozenset({0x0002, 0x0011, 0x0031, 0x0055})
"""MS and IMA ADPCM, GSM, MP3; all others are read by ``decode.py``, or refused at once."""

_SYNC_BYTES: Final = 4
_TRUST_SYNC: Final = frozenset(Kind) - LOCAL - {Kind.OPU, Kind.OPUS_PACKETS}
"""Hints under which a frame header of MPEG audio is believed. Its 11 set bits are an ordinary
sample of PCM, and an ordinary beginning of Opus packets."""


def hinted(hint: str) -> Kind:
    """What a format name stands for: any letter case, with or without a leading dot.

    Also the answer for a stream that ends before :func:`what_is` has one.

    Raises:
        UnsupportedFormat: an unknown name.
    """
    kind = _HINTS.get(format_name(hint))
    if kind is None:
        raise UnsupportedFormat(f"Invalid format! Accepted: {', '.join(FORMATS)}.")
    return kind


def what_is(head: bytes, hint: str) -> Kind | None:
    """What a stream is that begins with ``head`` and that its sender calls ``hint``.

    None: too few bytes to tell; at most :data:`MAX_HEAD_BYTES` are needed, mostly one.

    Raises:
        UnsupportedFormat: the hint is no format name, whatever the bytes are.
    """
    claimed = hinted(hint)
    if not head:
        return None
    for magic, kind in _MAGICS:
        found = _matches(head, magic)
        if found is None:
            return None
        if found:
            return _behind(head, kind, claimed)
    if claimed in _TRUST_SYNC and head[0] == 0xFF:
        if len(head) < _SYNC_BYTES:
            return None
        return _by_sync(head) or claimed
    # There are clients that label raw PCM as wav (nls-protocol.md 6.1).
    return Kind.PCM if claimed is Kind.WAV else claimed


def _matches(head: bytes, magic: _Magic) -> bool | None:
    """None: so far, but ``head`` is too short."""
    for offset, expected in magic:
        if not expected.startswith(head[offset : offset + len(expected)]):
            return False
    last, expected = magic[-1]
    return True if len(head) >= last + len(expected) else None


def _behind(head: bytes, kind: Kind, claimed: Kind) -> Kind | None:
    """Look closer at what has matched a magic."""
    if kind is Kind.WAV:
        return _wav_kind(head)
    if kind is Kind.MP3 and claimed is Kind.AAC:
        # Both may have a tag in front, which has its own length.
        return Kind.AAC
    return kind


def _wav_kind(head: bytes) -> Kind | None:
    try:
        wav.HeaderReader().feed(head[:MAX_HEAD_BYTES])
    except BadAudio:
        return Kind.WAV  # its decoder says what is wrong
    codec = wav.codec_of(head[:MAX_HEAD_BYTES])
    if codec is not None:
        return Kind.WAV_FILE if codec[0] in _WAV_FILE_CODECS else Kind.WAV
    # Behind long chunks it remains a guess; the decoder looks again.
    return None if len(head) < MAX_HEAD_BYTES else Kind.WAV


def _by_sync(head: bytes) -> Kind | None:
    """By the frame header of MPEG audio (ISO/IEC 11172-3 2.4.2.3) or ADTS (ISO/IEC 14496-3 1.A.2);
    None: it is neither."""
    if head[1] & 0xF6 == 0xF0:  # the layer bits are 0 in ADTS only
        return Kind.AAC if head[2] >> 2 & 0xF < 13 else None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bit_rate, rate = head[2] >> 4, head[2] >> 2 & 3
    legal = head[1] >= 0xE0 and version != 1 and layer != 0 and bit_rate != 15 and rate != 3
    return Kind.MP3 if legal else None
