"""The WebSocket doors: a driver that joins the sans-I/O session of ``app/nls`` to the services.

One task group per connection, and nothing outlives it. A connection at rest is one coroutine, the
reader; a writer runs while there is something to write, a job while a service task runs, and a
timer wakes the session's clock:

    reader ──► session ──► outbox ──► writer        frames in; the session's answers out
                 │  ▲
                 ▼  │ events, audio
                job: a service task                 one at a time, cancelled by Abandon

Audio goes straight from the reader to the service. Only where the service is behind, or has not
been granted yet, it waits in the job's intake. Full queues: the intake holds about 30 s of audio,
above that the reader pauses (so Stop, pings and closes are otherwise seen at once); of interim
results only the newest waits in the outbox; finals and audio wait until the client has read what is
before them, and a client that reads nothing for a minute is cut off (``app/api/server.py``).

While the process is about to end (``drain.py``), the session is told so, and answers as to anything
else.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import random
import time
from collections import deque
from collections.abc import Generator
from functools import partial
from typing import Final

import structlog
from starlette.types import ASGIApp, Receive, Scope
from starlette.types import Send as SendMessage
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.api.auth import credentials
from app.api.connections import PINGED
from app.api.doors import Doors
from app.api.errors import deny_handshake, deny_overload
from app.api.nls_jobs import Job, RecognitionJob, SynthesisJob, TextStreamJob
from app.core import metrics
from app.core.errors import AccessDenied, TooManyConnections
from app.core.logs import log_ids
from app.nls.connection import Connection
from app.nls.outputs import (
    Abandon,
    Close,
    Configure,
    Feed,
    FinishAudio,
    FinishText,
    FlushText,
    OpenRecognition,
    OpenSynthesis,
    OpenTextStream,
    Output,
    Say,
    Send,
    SendAudio,
)
from app.nls.status import CLIENT_DISCONNECT, Status
from app.nls.task import Limits as SessionLimits

log = structlog.get_logger(__name__)

PATHS: Final = frozenset({"/ws/v1", "/ws/v1/asr", "/ws/v1/tts", "/stream/v1/asr", "/stream/v1/tts"})
"""All serve all namespaces (nls-protocol.md 1.1); the first is every SDK's default."""

OUTBOX_FRAMES: Final = 8
_LOOK_S: Final = 1.0
"""How often the clock looks while no deadline is known: one begins when a task ends."""

_TELL_FULL_S: Final = 60.0
"""Refused connections are logged once in this time: those who are refused come again."""

_BURST: Final = 256
"""Frames that are read in a row before other connections get their turn."""


class WebSocketDoor:
    """ASGI middleware: serves the NLS paths, and passes everything else on.

    In front of the web framework and not inside, because its layers cost each connection several
    KiB and each frame some microseconds.
    """

    def __init__(self, app: ASGIApp, doors: Doors) -> None:
        self._app = app
        self._doors = doors
        self._open_connections = 0
        self._told_full_at = -_TELL_FULL_S
        self._refused = 0  # since it was told

    async def __call__(self, scope: Scope, receive: Receive, send: SendMessage) -> None:
        """See ASGI."""
        if scope["type"] == "websocket" and scope["path"] in PATHS:
            await self._open(WebSocket(scope, receive, send))
        else:
            await self._app(scope, receive, send)

    async def _open(self, websocket: WebSocket) -> None:
        presented = credentials(websocket)
        try:
            self._doors.access.check_handshake(
                presented.token, token_in_message=self._doors.token_in_message
            )
        except AccessDenied as error:
            await deny_handshake(websocket, error)
            return
        if self._open_connections >= self._doors.limits.max_connections:
            self._tell_full()
            await deny_overload(websocket, TooManyConnections.default_text)
            return
        connection_id = f"{random.getrandbits(48):012x}"  # for the log, protects nothing
        with self._counted(), log_ids(connection_id=connection_id) as ids:
            await websocket.accept()
            await _Driver(websocket, self._doors, presented.token, presented.appkey, ids).run()

    @contextlib.contextmanager
    def _counted(self) -> Generator[None, None, None]:
        self._open_connections += 1
        try:
            yield
        finally:
            self._open_connections -= 1

    def _tell_full(self) -> None:
        self._refused += 1
        metrics.REFUSED.labels(TooManyConnections.reason).inc()
        now = time.monotonic()
        if now - self._told_full_at >= _TELL_FULL_S:
            log.warning(
                "connections refused",
                refused=self._refused,
                max_connections=self._doors.limits.max_connections,
                reason=TooManyConnections.reason,
            )
            self._told_full_at, self._refused = now, 0


class _ConnectionOver(Exception):
    """Ends the task group: the client has gone, or our close frame is on its way."""


class _Driver:
    """One connection."""

    def __init__(
        self,
        websocket: WebSocket,
        doors: Doors,
        token: str | None,
        appkey: str | None,
        ids: dict[str, str],
    ) -> None:
        self.doors = doors
        self.ids = ids
        # What is begun here may be asked for by a job, or by the end of the process: its log lines
        # are the connection's all the same.
        self._context = contextvars.copy_context()
        self._websocket = websocket
        self._loop = asyncio.get_running_loop()
        self.session = Connection(
            authorize=lambda given, key: doors.access.check(token or given, key or appkey),
            new_id=lambda: f"{random.getrandbits(128):032x}",  # names messages, protects nothing
            limits=SessionLimits(
                max_text_chars=doors.limits.max_text_chars,
                max_long_text_chars=doors.limits.max_long_text_chars,
                max_recognizer_audio_ms=doors.limits.max_audio_ms,
                idle_timeout_s=doors.limits.idle_timeout_s,
                recognition_formats=doors.recognition_formats,
                synthesis_formats=doors.synthesis_formats,
            ),
            now=self.now(),
            draining=doors.drain.refusing,
        )
        self._group = asyncio.TaskGroup()
        self._outbox: deque[Send | SendAudio | Close] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._job: Job | None = None
        self._timer: asyncio.TimerHandle | None = None
        # While there is no room for what the client sends, it is not silent: nobody listens.
        self._holds_up = False

    @staticmethod
    def now() -> float:
        """The session's clock. Not the event loop's: uvloop's counts whole milliseconds."""
        return time.monotonic()

    async def run(self) -> None:
        """Serve the connection until either side ends it."""
        metrics.CONNECTIONS.inc()
        state = self._websocket.scope.setdefault("state", {})
        state[PINGED] = self._pinged
        try:
            async with self._group:
                self._arm(_LOOK_S)
                with self.doors.drain.connection(self):
                    await self._read()
        except* _ConnectionOver:
            if self.session.active:
                self._count(CLIENT_DISCONNECT)
                log.info(
                    "client disconnected",
                    code=CLIENT_DISCONNECT.code,
                    task_id=self.session.task_id,
                    namespace=self.session.namespace,
                )
        except* Exception as errors:
            log.error("connection failed", task_id=self.session.task_id, exc_info=errors)
            with contextlib.suppress(Exception):
                await self._websocket.close(1011)
        finally:
            metrics.CONNECTIONS.dec()
            del state[PINGED]  # it refers to this driver, which refers to the state
            if self._timer is not None:
                self._timer.cancel()

    def _count(self, status: Status) -> None:
        metrics.TASKS.labels(self.session.namespace, status.code).inc()

    # The end of the process

    def drain(self) -> None:
        """See ``drain.py``."""
        self._context.run(self.apply, self.session.drain(self.now()))

    def finish_early(self) -> None:
        """See ``drain.py``."""
        self._context.run(self.apply, self.session.finish_early(self.now()))

    def cut_off(self) -> None:
        """See ``drain.py``."""
        self._context.run(self.apply, self.session.cut_off(self.now()))

    def _pinged(self) -> None:
        """The client has sent a ping, which is answered already."""
        self.session.ping(self.now())

    async def _read(self) -> None:
        for count in itertools.count(1):
            if count % _BURST == 0:
                await asyncio.sleep(0)
            try:
                message = await self._websocket.receive()
            except (WebSocketDisconnect, RuntimeError):
                raise _ConnectionOver from None
            if message["type"] != "websocket.receive":
                raise _ConnectionOver
            data = message.get("bytes")
            if data is not None:
                self.apply(self.session.binary(data, self.now()))
            else:
                self.apply(self.session.text(message["text"], self.now()))
            if self._job is not None and self._job.is_full:
                self._holds_up = True
                await self._job.has_room()
                self._holds_up = False
                self.session.touch(self.now())
            if len(self._outbox) > OUTBOX_FRAMES:
                await self.drained()

    # The session's answers

    def apply(self, outputs: list[Output]) -> None:
        """Carry out what the session answered."""
        for output in outputs:
            match output:
                case Feed() | FinishAudio() | Configure() | Say() | FlushText() | FinishText():
                    if self._job is not None:
                        self._job.take(output)
                case Send() | SendAudio() | Close():
                    self._post(output)
                case OpenRecognition(request):
                    self._start(RecognitionJob(self, request))
                case OpenSynthesis(request):
                    self._start(SynthesisJob(self, request))
                case OpenTextStream(request):
                    self._start(TextStreamJob(self, request))
                case Abandon():
                    if self._job is not None:
                        self._job.abandon()

    def _start(self, job: Job) -> None:
        """Run ``job`` once the last one is over: it may still be cleaning up, and must not report
        into the next one's task."""
        previous, self._job = self._job, job
        self.ids.update(job.ids)
        task = self._group.create_task(job.run(after=previous))
        task.add_done_callback(partial(self._over, job))
        job.begin(task)
        # The clock may be set to the end of the time between tasks, which is a minute.
        self._arm(_LOOK_S)

    def _over(self, job: Job, _task: asyncio.Task[None]) -> None:
        """``job`` has ended: what is logged now is not its task's any more."""
        if job is self._job:
            for key in ("task_id", "namespace"):
                self.ids.pop(key, None)

    # The writer

    def _post(self, output: Send | SendAudio | Close) -> None:
        if isinstance(output, Send) and output.interim and self._outbox:
            last = self._outbox[-1]
            if isinstance(last, Send) and last.interim:
                self._outbox.pop()
        if isinstance(output, Close) and output.status is not None:
            self._count(output.status)
            reason = {}
            if output.reason:
                metrics.REFUSED.labels(output.reason).inc()
                reason["reason"] = output.reason
            log.info(
                "task refused or failed",
                code=output.status.code,
                task_id=self.session.task_id,
                namespace=self.session.namespace,
                **reason,
            )
        self._outbox.append(output)
        if self._writer is None:
            self._writer = self._group.create_task(self._write(), context=self._context)

    async def _write(self) -> None:
        while self._outbox:
            output = self._outbox[0]
            if isinstance(output, Send) and output.not_before is not None:
                while (delay := output.not_before - self.now()) > 0:  # noqa: ASYNC110 - a clock
                    await asyncio.sleep(delay)
            # Taken out only now: an interim result that waits here may still be replaced.
            output = self._outbox.popleft()
            await self._send(output)
            if self._room is not None and len(self._outbox) <= OUTBOX_FRAMES:
                self._room.set_result(None)
                self._room = None
        self._writer = None

    async def _send(self, output: Send | SendAudio | Close) -> None:
        try:
            match output:
                case Send(text):
                    await self._websocket.send({"type": "websocket.send", "text": text})
                case SendAudio(data):
                    await self._websocket.send({"type": "websocket.send", "bytes": data})
                case Close(code, status):
                    if status is None and self._job is not None:
                        await self._job.ended()  # it has Completed, and has yet to log it
                    await self._websocket.close(code)
        except (WebSocketDisconnect, RuntimeError, OSError):
            raise _ConnectionOver from None
        if isinstance(output, Close):
            raise _ConnectionOver

    async def drained(self) -> None:
        """Wait until the client has read enough of what was sent."""
        while len(self._outbox) > OUTBOX_FRAMES:
            if self._room is None:
                self._room = self._loop.create_future()
            await asyncio.shield(self._room)

    # The clock

    def _arm(self, wait_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(wait_s, 0.01), self._look, context=self._context)

    def _look(self) -> None:
        if self._holds_up:
            self.session.touch(self.now())
        self.apply(self.session.tick(self.now()))
        deadline = self.session.deadline()
        self._arm(_LOOK_S if deadline is None else deadline - self.now())
