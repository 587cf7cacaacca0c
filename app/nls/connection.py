"""One WebSocket connection: envelope, authorisation, one task at a time, idle times, failures.

The driver calls in; every method returns the outputs to carry out, in order, and none raises. Time
is any monotonic clock in seconds, the same in all calls. Once a ``Close`` was returned, nothing
else ever is.

    client says                      no task                 task active
    -------------------------------  ----------------------  --------------------------------
    not JSON, no header, bad ids     TaskFailed 40000002     TaskFailed 40000002
    unknown namespace                TaskFailed 40010001     TaskFailed 40010001
    unknown directive                TaskFailed 40010002     TaskFailed 40010002
    Start                            a new task              TaskFailed 40010005
    other directive, last task's id  ignored: came too late  (cannot be)
    other directive                  TaskFailed 40010005     passed on if id and namespace fit
    binary                           ignored                 passed on

(nls-protocol.md 8.4; every TaskFailed is followed by a close with code 1000.)

When the server ends, ``drain``, ``finish_early`` and ``cut_off`` are called in this order, once
each; from the first on every close has the code 1001:

    after         no task                 task active
    ------------  ----------------------  --------------------------------------------
    drain         closed                  goes on; closed after Completed
    finish_early  closed                  no more audio is taken: what there is is recognised and
                                          delivered, then TaskFailed 50000001. A synthesis fails
    cut_off       closed                  TaskFailed 50000001

A connection that is opened after ``drain`` is ``draining`` from its beginning: Start is answered
with TaskFailed 40000005.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from app.core.errors import Draining, InvalidRequest, Overloaded, SpeechError
from app.core.project import DEFAULT_PROJECT, Project
from app.core.speech import AudioProcessed, RecognitionEvent, SpeechEvent
from app.nls.messages import Request, decode, task_failed
from app.nls.namespaces import NAMESPACES
from app.nls.outputs import Abandon, Close, Output, Send
from app.nls.parameters import with_defaults
from app.nls.status import (
    DIRECTIVE_UNSUPPORTED,
    IDLE_TIMEOUT,
    MESSAGE_INVALID,
    NAMESPACE_NOT_FOUND,
    SHUTTING_DOWN_TEXT,
    TASK_STATE_ERROR,
    Family,
    ProtocolError,
    Status,
    code_of,
    quote,
)
from app.nls.task import REPLY_DELAY_S, Limits, Phase, ShuttingDown, Task

NORMAL_CLOSURE: Final = 1000
GOING_AWAY: Final = 1001

Authorize = Callable[[str | None, str | None], Project]
"""Called with the token in a Start message (None where it has none) and its appkey, whose project
it returns; raises the errors of an appkey or token that is not to be served."""


class Connection:
    """The protocol state of one connection.

    ``new_id`` gives 32 fresh hex digits. ``now``: when the connection was accepted. ``draining``:
    the server is about to end.

    Reports about the service task (``opened``, ``event``, ``speech``, ``audio``, ``finished``,
    ``failed``) are ignored when no task is active. The driver must not report on an abandoned task
    once a next one was started: the connection could not tell the two apart.
    """

    def __init__(
        self,
        *,
        authorize: Authorize,
        new_id: Callable[[], str],
        limits: Limits,
        now: float,
        draining: bool = False,
    ) -> None:
        self._draining = draining
        self._authorize = authorize
        self._new_id = new_id
        self._limits = limits
        self._task: Task | None = None
        self._closed = False
        # The latest sign of life of the client, and its latest text frame.
        self._touched_at = now
        self._text_at = now
        self._last_directive = ""

    @property
    def task_id(self) -> str:
        """Id of the task, or of the latest one; "" before the first. For the log."""
        return self._task.task_id if self._task else ""

    @property
    def namespace(self) -> str:
        """Namespace of the task, or of the latest one; "" before the first. For the log."""
        return self._task.NAMESPACE if self._task else ""

    @property
    def active(self) -> bool:
        """Whether a task is under way: a client that leaves now is a CLIENT_DISCONNECT."""
        return self._active is not None

    @property
    def closed(self) -> bool:
        """Whether a ``Close`` was returned."""
        return self._closed

    @property
    def _active(self) -> Task | None:
        return self._task if self._task and self._task.phase is not Phase.OVER else None

    # What the client sends

    def text(self, data: str, now: float) -> list[Output]:
        """A text frame."""
        if self._closed:
            return []
        self._touched_at = self._text_at = now
        task_id = ""
        try:
            request = self._addressed(decode(data))
            task_id = request.task_id
            request.check_ids()
            return self._dispatch(request, now)
        except SpeechError as error:
            return self._fail(error, task_id)

    def binary(self, data: bytes, now: float) -> list[Output]:
        """A binary frame of any size: audio for the active task, or nothing."""
        self._touched_at = now
        task = self._active
        return task.binary(data) if task and data else []

    def ping(self, now: float) -> None:
        """A ping of the client; the answer is the driver's business."""
        if task := self._active:
            task.pinged_at = now

    def touch(self, now: float) -> None:
        """The driver itself kept the client waiting until now: its silence does not count."""
        self._touched_at = now

    # What the service task reports

    def opened(self, now: float) -> list[Output]:
        """The service granted the task."""
        # From now on the client has its turn.
        self._touched_at = now
        return self._report(lambda task: task.opened(), now)

    def event(self, event: RecognitionEvent | AudioProcessed, now: float) -> list[Output]:
        """A result of the recognition service."""
        return self._report(lambda task: task.event(event), now)

    def audio(self, data: bytes, now: float) -> list[Output]:
        """Audio of the synthesis service, in the requested format."""
        return self._report(lambda task: task.audio(data), now)

    def speech(self, event: SpeechEvent, now: float) -> list[Output]:
        """What the synthesis service reports beside the audio."""
        return self._report(lambda task: task.speech(event), now)

    def finished(self, now: float) -> list[Output]:
        """The service delivered everything and ended."""
        return self._report(lambda task: task.finished(), now)

    def failed(self, error: SpeechError, now: float) -> list[Output]:
        """The service refused the task, or failed on it and ended."""
        return self._fail(error, abandon=False) if self._active else []

    # Time

    def deadline(self) -> float | None:
        """When to call ``tick`` next, unless something else is called before; None for never."""
        if self._closed:
            return None
        task = self._active
        if task is None:
            return self._touched_at + self._limits.idle_between_tasks_s
        return task.idle_deadline(self._touched_at)

    def tick(self, now: float) -> list[Output]:
        """The deadline passed. Harmless when it did not."""
        deadline = self.deadline()
        if deadline is None or now < deadline:
            return []
        if self._active is None:
            return [self._close()]
        text = (
            "Websocket session is idle for too long time, "
            f"the last directive is '{self._last_directive}'!"
        )
        return self._fail(ProtocolError(IDLE_TIMEOUT, text))

    # The end of the server

    def drain(self, now: float) -> list[Output]:
        """The server ends: no new task; a running one goes on."""
        self._draining = True
        return [self._close()] if self._active is None and not self._closed else []

    def finish_early(self, now: float) -> list[Output]:
        """There is no time left for a running task to reach its own end."""
        self._draining = True
        return self._report(lambda task: task.finish_early(), now) or self.drain(now)

    def cut_off(self, now: float) -> list[Output]:
        """There is no time left at all."""
        self._draining = True
        return self._fail(ShuttingDown()) if self._active else self.drain(now)

    # Inside

    def _addressed(self, request: Request) -> Request:
        """xiaozhi stops a recognition without a task id: the running task is meant."""
        task = self._active
        if task is None or request.header.task_id or request.directive not in task.DIRECTIVES:
            return request
        header = msgspec.structs.replace(request.header, task_id=task.task_id)
        return msgspec.structs.replace(request, header=header)

    def _dispatch(self, request: Request, now: float) -> list[Output]:
        namespace = request.header.namespace or ""
        kind = NAMESPACES.get(namespace)
        if kind is None:
            raise ProtocolError(NAMESPACE_NOT_FOUND, f"Unknown namespace {quote(namespace)}!")
        name = request.directive
        if name == kind.START:
            return self._start(kind, request, now)
        if name not in kind.DIRECTIVES:
            raise ProtocolError(
                DIRECTIVE_UNSUPPORTED,
                f"Directive {quote(name)} is not supported in namespace '{namespace}'!",
            )
        return self._continue(kind, request, now)

    def _start(self, kind: type[Task], request: Request, now: float) -> list[Output]:
        if self._active:
            raise ProtocolError(TASK_STATE_ERROR, "Got start directive while a task is running!")
        # Remembered before its checks: a refusal is logged with its id, and gets its family's code.
        appkey = request.header.appkey or ""
        self._task = task = kind(
            request.task_id, appkey, DEFAULT_PROJECT, now, self._limits, self._new_id
        )
        self._last_directive = request.directive
        if self._draining:
            raise Draining(SHUTTING_DOWN_TEXT)
        if not appkey:
            raise InvalidRequest("appkey not set")
        task.project = self._authorize(request.token, appkey)
        return task.start(with_defaults(request.parameters(), task.project))

    def _continue(self, kind: type[Task], request: Request, now: float) -> list[Output]:
        task = self._active
        if task is None:
            if request.task_id == self.task_id:
                # Sent before the client saw Completed, as after an early one by voice detection.
                return []
            raise ProtocolError(
                TASK_STATE_ERROR, f"Got directive '{request.directive}' while no task is running!"
            )
        if request.task_id != task.task_id:
            given = quote(request.task_id)
            raise ProtocolError(MESSAGE_INVALID, f"Task id {given} is not the running task's!")
        if kind is not type(task):
            raise ProtocolError(
                TASK_STATE_ERROR,
                f"Got directive '{request.directive}' while a '{task.NAMESPACE}' task is running!",
            )
        self._last_directive = request.directive
        return task.directive(request.directive, request.parameters(), now)

    def _report(self, handle: Callable[[Task], list[Output]], now: float) -> list[Output]:
        task = self._active
        if task is None:
            return []
        task.reported_at = now
        try:
            outputs = handle(task)
        except SpeechError as error:
            return self._fail(error)
        if task.phase is Phase.OVER:
            # The time between tasks starts with the end of this one.
            self._touched_at = now
            if self._draining:
                outputs.append(self._close())
        return outputs

    def _fail(
        self, error: SpeechError, request_task_id: str = "", *, abandon: bool = True
    ) -> list[Output]:
        task = self._active
        family: Family = task.FAMILY if task else "recognition"
        # The task that fails is the running one, even where another message caused it.
        task_id = task.task_id if task else request_task_id
        status = code_of(error, family)
        text = task_failed(task_id, self._new_id(), status, error.text)
        outputs: list[Output] = []
        if task:
            if abandon and task.phase is not Phase.NEW:
                outputs.append(Abandon())
            task.phase = Phase.OVER
        outputs.append(Send(text, not_before=self._text_at + REPLY_DELAY_S))
        reason = error.reason if isinstance(error, Overloaded) else ""
        outputs.append(self._close(status, reason))
        return outputs

    def _close(self, status: Status | None = None, reason: str = "") -> Close:
        self._closed = True
        return Close(GOING_AWAY if self._draining else NORMAL_CLOSURE, status, reason)
