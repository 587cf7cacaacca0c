"""A task's samples into bytes of the requested format, in pieces that fit a client's frame."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from app.audio.encode import open_encoder
from app.audio.pcm import Int16

MAX_PIECE_BYTES: Final = 32 * 1024
"""Of one piece of encoded audio; half of what a client's frame may have (nls-protocol.md 1.8)."""

ENCODED_AT_ONCE: Final = MAX_PIECE_BYTES // 2 - 64
"""Samples. As PCM they fit into one piece, with a header in front."""


class Encoding:
    """The encoder of one task: PCM at once, formats that take work in a thread. ``mark``: see
    :func:`app.audio.encode.open_encoder`, which tells the errors, too.

    Whoever is cancelled just leaves it: nothing but memory is held, and a call that still runs in
    its thread has the last reference.
    """

    def __init__(
        self, format: str, sample_rate: int, mark: str, executor: ThreadPoolExecutor
    ) -> None:
        self._encoder = open_encoder(format, sample_rate, mark)
        self._executor = executor

    async def header(self, total_samples: int | None) -> bytes:
        """See :class:`app.audio.encode.Encoder`."""
        return await self._done(partial(self._encoder.header, total_samples))

    async def encode(self, samples: Int16) -> bytes:
        """See :class:`app.audio.encode.Encoder`."""
        return await self._done(partial(self._encoder.encode, samples))

    async def finish(self) -> bytes:
        """See :class:`app.audio.encode.Encoder`."""
        return await self._done(self._encoder.finish)

    async def _done(self, work: Callable[[], bytes]) -> bytes:
        if not self._encoder.blocking:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def pieces(encoded: bytes) -> list[bytes]:
    """In pieces of at most ``MAX_PIECE_BYTES``, none empty."""
    if 0 < len(encoded) <= MAX_PIECE_BYTES:
        return [encoded]  # nearly always; also spares a copy
    return [encoded[i : i + MAX_PIECE_BYTES] for i in range(0, len(encoded), MAX_PIECE_BYTES)]
