"""FLAC: without loss, half the size of PCM (RFC 9639)."""

from __future__ import annotations

import hashlib
from typing import Final

from app.audio.encode_mark import vorbis_comment
from app.audio.encode_packets import PacketEncoder
from app.audio.pcm import Int16

_MAGIC: Final = b"fLaC"
_STREAMINFO, _COMMENTS, _LAST = 0, 4, 0x80
"""Types of metadata blocks, and the bit that tells that no other one follows (RFC 9639 section
8.1). FFmpeg's own muxer adds 8 KB of padding for tags, which a stream has no use for."""

_VENDOR: Final = "FunSpeech"

_MD5_BYTES: Final = 16
"""At the end of the block (RFC 9639 section 8.2)."""


class FlacEncoder:
    """A native FLAC stream in blocks of 27 ms or less.

    The header tells the number of samples and their MD5 once all are encoded; as 0, which stands
    for unknown, before.
    """

    blocking: Final = True

    def __init__(self, sample_rate: int, mark: str = "") -> None:
        self._mark = mark
        # From level 3 on a block has 105 ms.
        self._codec = PacketEncoder("flac", sample_rate, "s16", options={"compression_level": "2"})
        # FFmpeg's own sum goes wrong when its encoder is asked for packets after the last one.
        self._md5 = hashlib.md5(usedforsecurity=False)

    def header(self, total_samples: int | None) -> bytes:
        """See :class:`app.audio.encode.Encoder`: 42 bytes, and the mark."""
        info = self._codec.extradata
        if total_samples is not None:
            info = info[:-_MD5_BYTES] + self._md5.digest()
        if not self._mark:
            return _MAGIC + _block(_STREAMINFO | _LAST, info)
        comments = vorbis_comment(_VENDOR, self._mark)
        return _MAGIC + _block(_STREAMINFO, info) + _block(_COMMENTS | _LAST, comments)

    def encode(self, samples: Int16) -> bytes:
        """See :class:`app.audio.encode.Encoder`."""
        self._md5.update(samples.astype("<i2", copy=False).tobytes())
        return b"".join(self._codec.feed(samples))

    def finish(self) -> bytes:
        """See :class:`app.audio.encode.Encoder`."""
        return b"".join(self._codec.flush())


def _block(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + len(content).to_bytes(3, "big") + content
