"""The service tasks of a WebSocket connection: what the session asks the services to do, and their
answers on the way back to the session."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator
from typing import Final, Protocol

import structlog

from app.api.concurrency import alongside
from app.api.doors import Doors
from app.core import metrics
from app.core.errors import EngineFailed, SpeechError
from app.core.logs import log_ids
from app.core.speech import RecognitionRequest, SpeechEvent, SynthesisRequest
from app.nls.connection import Connection
from app.nls.outputs import Configure, Feed, FinishAudio, FinishText, FlushText, Output, Say
from app.nls.status import SUCCESS
from app.services.recognition import RecognitionTask
from app.services.synthesis import SpokenTask

log = structlog.get_logger(__name__)

ENCODED_BYTES_PER_S: Final = 16_000
"""What speech in an encoded format takes at the most, usually: 128 kbit/s."""

INTAKE_S: Final = 30
"""Seconds of PCM (16 bits, at the task's rate) that wait for the service; above that the reader
pauses, and the client finds its socket full."""


Command = Feed | FinishAudio | Configure | Say | FlushText | FinishText
"""What a session asks of the running service task."""


class Driver(Protocol):
    """The connection that a job belongs to (``nls_ws.py``)."""

    doors: Doors
    session: Connection
    ids: dict[str, str]
    """What the lines of this connection carry in the log (``app/core/logs.py``)."""

    def now(self) -> float:
        """The session's clock."""
        ...

    def apply(self, outputs: list[Output]) -> None:
        """Carry out what the session answered."""

    async def drained(self) -> None:
        """Wait until the client has read enough of what was sent."""


class Job:
    """A service task of the connection. Reports to the session, until it is abandoned."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._task: asyncio.Task[None] | None = None
        self._abandoned = False
        self._began = driver.now()
        # Now, because the connection may have its next task before this job has ended.
        self.ids = {
            **driver.ids,
            "task_id": driver.session.task_id,
            "namespace": driver.session.namespace,
        }

    def begin(self, task: asyncio.Task[None]) -> None:
        """``task`` runs this job."""
        self._task = task

    def abandon(self) -> None:
        """Cancel; nothing is reported any more."""
        self._abandoned = True
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def ended(self) -> None:
        """Wait until nothing of it is left."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def run(self, after: Job | None) -> None:
        """Wait for the end of the job before this one, do the work, and report its end."""
        with log_ids(**self.ids):
            if after is not None:
                await after.ended()
            await self._run()

    async def _run(self) -> None:
        try:
            await self._work()
            self._note_completed()
        except SpeechError as error:
            await self._fail(error)
        except Exception:
            log.exception("task failed")
            await self._fail(EngineFailed())

    def _note_completed(self) -> None:
        # This job's ids: the session may have its next task by now.
        metrics.TASKS.labels(self.ids["namespace"], SUCCESS.code).inc()
        log.info(
            "task completed",
            code=SUCCESS.code,
            task_id=self.ids["task_id"],
            namespace=self.ids["namespace"],
            ms=round((self._driver.now() - self._began) * 1000),
            **self._details(),
        )

    def _details(self) -> dict[str, object]:
        """What the log says of this job besides."""
        return {}

    async def _fail(self, error: SpeechError) -> None:
        if not self._abandoned:
            await self.report(self._driver.session.failed(error, self._driver.now()))

    async def report(self, outputs: list[Output]) -> None:
        """Carry out the session's answer, and wait for a client that is behind; stop here if the
        answer was to abandon this job."""
        self._driver.apply(outputs)
        await self._driver.drained()
        if self._abandoned:
            if not self._driver.session.closed:
                self._note_completed()  # early, by voice detection
            raise asyncio.CancelledError

    async def _work(self) -> None:
        raise NotImplementedError

    def take(self, command: Command) -> None:
        """A command for the service; a text that came whole has none."""

    @property
    def is_full(self) -> bool:
        """Whether the reader has to pause."""
        return False

    async def has_room(self) -> None:
        """Wait until it may go on."""


class RecognitionJob(Job):
    """Feeds a recognition task, and reports its events to the session."""

    def __init__(self, driver: Driver, request: RecognitionRequest) -> None:
        super().__init__(driver)
        self._request = request
        raw = request.format in ("pcm", "wav")
        self._limit = INTAKE_S * (request.sample_rate * 2 if raw else ENCODED_BYTES_PER_S)
        self._recognition: RecognitionTask | None = None
        self._intake: deque[Feed | FinishAudio | Configure] = deque()
        self._intake_bytes = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._bad_audio: SpeechError | None = None
        self._over = False

    def take(self, command: Command) -> None:
        if self._over or self._abandoned or self._bad_audio is not None:
            return
        assert isinstance(command, Feed | FinishAudio | Configure)
        task = None if self._intake else self._recognition
        if isinstance(command, Feed) and task is not None and task.takes(command.data):
            try:
                task.feed(command.data)
            except SpeechError as error:
                self._bad_audio = error
                self._filled.set()
            return
        self._intake.append(command)
        self._intake_bytes += _cost(command)
        self._filled.set()

    @property
    def is_full(self) -> bool:
        return self._intake_bytes > self._limit and not (self._over or self._abandoned)

    async def has_room(self) -> None:
        while self.is_full:
            self._room.clear()
            await self._room.wait()

    def abandon(self) -> None:
        super().abandon()
        self._room.set()

    async def _work(self) -> None:
        session = self._driver.session
        try:
            async with self._driver.doors.recognition.open(self._request) as task:
                await self.report(session.opened(self._driver.now()))
                self._recognition = task
                await alongside(self._work_off(task), self._report_events(task))
            await self.report(session.finished(self._driver.now()))
        finally:
            self._over = True
            self._room.set()

    def _details(self) -> dict[str, object]:
        return {} if self._recognition is None else self._recognition.heard_as

    async def _report_events(self, task: RecognitionTask) -> None:
        session = self._driver.session
        async for event in task.events():
            await self.report(session.event(event, self._driver.now()))

    async def _work_off(self, task: RecognitionTask) -> None:
        """Hand over what could not be fed at once."""
        while True:
            while self._intake:
                match self._intake[0]:
                    case Feed(data):
                        await task.feed_all(data)
                    case Configure(silence_ms):
                        task.configure(silence_ms)
                    case FinishAudio():
                        task.finish()
                # Only now: what comes meanwhile must queue up behind it.
                self._intake_bytes -= _cost(self._intake.popleft())
                self._room.set()
            if self._bad_audio is not None:
                raise self._bad_audio
            self._filled.clear()
            await self._filled.wait()


class SpeakingJob(Job):
    """Passes a synthesis' audio and events to the session."""

    def __init__(self, driver: Driver, request: SynthesisRequest) -> None:
        super().__init__(driver)
        self._request = request

    async def _pass_on(self, parts: AsyncGenerator[bytes | SpeechEvent, None]) -> None:
        session, now = self._driver.session, self._driver.now
        async with contextlib.aclosing(parts):
            async for part in parts:
                if isinstance(part, bytes):
                    await self.report(session.audio(part, now()))
                else:
                    await self.report(session.speech(part, now()))


class SynthesisJob(SpeakingJob):
    """Speaks a text that came whole."""

    async def _work(self) -> None:
        session, now = self._driver.session, self._driver.now
        service = self._driver.doors.synthesis
        service.check(self._request)
        await self.report(session.opened(now()))
        await self._pass_on(service.tell(self._request))
        await self.report(session.finished(now()))


class TextStreamJob(SpeakingJob):
    """Speaks a text that comes in pieces. What comes before the service has granted the task waits
    here; the session bounds it, since it bounds the text."""

    def __init__(self, driver: Driver, request: SynthesisRequest) -> None:
        super().__init__(driver, request)
        self._speech: SpokenTask | None = None
        self._intake: deque[Say | FlushText | FinishText] = deque()
        self._over = False

    def take(self, command: Command) -> None:
        if self._over or self._abandoned:
            return
        assert isinstance(command, Say | FlushText | FinishText)
        if self._speech is not None:
            _speak(self._speech, command)
        elif not self._intake or command != self._intake[-1] or isinstance(command, Say):
            # A second flush without text in between means nothing, and must not take memory.
            self._intake.append(command)

    async def _work(self) -> None:
        session, now = self._driver.session, self._driver.now
        try:
            async with self._driver.doors.synthesis.open(self._request) as speech:
                await self.report(session.opened(now()))
                self._speech = speech
                while self._intake:
                    _speak(speech, self._intake.popleft())
                await self._pass_on(speech.events())
            await self.report(session.finished(now()))
        finally:
            self._over = True


def _speak(speech: SpokenTask, command: Say | FlushText | FinishText) -> None:
    match command:
        case Say(text):
            speech.say(text)
        case FlushText():
            speech.flush()
        case FinishText():
            speech.finish()


def _cost(command: Feed | FinishAudio | Configure) -> int:
    """Bytes of memory that a waiting command takes, roughly."""
    return 200 + (len(command.data) if isinstance(command, Feed) else 0)
