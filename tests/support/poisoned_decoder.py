"""The decode process with codecs of the tests: bytes are samples, and some kill it.

``python -m tests.support.poisoned_decoder CONTROL_FD LISTENER_FD``, started like the real one.
A stream or file of kind ``mp3`` or ``flac`` is s16le at its rate, and says that it has three
channels; the second one is the first with its sign changed. ``POISON`` in it ends the process as a
fault in native code does.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import BinaryIO

import numpy as np

from app.audio.budget import Budget
from app.audio.channels import Channel
from app.audio.container import Block
from app.audio.decode import Checkpoint, PcmDecoder
from app.audio.pcm import Int16
from app.serving.decoding import __main__ as process
from app.serving.decoding import jobs

POISON = b"POISON"
CHANNELS = 3


def _die_of(data: bytes) -> None:
    if POISON in data:
        os.abort()


def _sign(channel: Channel) -> np.int16:
    return np.int16(-1 if channel == 1 else 1)


class Decoder(PcmDecoder):
    """PCM that can kill."""

    def __init__(self, sample_rate: int, channel: Channel) -> None:
        super().__init__(sample_rate)
        self._sign = _sign(channel)
        self._fed = 0

    def feed(self, data: bytes) -> Int16:
        """See :class:`app.audio.decode.Decoder`."""
        _die_of(data)
        self._fed += len(data)
        return super().feed(data) * self._sign

    def flush(self) -> Int16:
        """See :class:`app.audio.decode.Decoder`: only now, as the samples are one channel's."""
        rest = super().flush()
        self.channels = CHANNELS
        return rest

    def portion(self, message: bytes) -> int:
        """2 KiB."""
        return 2048

    def checkpoint(self) -> Checkpoint:
        """An even position, after a preamble that is a sample itself."""
        return Checkpoint(self._fed - self._fed % 2, b"")


def decode_file(
    file: BinaryIO, kind: str, budget: Budget, *, channel: Channel
) -> Generator[Block, None, None]:
    """Blocks of 1,000 samples."""
    while data := file.read(2000):
        _die_of(data)
        samples = np.frombuffer(data, "<i2").astype(np.int16) * _sign(channel)
        yield Block(samples, 16_000, CHANNELS)


if __name__ == "__main__":
    vars(jobs)["open_streaming_decoder"] = lambda kind, rate, channel: Decoder(rate, channel)
    vars(jobs)["decode_file"] = decode_file
    process.main()
