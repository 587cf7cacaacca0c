"""A task that runs in a worker, as the API process holds it: what goes in, what comes out, and the
credit that bounds both."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Final, Protocol

from app.core.errors import DeadlineExceeded, EngineFailed, EngineUnavailable, SpeechError
from app.core.speech import Mark, RecognitionEvent, SentenceChanged
from app.serving.lag import LagMeter
from app.serving.protocol import (
    AUDIO_IN_CREDIT_S,
    Audio,
    Cancel,
    Configure,
    Credit,
    EndOfAudio,
    SourceRate,
    ToWorker,
)

OPEN_TIMEOUT_S: Final = 2.0
"""A worker answers ``open`` without waiting for its engine; later than this it is not well."""

AUDIO_DELAY_S: Final = 0.02
"""Audio for a worker is collected for so long, to be written at once."""

SYNTHESIS_TIMEOUT_S: Final = 60.0
"""From one piece of a sentence to the next, while it has credit; the first one waits for its turn
too."""

RECOGNITION_TIMEOUT_S: Final = 60.0
"""From one sign of a worker's progress to the next, once it is its turn; a worker that hangs is
replaced long before that."""


class Worker(Protocol):
    """Where a task runs (``replica.py``)."""

    name: str

    def send(self, message: ToWorker, *, within_s: float = 0.0) -> None:
        """Send a message; on a lost connection it is dropped."""

    def forget(self, number: int) -> None:
        """The task is over."""


class _Task:
    """What both kinds of task share: the answer to ``open``, and the end."""

    def __init__(self, replica: Worker, number: int) -> None:
        self._replica = replica
        self.number = number
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()
        self._error: SpeechError | None = None
        self._done = False

    @property
    def replica(self) -> Worker:
        """Where the task runs."""
        return self._replica

    @property
    def is_open(self) -> bool:
        """Whether the worker has granted the task."""
        return self._opened.done()

    async def granted(self, answer_s: float | None = None) -> None:
        """Wait for the worker's answer, ``answer_s`` seconds instead of ``OPEN_TIMEOUT_S``.

        Raises:
            Overloaded: it has no room now.
            EngineUnavailable: it did not answer, or is gone.
        """
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S if answer_s is None else answer_s):
                await self._opened
        except TimeoutError:
            raise EngineUnavailable from None

    def grant(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    def end(self, error: SpeechError | None) -> None:
        """Done, or failed with ``error``. The task's waiters wake up."""
        self._done = True
        if error is not None and self._error is None:
            self._error = error
        if not self._opened.done():
            self._opened.set_exception(error or EngineFailed())
            # Whoever opened it may have been cancelled and never look.
            self._opened.exception()
        self._changed.set()

    def cancel(self) -> None:
        """Forget the task, here and in the worker. After its end this does nothing."""
        self.abort(EngineFailed())

    def abort(self, error: SpeechError) -> None:
        """As :meth:`cancel`; its waiters get ``error``."""
        if not self._done:
            self._replica.send(Cancel(self.number))
            self.end(error)
        self._replica.forget(self.number)


class RecognitionHandle(_Task):
    """A recognition task in a worker: audio in, events out."""

    def __init__(self, replica: Worker, number: int, sample_rate: int) -> None:
        super().__init__(replica, number)
        self.sample_rate = sample_rate
        self._credit = int(AUDIO_IN_CREDIT_S * sample_rate)
        self._credit_came = asyncio.Event()
        self._events: deque[RecognitionEvent] = deque()
        self._ended = False
        self._wants_progress = False
        self._should_leave = False
        self.processed_samples = 0
        self._lag = LagMeter(sample_rate)

    @property
    def should_leave(self) -> bool:
        """Whether the worker is about to end, so that the stream had better go elsewhere."""
        return self._should_leave

    @property
    def has_credit(self) -> bool:
        """Whether the worker has room for more audio (5 s of it)."""
        return self._credit > 0

    @property
    def has_events(self) -> bool:
        """Whether events have come that were not read yet."""
        return bool(self._events)

    async def wait_for_credit(self) -> None:
        """Wait until the worker has room for more audio.

        Raises:
            SpeechError: the task has failed.
            DeadlineExceeded: the worker did not take anything for a long time.
        """
        while self._credit <= 0 and not self._done:
            self._credit_came.clear()
            try:
                async with asyncio.timeout(RECOGNITION_TIMEOUT_S):
                    await self._credit_came.wait()
            except TimeoutError:
                raise DeadlineExceeded from None
        if self._error is not None:
            raise self._error

    def send(self, pcm: bytes) -> None:
        """Send audio (s16le at ``sample_rate``). The last piece may overdraw the credit. A task
        that is over drops it: who reads the events knows."""
        self._credit -= len(pcm) // 2
        self._lag.sent(len(pcm) // 2)
        self._replica.send(Audio(self.number, pcm), within_s=AUDIO_DELAY_S)

    def finish(self) -> None:
        """No more audio."""
        self._ended = True
        self._replica.send(EndOfAudio(self.number))
        self._changed.set()

    def configure(self, max_sentence_silence_ms: int) -> None:
        """Change the end-of-sentence silence."""
        self._replica.send(Configure(self.number, max_sentence_silence_ms))

    def tell_source_rate(self, source_rate: int) -> None:
        """The audio that follows is made from what came at this rate (Hz)."""
        self._replica.send(SourceRate(self.number, source_rate))

    async def events(self, *, progress: bool) -> AsyncGenerator[RecognitionEvent | int, None]:
        """What the worker reports: events, and, if ``progress`` is wanted, as numbers the samples
        processed so far; such a number also comes when the stream should leave. Ends when the task
        is complete.

        Raises:
            SpeechError: the task failed.
            DeadlineExceeded: after the end of audio, nothing came for a long time.
        """
        self._wants_progress = progress
        told, told_to_leave = 0, False
        while True:
            self._changed.clear()
            processed, done, error = self.processed_samples, self._done, self._error
            while self._events:
                yield self._events.popleft()
            if (progress and processed > told) or self._should_leave > told_to_leave:
                told, told_to_leave = processed, self._should_leave
                yield told
            if error is not None:
                raise error
            if done:
                return
            if not self._changed.is_set():
                await self._wait_for_change()

    async def _wait_for_change(self) -> None:
        if not self._ended:
            # The client has the turn; whoever serves it limits its silence.
            await self._changed.wait()
            return
        try:
            async with asyncio.timeout(RECOGNITION_TIMEOUT_S):
                await self._changed.wait()
        except TimeoutError:
            raise DeadlineExceeded from None

    def recognized(self, event: RecognitionEvent) -> None:
        if (
            isinstance(event, SentenceChanged)
            and self._events
            and isinstance(self._events[-1], SentenceChanged)
        ):
            self._events[-1] = event  # only the newest hypothesis counts
        else:
            self._events.append(event)
        self._changed.set()

    def processed(self, samples: int) -> None:
        self._credit += samples
        self.processed_samples += samples
        self._lag.processed(samples)
        self._credit_came.set()
        if self._wants_progress:
            self._changed.set()

    def leave(self) -> None:
        """The worker is about to end."""
        self._should_leave = True
        self._changed.set()

    def end(self, error: SpeechError | None) -> None:
        super().end(error)
        self._credit_came.set()


class SpeechHandle(_Task):
    """An utterance in a worker."""

    def __init__(self, replica: Worker, number: int, sample_rate: int) -> None:
        super().__init__(replica, number)
        self.sample_rate = sample_rate
        self._pieces: deque[tuple[bytes, tuple[Mark, ...]]] = deque()

    async def pieces(self) -> AsyncGenerator[tuple[bytes, tuple[Mark, ...]], None]:
        """The audio as it comes (s16le at ``sample_rate``); asking for more returns the credit.

        Raises:
            SpeechError: the utterance failed.
            DeadlineExceeded: nothing came for a long time.
        """
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                yield piece
                self._replica.send(Credit(self.number, len(piece[0]) // 2))
            if self._error is not None:
                raise self._error
            if self._done:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(SYNTHESIS_TIMEOUT_S):
                    await self._changed.wait()
            except TimeoutError:
                raise DeadlineExceeded from None

    def speech(self, pcm: bytes, marks: tuple[Mark, ...]) -> None:
        self._pieces.append((pcm, marks))
        self._changed.set()
