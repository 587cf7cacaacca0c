"""The API process's end of one engine worker: a connection that comes back, and its tasks."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final, TypeVar

import structlog

from app.core.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    SpeechError,
    from_wire,
)
from app.core.speech import (
    Mark,
    RecognitionEvent,
    RecognitionOptions,
    Role,
    SentenceChanged,
    Utterance,
)
from app.serving.protocol import (
    AUDIO_IN_CREDIT_S,
    PROTOCOL_VERSION,
    Audio,
    Cancel,
    Configure,
    Credit,
    Done,
    EndOfAudio,
    Failed,
    Granted,
    Hello,
    Link,
    Load,
    OpenRecognition,
    OpenSynthesis,
    Processed,
    Recognized,
    Refused,
    Speech,
    ToApi,
)

log = structlog.get_logger(__name__)

OPEN_TIMEOUT_S: Final = 5.0
"""A worker answers ``open`` without waiting for its engine; later than this it is not well."""

AUDIO_DELAY_S: Final = 0.02
"""Audio for a worker is collected for so long, to be written at once."""

SYNTHESIS_TIMEOUT_S: Final = 60.0
RECOGNITION_TIMEOUT_S: Final = 60.0
_RECONNECT_S: Final = (0.02, 0.05, 0.1, 0.2, 0.5)


class _Task:
    """What both kinds of task share: the answer to ``open``, and the end."""

    def __init__(self, replica: Replica, number: int) -> None:
        self._replica = replica
        self.number = number
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()
        self._error: SpeechError | None = None
        self._done = False

    @property
    def replica(self) -> Replica:
        """Where the task runs."""
        return self._replica

    @property
    def is_open(self) -> bool:
        """Whether the worker has granted the task."""
        return self._opened.done()

    async def granted(self) -> None:
        """Wait for the worker's answer.

        Raises:
            Overloaded: it has no room now.
            EngineUnavailable: it did not answer, or is gone.
        """
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
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
        if not self._done:
            self._replica.send(Cancel(self.number))
            self.end(EngineFailed())
        self._replica.forget(self.number)


class RecognitionHandle(_Task):
    """A recognition task in a worker: audio in, events out."""

    def __init__(self, replica: Replica, number: int, sample_rate: int) -> None:
        super().__init__(replica, number)
        self.sample_rate = sample_rate
        self._credit = int(AUDIO_IN_CREDIT_S * sample_rate)
        self._credit_came = asyncio.Event()
        self._events: deque[RecognitionEvent] = deque()
        self._ended = False
        self._wants_progress = False
        self.processed_samples = 0

    @property
    def has_credit(self) -> bool:
        """Whether the worker has room for more audio (5 s of it)."""
        return self._credit > 0

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
        self._replica.send(Audio(self.number, pcm), within_s=AUDIO_DELAY_S)

    def finish(self) -> None:
        """No more audio."""
        self._ended = True
        self._replica.send(EndOfAudio(self.number))
        self._changed.set()

    def configure(self, max_sentence_silence_ms: int) -> None:
        """Change the end-of-sentence silence."""
        self._replica.send(Configure(self.number, max_sentence_silence_ms))

    async def events(self, *, progress: bool) -> AsyncIterator[RecognitionEvent | int]:
        """What the worker reports: events, and, if ``progress`` is wanted, as numbers the samples
        processed so far. Ends when the task is complete.

        Raises:
            SpeechError: the task failed.
            DeadlineExceeded: after the end of audio, nothing came for a long time.
        """
        self._wants_progress = progress
        told = 0
        while True:
            self._changed.clear()
            processed, done, error = self.processed_samples, self._done, self._error
            while self._events:
                yield self._events.popleft()
            if progress and processed > told:
                told = processed
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
        self._credit_came.set()
        if self._wants_progress:
            self._changed.set()

    def end(self, error: SpeechError | None) -> None:
        super().end(error)
        self._credit_came.set()


class SpeechHandle(_Task):
    """An utterance in a worker."""

    def __init__(self, replica: Replica, number: int, sample_rate: int) -> None:
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


H = TypeVar("H", RecognitionHandle, SpeechHandle)


class Replica:
    """One worker, seen from an API process. :meth:`run` keeps the connection up."""

    def __init__(self, name: str, role: Role, socket_path: str) -> None:
        self.name = name
        self.role = role
        self._socket_path = socket_path
        self._link: Link | None = None
        self._lost = asyncio.Event()
        self._greeted = False
        self.hello: Hello | None = None
        self.on_hello: Callable[[Hello], None] = lambda hello: None
        self.load = 0
        self.ready = asyncio.Event()
        self._tasks: dict[int, RecognitionHandle | SpeechHandle] = {}
        self._next_number = 0

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        attempt = 0
        try:
            while True:
                try:
                    if await self._connect_once():
                        attempt = 0
                except OSError as error:
                    log.debug("worker not reachable", replica=self.name, error=str(error))
                await asyncio.sleep(_RECONNECT_S[min(attempt, len(_RECONNECT_S) - 1)])
                attempt += 1
        finally:
            if self._link is not None:
                self._link.close()

    async def _connect_once(self) -> bool:
        """Hold one connection until it is lost. Returns whether the worker got to greet."""
        self._lost = asyncio.Event()
        self._greeted = False
        # Before it is connected: the greeting may come in the same moment.
        self._link = Link(ToApi, self._receive, self._on_lost)
        link = self._link
        await asyncio.get_running_loop().create_unix_connection(lambda: link, self._socket_path)
        await self._lost.wait()
        return self._greeted

    def _on_lost(self) -> None:
        self.hello = None
        self.ready.clear()
        self.load = 0
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            task.end(EngineFailed() if task.is_open else EngineUnavailable())
        self._lost.set()

    def send(
        self,
        message: OpenRecognition | Audio | EndOfAudio | Configure | OpenSynthesis | Credit | Cancel,
        *,
        within_s: float = 0.0,
    ) -> None:
        """Send; a lost connection drops it (its tasks have ended then)."""
        if self._link is not None:
            self._link.send(message, within_s=within_s)

    def forget(self, number: int) -> None:
        """A task is over."""
        self._tasks.pop(number, None)

    async def open_recognition(self, options: RecognitionOptions, log_id: str) -> RecognitionHandle:
        """Start a recognition task here.

        Raises:
            Overloaded: the worker is full.
            EngineUnavailable: it is not ready, or does not answer.
        """
        capabilities = self.hello.recognizer if self.hello is not None else None
        if capabilities is None:
            raise EngineUnavailable
        task = RecognitionHandle(self, self._number(), capabilities.sample_rate)
        self._tasks[task.number] = task
        self.send(OpenRecognition(task.number, options, log_id))
        return await self._wait_granted(task)

    async def open_synthesis(self, utterance: Utterance, log_id: str) -> SpeechHandle:
        """Start an utterance here. Raises as :meth:`open_recognition`, and what the engine says
        of the utterance."""
        capabilities = self.hello.synthesizer if self.hello is not None else None
        if capabilities is None:
            raise EngineUnavailable
        task = SpeechHandle(self, self._number(), capabilities.sample_rate)
        self._tasks[task.number] = task
        self.send(OpenSynthesis(task.number, utterance, log_id))
        return await self._wait_granted(task)

    async def _wait_granted(self, task: H) -> H:
        try:
            await task.granted()
        except BaseException:
            task.cancel()
            raise
        return task

    def _number(self) -> int:
        self._next_number += 1
        return self._next_number

    def _receive(self, message: ToApi) -> None:
        match message:
            case Hello():
                self._greet(message)
            case Load(active):
                self.load = active
            case _:
                task = self._tasks.get(message.task)
                if task is not None:
                    self._dispatch(task, message)

    def _greet(self, hello: Hello) -> None:
        if hello.version != PROTOCOL_VERSION:
            log.error("worker speaks another protocol version", replica=self.name)
            if self._link is not None:
                self._link.close()
            return
        self._greeted = True
        self.hello = hello
        self.on_hello(hello)
        self.ready.set()

    def _dispatch(self, task: RecognitionHandle | SpeechHandle, message: ToApi) -> None:
        match message:
            case Recognized(_, event) if isinstance(task, RecognitionHandle):
                task.recognized(event)
            case Processed(_, samples) if isinstance(task, RecognitionHandle):
                task.processed(samples)
            case Speech(_, pcm, marks) if isinstance(task, SpeechHandle):
                task.speech(pcm, marks)
            case Granted():
                task.grant()
            case Done():
                self.forget(task.number)
                task.end(None)
            case Refused(_, error, text) | Failed(_, error, text):
                self.forget(task.number)
                task.end(from_wire(error, text))
            case _:
                log.error("worker sent a message of the wrong kind", replica=self.name)


@contextlib.asynccontextmanager
async def running(replicas: list[Replica]) -> AsyncIterator[None]:
    """Keep the replicas' connections up inside the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(replica.run()) for replica in replicas]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
