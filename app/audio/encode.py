"""From samples to the bytes that a client asked for, as they are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from app.audio import wav
from app.audio.encode_aac import AacEncoder
from app.audio.encode_flac import FlacEncoder
from app.audio.encode_mark import riff_info
from app.audio.encode_mp3 import Mp3Encoder
from app.audio.encode_opus import FramedOpusEncoder, OggOpusEncoder
from app.audio.pcm import Int16
from app.core.errors import UnsupportedFormat, UnsupportedSampleRate
from app.core.speech import format_name

SAMPLE_RATES: Final = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
"""What every encoder takes (Hz): the rates of nls-protocol.md 4.1."""


class Encoder(Protocol):
    """One stream of encoded audio: ``encode`` as often as there are samples, then ``finish``. Not
    for use by two threads at once.

    An encoder may be dropped in the middle of its stream: it holds nothing but memory, which is
    free as soon as nobody has the object.
    """

    @property
    def blocking(self) -> bool:
        """Whether the methods take so long (a few ms for a second of audio; the first call of all
        loads a library) that they need a thread. Making the object never does."""
        ...

    def header(self, total_samples: int | None) -> bytes:
        """What comes before all samples; maybe empty.

        ``total_samples`` None: before the samples, whose number is not known yet. Otherwise
        after ``finish``: the header then tells what it can of the length.
        """
        ...

    def encode(self, samples: Int16) -> bytes:
        """Take in the next samples, mono, shape (n,); the bytes that they complete, maybe none."""
        ...

    def finish(self) -> bytes:
        """The stream has ended: what is still inside. The encoder is used up."""
        ...


class PcmEncoder:
    """Signed 16-bit little-endian samples and nothing else."""

    blocking: Final = False

    def __init__(self, sample_rate: int, mark: str = "") -> None:
        self.sample_rate = sample_rate
        self.mark = mark

    def header(self, total_samples: int | None) -> bytes:
        """See :class:`Encoder`."""
        return b""

    def encode(self, samples: Int16) -> bytes:
        """See :class:`Encoder`."""
        return samples.astype("<i2", copy=False).tobytes()

    def finish(self) -> bytes:
        """See :class:`Encoder`."""
        return b""


class WavEncoder(PcmEncoder):
    """The same behind a RIFF header, once: all frames together are one file (nls-protocol.md
    4.2). Its length fields are 0xFFFFFFFF while the length is not known."""

    def header(self, total_samples: int | None) -> bytes:
        """See :class:`Encoder`: 44 bytes, and the mark."""
        info = riff_info(self.mark) if self.mark else b""
        return wav.make_header(self.sample_rate, total_samples, info)


_ENCODERS: Final[dict[str, Callable[[int, str], Encoder]]] = {
    "pcm": PcmEncoder,
    "wav": WavEncoder,
    "mp3": Mp3Encoder,
    "opus": OggOpusEncoder,
    "ogg": OggOpusEncoder,
    "opu": FramedOpusEncoder,
    "aac": AacEncoder,
    "flac": FlacEncoder,
}

ENCODABLE: Final = tuple(_ENCODERS)
"""The format names that :func:`open_encoder` takes."""

_SHOWN_CHARS: Final = 32


def open_encoder(format: str, sample_rate: int, mark: str = "") -> Encoder:
    """An encoder of ``sample_rate`` (Hz) for a client's format name: any letter case, with or
    without a leading dot. ``mark``: JSON that the file is to carry, where its format has a place
    (``encode_mark.py``); "" for none.

    Raises:
        UnsupportedFormat: not one of :data:`ENCODABLE`.
        UnsupportedSampleRate: not one of :data:`SAMPLE_RATES`.
    """
    encoder = _ENCODERS.get(format_name(format))
    if encoder is None:
        shown = "".join(c for c in format[:_SHOWN_CHARS] if c.isprintable())
        # The first half is the cloud's own text (nls-protocol.md 4.4).
        raise UnsupportedFormat(f"Invalid format '{shown}'! Accepted: {', '.join(ENCODABLE)}.")
    if sample_rate not in SAMPLE_RATES:
        accepted = ", ".join(map(str, SAMPLE_RATES))
        raise UnsupportedSampleRate(f"Invalid sample rate {sample_rate}! Accepted: {accepted} Hz.")
    return encoder(sample_rate, mark)
