"""A sound file as samples, on this machine and without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from app.audio.budget import Budget
from app.audio.decode import Decoder, PcmDecoder, WavDecoder, check_sample_rate
from app.audio.resample import Resampler
from app.audio.sniff import MAX_HEAD_BYTES, Kind, hinted, what_is
from app.cli.recording import NotUsable, format_of, unknown_format
from app.core.errors import SpeechError

if TYPE_CHECKING:
    from app.audio.pcm import Int16

_READ_BYTES: Final = 16 * 1024
"""Of silence in Opus, this may be ten minutes."""

_ANY_RATE: Final = 16_000
"""For what has a header with another."""

_UNLIMITED: Final = Budget(max_bytes=2**63, max_audio_ms=2**63, wall_s=1e9)
"""It is the user's own file, and the user's own time."""


def samples(path: Path, out_rate: int, raw_rate: int | None) -> Iterator[Int16]:
    """The file's audio as the recogniser would get it: mono, shape (n,) at ``out_rate`` (Hz).

    ``raw_rate``: what the file is if it is raw 16-bit mono PCM.

    Raises:
        NotUsable: while iterating; no such file, or it cannot be decoded.
    """
    resampler: Resampler | None = None
    try:
        with path.open("rb") as file:
            for piece, rate in _decoded(file, path, raw_rate):
                if resampler is None or resampler.in_rate != rate:
                    if resampler is not None:
                        yield resampler.flush()
                    resampler = Resampler(rate, out_rate)
                yield resampler.feed(piece)
    except OSError as error:
        raise NotUsable(f"{path}: {error.strerror}") from error
    except SpeechError as error:
        raise NotUsable(f"{path}: {error.text}") from error
    if resampler is not None:
        yield resampler.flush()


def _decoded(file: BinaryIO, path: Path, raw_rate: int | None) -> Iterator[tuple[Int16, int]]:
    """Pieces with their sample rates."""
    head = file.read(MAX_HEAD_BYTES)
    file.seek(0)
    format = format_of(path)
    kind = what_is(head, format) or hinted(format)
    if kind is Kind.PCM:
        if raw_rate is None:
            raise NotUsable(unknown_format(path))
        check_sample_rate(raw_rate)
        yield from _read(file, PcmDecoder(raw_rate))
    elif kind is Kind.WAV:
        yield from _read(file, WavDecoder(_ANY_RATE))
    elif kind is Kind.OPU:
        from app.audio.streaming import open_streaming_decoder

        yield from _read(file, open_streaming_decoder(kind, _ANY_RATE))
    elif kind is Kind.OPUS_PACKETS:
        raise NotUsable(
            f"{path} is no Ogg file; Opus packets, each behind a byte with its length, belong into "
            "a file that ends with .opu"
        )
    else:
        from app.audio.container import decode_file

        for block in decode_file(file, kind, _UNLIMITED):
            yield block.samples, block.sample_rate


def _read(file: BinaryIO, decoder: Decoder) -> Iterator[tuple[Int16, int]]:
    while data := file.read(_READ_BYTES):
        piece = decoder.feed(data)
        if decoder.sample_rate is not None:
            yield piece, decoder.sample_rate
    rest = decoder.flush()  # tells what was cut off inside its header, too
    if decoder.sample_rate is not None:
        yield rest, decoder.sample_rate
