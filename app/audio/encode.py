"""From samples to the bytes that a client asked for, as they are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from app.audio import wav
from app.audio.pcm import Int16
from app.core.errors import UnsupportedFormat


class Encoder(Protocol):
    """One stream of encoded audio. Not for use by two threads at once."""

    def header(self, total_samples: int | None) -> bytes:
        """What comes before all samples; maybe empty. ``total_samples`` None: not yet known."""
        ...

    def encode(self, samples: Int16) -> bytes:
        """The bytes of the next samples, mono, shape (n,)."""
        ...


class PcmEncoder:
    """Signed 16-bit little-endian samples and nothing else."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate

    def header(self, total_samples: int | None) -> bytes:
        """See :class:`Encoder`."""
        return b""

    def encode(self, samples: Int16) -> bytes:
        """See :class:`Encoder`."""
        return samples.astype("<i2", copy=False).tobytes()


class WavEncoder(PcmEncoder):
    """The same behind a RIFF header, once: all frames together are one file (nls-protocol.md
    4.2). Its length fields are 0xFFFFFFFF while the length is not known."""

    def header(self, total_samples: int | None) -> bytes:
        """See :class:`Encoder`: 44 bytes."""
        return wav.make_header(self.sample_rate, total_samples)


_ENCODERS: Final[dict[str, Callable[[int], Encoder]]] = {
    "pcm": PcmEncoder,
    "wav": WavEncoder,
}

ENCODABLE: Final = tuple(_ENCODERS)
"""The format names that :func:`open_encoder` takes."""

_SHOWN_CHARS: Final = 32


def open_encoder(format: str, sample_rate: int) -> Encoder:
    """An encoder for a client's format name: any letter case, with or without a leading dot.

    Raises:
        UnsupportedFormat: not one of :data:`ENCODABLE`.
    """
    encoder = _ENCODERS.get(format.strip().lower().removeprefix("."))
    if encoder is None:
        shown = "".join(c for c in format[:_SHOWN_CHARS] if c.isprintable())
        # The first half is the cloud's own text (nls-protocol.md 4.4).
        raise UnsupportedFormat(f"Invalid format '{shown}'! Use one of: {', '.join(ENCODABLE)}.")
    return encoder(sample_rate)
