"""The decode process with codecs of the tests: bytes are samples, and some kill it.

``python -m tests.support.poisoned_decoder CONTROL_FD LISTENER_FD``, started like the real one.
A stream or file of kind ``mp3`` or ``flac`` is s16le at its rate; ``POISON`` in it ends the process
as a fault in native code does.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import BinaryIO

import numpy as np

from app.audio.budget import Budget
from app.audio.container import Block
from app.audio.decode import Checkpoint, PcmDecoder
from app.audio.pcm import Int16
from app.serving.decoding import __main__ as process
from app.serving.decoding import jobs

POISON = b"POISON"


def _die_of(data: bytes) -> None:
    if POISON in data:
        os.abort()


class Decoder(PcmDecoder):
    """PCM that can kill."""

    def __init__(self, sample_rate: int) -> None:
        super().__init__(sample_rate)
        self._fed = 0

    def feed(self, data: bytes) -> Int16:
        """See :class:`app.audio.decode.Decoder`."""
        _die_of(data)
        self._fed += len(data)
        return super().feed(data)

    def portion(self, message: bytes) -> int:
        """2 KiB."""
        return 2048

    def checkpoint(self) -> Checkpoint:
        """An even position, after a preamble that is a sample itself."""
        return Checkpoint(self._fed - self._fed % 2, b"")


def decode_file(file: BinaryIO, kind: str, budget: Budget) -> Generator[Block, None, None]:
    """Blocks of 1,000 samples."""
    while data := file.read(2000):
        _die_of(data)
        yield Block(np.frombuffer(data, "<i2").astype(np.int16), 16_000)


if __name__ == "__main__":
    vars(jobs)["open_streaming_decoder"] = lambda kind, sample_rate: Decoder(sample_rate)
    vars(jobs)["decode_file"] = decode_file
    process.main()
