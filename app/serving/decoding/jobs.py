"""The two kinds of task of the decode process: streams, decoded as they arrive, and files, decoded
once they are whole. Codecs run in threads, a step at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeVar

import structlog

from app.audio.budget import Budget, too_slow
from app.audio.container import Block, decode_file
from app.audio.decode import Checkpoint
from app.audio.pcm import Int16
from app.audio.sniff import Kind
from app.audio.streaming import open_streaming_decoder
from app.core.errors import AudioTooLong, BadAudio, EngineFailed, SpeechError
from app.serving.decoding.protocol import PCM_CREDIT_BYTES, Open
from app.serving.decoding.turns import Turns

log = structlog.get_logger(__name__)

T = TypeVar("T")

_UNLIMITED: Final = 1 << 62

PADDING_MS: Final = 200
"""An encoder's padding is decoded before it is cut off; the exact limit is the recogniser's."""


class Sink(Protocol):
    """Where a task's answers go (its connection). Called on the event loop."""

    async def turn(self, *, running: bool) -> None:
        """A suspect's step begins or has ended; told to the other side before this returns."""

    def taken(self, consumed: int, restart: int, samples: int, preamble: bytes = b"") -> None:
        """See ``protocol.py``."""

    def pcm(self, samples: Int16, sample_rate: int) -> None:
        """Audio, of any length."""

    def done(self, channels: int) -> None:
        """All of it is decoded; it has so many channels. Last call."""

    def failed(self, error: SpeechError) -> None:
        """It cannot be decoded. Last call."""


class Job(ABC):
    """One task. ``steps`` counts what a hang would stop."""

    def __init__(
        self, opened: Open, sink: Sink, executor: Executor, turns: Turns, wall_s: float
    ) -> None:
        self._opened = opened
        self._sink = sink
        self._executor = executor
        self._turns = turns
        self._wall_s = wall_s
        self._inbox: deque[bytes] = deque()
        self._ended = False
        self._came = asyncio.Event()
        self._credit = PCM_CREDIT_BYTES
        self._credit_came = asyncio.Event()
        self._received = opened.taken
        self._consumed = 0
        self._emitted = 0  # samples
        self._channels = 0
        self._suspect = opened.suspect_bytes > 0
        self.stepping = False
        self.steps = 0

    def take(self, data: bytes) -> None:
        """More bytes."""
        self._received += len(data)
        self._inbox.append(data)
        self._came.set()

    def end(self) -> None:
        """No more bytes."""
        self._ended = True
        self._came.set()

    def credit(self, pcm_bytes: int) -> None:
        """So much audio was passed on."""
        self._credit += pcm_bytes
        self._credit_came.set()

    async def run(self) -> None:
        """Decode to the end, and tell the sink. Cancelled by the connection."""
        try:
            await self._decode()
            self._sink.done(self._channels)
        except SpeechError as error:
            self._sink.failed(error)
        except Exception:
            log.exception("decoding failed", task_id=self._opened.log_id, kind=self._opened.kind)
            self._sink.failed(BadAudio())
        finally:
            self._clean()

    def _clean(self) -> None:  # noqa: B027 - a stream leaves nothing
        """The task is over, and the other side has been told."""

    @abstractmethod
    async def _decode(self) -> None: ...

    async def _next(self) -> bytes | None:
        """The next message; None after the last."""
        while not self._inbox and not self._ended:
            self._came.clear()
            await self._came.wait()
        limit = self._opened.max_bytes
        if limit is not None and self._received > limit:
            raise AudioTooLong.of_bytes(limit)
        return self._inbox.popleft() if self._inbox else None

    async def _step(self, function: Callable[[], T]) -> T:
        """Run codec code in a thread. A cancelled task waits for the end of its step."""
        if self._suspect:
            async with self._turns.alone():
                await self._sink.turn(running=True)
                try:
                    return await self._in_thread(function)
                finally:
                    await self._sink.turn(running=False)
        async with self._turns.together():
            return await self._in_thread(function)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        self.steps += 1
        self.stepping = True
        step = asyncio.get_running_loop().run_in_executor(self._executor, function)
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            await asyncio.wait([step])
            raise
        finally:
            self.stepping = False

    def _emit(self, samples: Int16, sample_rate: int | None) -> None:
        if len(samples) and sample_rate is not None:
            self._sink.pcm(samples, sample_rate)
            self._emitted += len(samples)
            self._credit -= samples.nbytes

    async def _has_credit(self) -> None:
        while self._credit <= 0:
            self._credit_came.clear()
            await self._credit_came.wait()


class StreamJob(Job):
    """A stream. Its time is limited in relation to its audio: a live one may last for hours."""

    _spent_s = 0.0
    _audio_s = 0.0

    async def _decode(self) -> None:
        opened = self._opened
        kind, rate, channel = Kind(opened.kind), opened.sample_rate, opened.channel
        decoder = await self._step(lambda: open_streaming_decoder(kind, rate, channel))
        if self._opened.preamble:
            await self._step(lambda: decoder.resume(self._opened.preamble))
        while (message := await self._next()) is not None:
            size = decoder.portion(message)
            for start in range(0, len(message), size):
                piece = message[start : start + size]
                samples = await self._timed(partial(decoder.feed, piece))
                self._count(samples, decoder.sample_rate)
                self._emit(samples, decoder.sample_rate)
                self._consumed += len(piece)
                self._tell_taken(decoder.checkpoint())
                self._suspect = self._suspect and self._consumed < self._opened.suspect_bytes
                await self._has_credit()
        samples = await self._timed(decoder.flush)
        self._count(samples, decoder.sample_rate)
        self._emit(samples, decoder.sample_rate)
        self._channels = decoder.channels

    def _tell_taken(self, place: Checkpoint) -> None:
        position = place.position - len(self._opened.preamble)
        if position < 0:  # inside the preamble: the next one begins where this one did
            self._sink.taken(self._consumed, 0, 0, self._opened.preamble)
        else:
            samples = self._emitted if place.samples is None else place.samples
            self._sink.taken(self._consumed, position, samples, place.preamble)

    async def _timed(self, function: Callable[[], Int16]) -> Int16:
        def timed() -> tuple[Int16, float]:
            began = time.monotonic()
            return function(), time.monotonic() - began

        samples, seconds = await self._step(timed)
        self._spent_s += seconds
        if self._spent_s > self._wall_s + self._audio_s:
            raise too_slow()
        return samples

    def _count(self, samples: Int16, sample_rate: int | None) -> None:
        if sample_rate is None:
            return
        self._audio_s += len(samples) / sample_rate
        limit_ms = self._opened.max_audio_ms
        if limit_ms is not None and self._audio_s * 1000 > limit_ms + 1:
            raise AudioTooLong.lasting(limit_ms)


class FileJob(Job):
    """A file. It is written to ``folder`` first, so that it survives this process, and removed at
    the end of the task."""

    def __init__(
        self,
        opened: Open,
        sink: Sink,
        executor: Executor,
        turns: Turns,
        wall_s: float,
        folder: Path,
    ) -> None:
        super().__init__(opened, sink, executor, turns, wall_s)
        self.path = file_path(folder, opened.spool)
        self._file: BinaryIO | None = None

    async def _decode(self) -> None:
        file = await self._in_thread(self._open)
        while (message := await self._next()) is not None:
            await self._in_thread(partial(_write, file, message))
            self._consumed += len(message)
            self._sink.taken(self._consumed, self._consumed, samples=0)
        await self._decode_file(file)

    def _clean(self) -> None:
        # It may be there even if this was cancelled while it was opened.
        if self._file is not None:
            self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    async def _decode_file(self, file: BinaryIO) -> None:
        limit_ms = self._opened.max_audio_ms
        budget = Budget(
            max_bytes=self._opened.max_bytes or _UNLIMITED,
            max_audio_ms=limit_ms or _UNLIMITED // 1_000_000,
            padding_ms=PADDING_MS,
            wall_s=self._wall_s,
        )
        file.seek(0)
        blocks = decode_file(file, self._opened.kind, budget, channel=self._opened.channel)
        try:
            while (block := await self._step(lambda: _following(blocks))) is not None:
                self._emit(block.samples, block.sample_rate)
                self._channels = block.channels
                await self._has_credit()
        finally:
            blocks.close()

    def _open(self) -> BinaryIO:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        self._file = file = os.fdopen(descriptor, "r+b")
        if os.fstat(descriptor).st_size < self._opened.taken:
            log.error("a file of the last decoder is gone", task_id=self._opened.log_id)
            raise EngineFailed
        file.truncate(self._opened.taken)
        file.seek(self._opened.taken)
        return file


def file_path(folder: Path, spool: str) -> Path:
    """Where a file is kept. The name comes from our own API process; a path in it would be our
    mistake, and is no number."""
    return folder / f"{int(spool, 16):032x}"


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()  # what was taken must not be lost with this process


def _following(blocks: Iterator[Block]) -> Block | None:
    return next(blocks, None)
