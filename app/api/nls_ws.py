"""The WebSocket doors: a driver that joins the sans-I/O session of ``app/nls`` to the services.

One task group per connection, and nothing outlives it:

    reader ──► session ──► outbox ──► writer        frames in; the session's answers out
                 │  ▲
                 ▼  │ events, audio
               intake ──► service task              one at a time, cancelled by Abandon
    clock ────► session                             idle times

Full queues: the intake holds about 30 s of audio, above that the reader pauses (so Stop, pings and
closes are otherwise seen at once); of interim results only the newest waits in the outbox; finals
and audio wait until the client has read what is before them, and a client that reads nothing for
``WRITE_TIMEOUT_S`` is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from typing import Final

import structlog
from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.api.auth import credentials
from app.api.concurrency import alongside
from app.api.doors import Doors
from app.api.errors import deny_handshake
from app.core.errors import AccessDenied, EngineFailed, SpeechError
from app.core.speech import RecognitionRequest, SynthesisRequest
from app.nls.connection import Connection
from app.nls.outputs import (
    Abandon,
    Close,
    Configure,
    Feed,
    FinishAudio,
    OpenRecognition,
    OpenSynthesis,
    Output,
    Send,
    SendAudio,
)
from app.nls.task import Limits as SessionLimits
from app.services.recognition import RecognitionTask

log = structlog.get_logger(__name__)

PATHS: Final = (
    "/ws/v1",
    "/ws/v1/asr",
    "/ws/v1/tts",
    "/stream/v1/asr",
    "/stream/v1/tts",
)
"""All serve all namespaces (nls-protocol.md 1.1); the first is every SDK's default."""

INTAKE_S: Final = 30
OUTBOX_FRAMES: Final = 8
WRITE_TIMEOUT_S: Final = 60.0
CLOCK_S: Final = 1.0


def router(doors: Doors) -> APIRouter:
    """The WebSocket routes, on the given services."""
    routes = APIRouter()

    async def door(websocket: WebSocket) -> None:
        presented = credentials(websocket)
        try:
            doors.access.check_handshake(presented.token, token_in_message=doors.token_in_message)
        except AccessDenied as error:
            await deny_handshake(websocket, error)
            return
        await websocket.accept()
        await _Driver(websocket, doors, presented.token, presented.appkey).run()

    for path in PATHS:
        routes.add_websocket_route(path, door)
    return routes


class _ConnectionOver(Exception):
    """Ends the task group: the client has gone, or our close frame is on its way."""


class _Driver:
    """One connection."""

    def __init__(
        self, websocket: WebSocket, doors: Doors, token: str | None, appkey: str | None
    ) -> None:
        self._websocket = websocket
        self._doors = doors
        self._loop = asyncio.get_running_loop()
        self._session = Connection(
            authorize=lambda given, key: doors.access.check(token or given, key or appkey),
            new_id=lambda: secrets.token_hex(16),
            limits=SessionLimits(
                max_text_chars=doors.limits.max_text_chars,
                max_recognizer_audio_ms=doors.limits.max_audio_ms,
                idle_timeout_s=doors.limits.idle_timeout_s,
                recognition_formats=doors.formats,
                synthesis_formats=doors.formats,
            ),
            now=self._loop.time(),
        )
        self._outbox: deque[Send | SendAudio | Close] = deque()
        self._outbox_filled = asyncio.Event()
        self._outbox_drained = asyncio.Event()
        # At most one entry waits: the session has one task at a time.
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()
        self._job: _Job | None = None

    async def run(self) -> None:
        """Serve the connection until either side ends it."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read())
                group.create_task(self._write())
                group.create_task(self._watch_clock())
                group.create_task(self._serve())
        except* _ConnectionOver:
            if self._session.active:
                log.info(
                    "client disconnected",
                    code=40010004,
                    task_id=self._session.task_id,
                    namespace=self._session.namespace,
                )
        except* Exception as errors:
            log.error("connection failed", task_id=self._session.task_id, exc_info=errors)
            with contextlib.suppress(Exception):
                await self._websocket.close(1011)

    # The session's answers

    def _apply(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Send() | SendAudio() | Close():
                    self._post(output)
                case Feed() | FinishAudio() | Configure():
                    if self._job is not None:
                        self._job.take(output)
                case OpenRecognition(request):
                    self._start(_RecognitionJob(self, request))
                case OpenSynthesis(request):
                    self._start(_SynthesisJob(self, request))
                case Abandon():
                    if self._job is not None:
                        self._job.abandon()

    def _post(self, output: Send | SendAudio | Close) -> None:
        if isinstance(output, Send) and output.interim and self._outbox:
            last = self._outbox[-1]
            if isinstance(last, Send) and last.interim:
                self._outbox.pop()
        if isinstance(output, Close) and output.status is not None:
            log.info(
                "task refused or failed",
                code=output.status.code,
                task_id=self._session.task_id,
                namespace=self._session.namespace,
            )
        self._outbox.append(output)
        self._outbox_filled.set()

    def _start(self, job: _Job) -> None:
        self._job = job
        self._jobs.put_nowait(job)

    # The four tasks

    async def _read(self) -> None:
        while True:
            try:
                message = await self._websocket.receive()
            except (WebSocketDisconnect, RuntimeError):
                raise _ConnectionOver from None
            if message["type"] != "websocket.receive":
                raise _ConnectionOver
            data = message.get("bytes")
            if data is not None:
                self._apply(self._session.binary(data, self._loop.time()))
            else:
                self._apply(self._session.text(message["text"], self._loop.time()))
            if self._job is not None and self._job.is_full:
                await self._job.has_room()
                self._session.touch(self._loop.time())
            if len(self._outbox) > OUTBOX_FRAMES:
                await self._drained()

    async def _write(self) -> None:
        while True:
            while self._outbox:
                if isinstance(self._outbox[0], Send) and self._outbox[0].not_before is not None:
                    delay = self._outbox[0].not_before - self._loop.time()
                    if delay > 0:
                        await asyncio.sleep(delay)
                await self._send(self._outbox.popleft())
            self._outbox_drained.set()
            self._outbox_filled.clear()
            await self._outbox_filled.wait()

    async def _send(self, output: Send | SendAudio | Close) -> None:
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                match output:
                    case Send(text):
                        await self._websocket.send({"type": "websocket.send", "text": text})
                    case SendAudio(data):
                        await self._websocket.send({"type": "websocket.send", "bytes": data})
                    case Close(code):
                        await self._websocket.close(code)
        except (TimeoutError, WebSocketDisconnect, RuntimeError, OSError):
            raise _ConnectionOver from None
        if isinstance(output, Close):
            raise _ConnectionOver

    async def _watch_clock(self) -> None:
        while True:
            deadline = self._session.deadline()
            # Look again soon: a task that begins or ends brings an earlier deadline.
            wait = CLOCK_S if deadline is None else deadline - self._loop.time()
            if wait > 0:
                await asyncio.sleep(min(wait, CLOCK_S))
            else:
                self._apply(self._session.tick(self._loop.time()))
                await asyncio.sleep(0.05)

    async def _serve(self) -> None:
        while True:
            job = await self._jobs.get()
            async with asyncio.TaskGroup() as group:
                job.begin(group.create_task(job.run()))

    # For the jobs

    @property
    def doors(self) -> Doors:
        """The services."""
        return self._doors

    async def deliver(self, job: _Job, outputs: list[Output]) -> None:
        """Carry out what the session answered to a job's report, then wait for the client."""
        self._apply(outputs)
        if len(self._outbox) > OUTBOX_FRAMES:
            await self._drained()

    @property
    def session(self) -> Connection:
        """The protocol state."""
        return self._session

    def now(self) -> float:
        """The session's clock."""
        return self._loop.time()

    async def _drained(self) -> None:
        while len(self._outbox) > OUTBOX_FRAMES:
            self._outbox_drained.clear()
            await self._outbox_drained.wait()


class _Job:
    """A service task of the connection. Reports to the session, until it is abandoned."""

    def __init__(self, driver: _Driver) -> None:
        self._driver = driver
        self._task: asyncio.Task[None] | None = None
        self._abandoned = False

    def begin(self, task: asyncio.Task[None]) -> None:
        """``task`` runs this job."""
        self._task = task
        if self._abandoned:
            task.cancel()

    def abandon(self) -> None:
        """Cancel; nothing is reported any more."""
        self._abandoned = True
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def run(self) -> None:
        """Do the work, and report its end."""
        try:
            await self._work()
        except SpeechError as error:
            await self._fail(error)
        except Exception:
            log.exception("task failed", task_id=self._driver.session.task_id)
            await self._fail(EngineFailed())

    async def _fail(self, error: SpeechError) -> None:
        if not self._abandoned:
            await self.report(self._driver.session.failed(error, self._driver.now()))

    async def report(self, outputs: list[Output]) -> None:
        """Carry out the session's answer; stop here if that was to abandon this job."""
        await self._driver.deliver(self, outputs)
        if self._abandoned:
            raise asyncio.CancelledError

    async def _work(self) -> None:
        raise NotImplementedError

    def take(self, command: Feed | FinishAudio | Configure) -> None:
        """A command for the service; only recognition has any."""

    @property
    def is_full(self) -> bool:
        """Whether the reader has to pause."""
        return False

    async def has_room(self) -> None:
        """Wait until it may go on."""


class _RecognitionJob(_Job):
    """Feeds the intake to a recognition task, and its events to the session."""

    def __init__(self, driver: _Driver, request: RecognitionRequest) -> None:
        super().__init__(driver)
        self._request = request
        self._limit = INTAKE_S * request.sample_rate * 2
        self._intake: deque[Feed | FinishAudio | Configure] = deque()
        self._intake_bytes = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._over = False

    def take(self, command: Feed | FinishAudio | Configure) -> None:
        if self._over or self._abandoned:
            return
        self._intake.append(command)
        if isinstance(command, Feed):
            self._intake_bytes += len(command.data)
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
        session, now = self._driver.session, self._driver.now
        try:
            async with self._driver.doors.recognition.open(self._request) as task:
                await self.report(session.opened(now()))
                await alongside(self._feed(task), self._report_events(task))
            await self.report(session.finished(now()))
        finally:
            self._over = True
            self._room.set()

    async def _report_events(self, task: RecognitionTask) -> None:
        async for event in task.events():
            now = self._driver.now()
            await self.report(self._driver.session.event(event, now))

    async def _feed(self, task: RecognitionTask) -> None:
        while True:
            while self._intake:
                command = self._intake.popleft()
                match command:
                    case Feed(data):
                        await task.feed(data)
                        self._intake_bytes -= len(data)
                        self._room.set()
                    case Configure(silence_ms):
                        await task.configure(silence_ms)
                    case FinishAudio():
                        await task.finish()
            self._filled.clear()
            await self._filled.wait()


class _SynthesisJob(_Job):
    """Passes a synthesis' audio to the session."""

    def __init__(self, driver: _Driver, request: SynthesisRequest) -> None:
        super().__init__(driver)
        self._request = request

    async def _work(self) -> None:
        session, now = self._driver.session, self._driver.now
        service = self._driver.doors.synthesis
        service.check(self._request)
        await self.report(session.opened(now()))
        async with contextlib.aclosing(service.speak(self._request)) as pieces:
            async for piece in pieces:
                await self.report(session.audio(piece, now()))
        await self.report(session.finished(now()))
