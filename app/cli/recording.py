"""Speech files as the server takes them: a format, a rate, and pieces to send."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.audio.sniff import LOCAL, Kind, hinted, what_is
from app.audio.wav import CODEC_PCM, MAX_HEADER_BYTES, HeaderReader, WavHeader
from app.core.errors import BadAudio, UnsupportedFormat
from app.core.speech import format_name

PIECES_PER_SECOND: Final = 10

_ENCODED_PIECE_BYTES: Final = 3_200
"""Of a format in which bytes tell no time."""

_ANY_RATE: Final = 16_000
"""For what tells its own."""


class NotUsable(Exception):
    """The file cannot be sent; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A file to send: ``size`` bytes from ``offset`` on.

    ``format`` and ``sample_rate`` are the parameters of the recognition. ``bytes_per_second`` is
    the speed of speech; None where only a decoder could tell.
    """

    path: Path
    format: str
    sample_rate: int
    bytes_per_second: int | None
    offset: int
    size: int

    def pieces(self) -> Iterator[bytes]:
        """The bytes to send, 100 ms at a time where that is known; the last piece may be
        shorter."""
        piece_bytes = _ENCODED_PIECE_BYTES
        if self.bytes_per_second is not None:
            piece_bytes = max(1, self.bytes_per_second // PIECES_PER_SECOND)
        left = self.size
        with self.path.open("rb") as file:
            file.seek(self.offset)
            while left > 0 and (piece := file.read(min(piece_bytes, left))):
                left -= len(piece)
                yield piece


def open_recording(path: Path, sample_rate: int | None) -> Recording:
    """Look at the beginning of a file. ``sample_rate``: what it is if it is raw PCM.

    16-bit mono WAV is sent without its header; everything else that is not raw PCM as it is, for
    the server to convert.

    Raises:
        NotUsable: no such file, or neither in a known format nor declared to be raw PCM.
    """
    try:
        with path.open("rb") as file:
            head = file.read(MAX_HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise NotUsable(f"{path}: {error.strerror}") from error
    format = format_of(path)
    kind = what_is(head, format) or hinted(format)
    if kind not in LOCAL:
        return Recording(path, format, _ANY_RATE, None, 0, size)
    if kind is Kind.WAV:
        return _wav(path, head, size)
    if sample_rate is None:
        raise NotUsable(unknown_format(path))
    return Recording(path, "pcm", sample_rate, 2 * sample_rate, 0, size)


def format_of(path: Path) -> str:
    """The format that the file's name says; ``pcm``, if none."""
    try:
        hinted(path.suffix)
    except UnsupportedFormat:
        return "pcm"
    return format_name(path.suffix)


def unknown_format(path: Path) -> str:
    """What to do about a file that is not known to be anything."""
    return (
        f"{path} is not in a known format; convert it (for example: ffmpeg -i {path.name} "
        "-ar 16000 -ac 1 speech.wav), or give --sample-rate if it is raw 16-bit mono PCM"
    )


def _wav(path: Path, head: bytes, size: int) -> Recording:
    try:
        header = HeaderReader().feed(head)
    except BadAudio as error:
        raise NotUsable(f"{path}: {error.text}") from error
    return _of_header(path, header, size)


def _of_header(path: Path, header: WavHeader | None, size: int) -> Recording:
    bytes_per_second = header.sample_rate * header.channels * header.bits // 8 if header else 0
    if header is None or bytes_per_second == 0:
        raise NotUsable(f"{path} has a damaged WAV header")
    if (header.codec, header.channels, header.bits) != (CODEC_PCM, 1, 16):
        return Recording(path, "wav", header.sample_rate, bytes_per_second, 0, size)
    available = size - header.size
    samples = available if header.data_bytes is None else min(available, header.data_bytes)
    return Recording(path, "pcm", header.sample_rate, bytes_per_second, header.size, samples)
