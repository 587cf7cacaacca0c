"""FLAC: without loss, half the size of PCM (RFC 9639)."""

from __future__ import annotations

import hashlib
from typing import Final

from app.audio.encode_packets import PacketEncoder
from app.audio.pcm import Int16

_STREAMINFO: Final = b"fLaC\x80\x00\x00\x22"
"""The magic, and the header of the one metadata block: the last one, of type 0 and 34 bytes (RFC
9639 section 8.1). FFmpeg's own muxer adds 8 KB of padding for tags, which a stream has no use
for."""

_MD5_BYTES: Final = 16
"""At the end of the block (RFC 9639 section 8.2)."""


class FlacEncoder:
    """A native FLAC stream in blocks of 27 ms or less.

    The header tells the number of samples and their MD5 once all are encoded; as 0, which stands
    for unknown, before.
    """

    blocking: Final = True

    def __init__(self, sample_rate: int) -> None:
        # From level 3 on a block has 105 ms.
        self._codec = PacketEncoder("flac", sample_rate, "s16", options={"compression_level": "2"})
        # FFmpeg's own sum goes wrong when its encoder is asked for packets after the last one.
        self._md5 = hashlib.md5(usedforsecurity=False)

    def header(self, total_samples: int | None) -> bytes:
        """See :class:`app.audio.encode.Encoder`: 42 bytes."""
        header = _STREAMINFO + self._codec.extradata
        return header if total_samples is None else header[:-_MD5_BYTES] + self._md5.digest()

    def encode(self, samples: Int16) -> bytes:
        """See :class:`app.audio.encode.Encoder`."""
        self._md5.update(samples.astype("<i2", copy=False).tobytes())
        return b"".join(self._codec.feed(samples))

    def finish(self) -> bytes:
        """See :class:`app.audio.encode.Encoder`."""
        return b"".join(self._codec.flush())
