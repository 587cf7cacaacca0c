"""NLS tasks of a client: recognition (both kinds) and synthesis.

A task belongs to one connection and lives inside an ``async with`` of :mod:`app.client.nls`. Read
its events while you send: a server that cannot deliver stops taking audio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final, NamedTuple

from app.client.errors import AnswerTimeout, ClientError, ConnectionLost, NlsTaskFailed
from app.client.errors import ProtocolViolation as Violation
from app.client.messages import SUCCESS, Event, directive, new_id, parse_event
from app.client.wire import Timeouts, Wire

TASK_FAILED: Final = "TaskFailed"


class Vocabulary(NamedTuple):
    """The names that a namespace uses (nls-protocol.md 1.6)."""

    namespace: str
    start: str
    completed: str
    started: str = ""
    stop: str = ""
    control: str = ""


TRANSCRIBER: Final = Vocabulary(
    "SpeechTranscriber",
    start="StartTranscription",
    started="TranscriptionStarted",
    control="ControlTranscriber",
    stop="StopTranscription",
    completed="TranscriptionCompleted",
)
RECOGNIZER: Final = Vocabulary(
    "SpeechRecognizer",
    start="StartRecognition",
    started="RecognitionStarted",
    stop="StopRecognition",
    completed="RecognitionCompleted",
)
SYNTHESIZER: Final = Vocabulary(
    "SpeechSynthesizer", start="StartSynthesis", completed="SynthesisCompleted"
)
LONG_SYNTHESIZER: Final = SYNTHESIZER._replace(namespace="SpeechLongSynthesizer")


class Task:
    """What all tasks share. ``task_id`` is in every message; ``complete`` tells that the server
    has sent its last event, so that the connection is free for the next task."""

    def __init__(self, wire: Wire, words: Vocabulary, appkey: str, timeouts: Timeouts) -> None:
        self.task_id = new_id()
        self.complete = False
        self._wire = wire
        self._words = words
        self._appkey = appkey
        self._timeouts = timeouts
        self._reading = False

    async def cancel(self) -> None:
        """Give the task up by closing the connection."""
        await self._wire.close()

    async def _direct(self, name: str, payload: Mapping[str, object] | None = None) -> None:
        message = directive(self._words.namespace, name, self.task_id, self._appkey, payload)
        await self._send(message)

    async def _send(self, message: str | bytes) -> None:
        try:
            await self._wire.send(message)
        except ConnectionLost as lost:
            raise await self._cause(lost) from lost

    async def _cause(self, lost: ConnectionLost) -> ClientError:
        """Why the connection ended: a server closes it after TaskFailed, which may still be
        unread. Where another coroutine reads, it finds out, and ``lost`` is the answer here."""
        try:
            while not self.complete and not self._reading:
                await self._receive(self._timeouts.close_s)
        except NlsTaskFailed as failed:
            return failed
        except ClientError:
            pass
        return lost

    async def _receive(self, wait_s: float | None) -> Event | bytes:
        """The next event or audio of this task, checked."""
        message = await self._wire.receive(wait_s)
        if isinstance(message, bytes):
            return message
        event = parse_event(message)
        header = event.header
        if header.name == TASK_FAILED:
            raise NlsTaskFailed(header.status, header.status_text or header.status_message)
        if header.task_id != self.task_id:
            raise Violation(f"{header.name} belongs to another task")
        if header.namespace != self._words.namespace:
            raise Violation(f"{header.name} has the namespace {header.namespace!r}")
        if header.status != SUCCESS:
            raise Violation(f"{header.name} has the status {header.status}")
        if header.name == self._words.completed:
            self.complete = True
        return event


class RecognitionTask(Task):
    """A running SpeechTranscriber or SpeechRecognizer task.

    One coroutine may send while another reads :meth:`events`.
    """

    started: Event
    """The Started event; a transcriber's payload has the ``session_id``."""

    _stopped = False

    async def start(self, payload: Mapping[str, object]) -> None:
        """Send the Start directive and wait for the answer. The ``async with`` has done it.

        Raises:
            NlsTaskFailed: the server refuses the task.
            AnswerTimeout: no answer within ``started_s``.
        """
        await self._direct(self._words.start, payload)
        try:
            event = await self._receive(self._timeouts.started_s)
        except AnswerTimeout as error:
            raise AnswerTimeout("the server did not start the task in time") from error
        if isinstance(event, bytes) or event.name != self._words.started:
            raise Violation(f"the server did not answer with {self._words.started}")
        self.started = event

    async def send(self, audio: bytes) -> None:
        """Send some audio, of any length; waits while the server does not take it.

        Raises:
            NlsTaskFailed: the server has failed the task and closed the connection.
            ConnectionLost: it is closed, and the cause is unknown or somebody else reads it.
        """
        await self._send(audio)

    async def control(self, **options: object) -> None:
        """Change options of the running transcriber (nls-protocol.md 3.4); nothing answers."""
        await self._direct(self._words.control, options)

    async def stop(self) -> None:
        """Say that there is no more audio; the remaining events are still to be read.

        Does nothing when the task is complete, as a recogniser with voice detection may be.
        """
        if self.complete:
            return
        await self._direct(self._words.stop)
        self._stopped = True
        self._wire.limit_wait(self._timeouts.idle_s)

    async def events(self) -> AsyncIterator[Event]:
        """The events in order; ends after the Completed event, which is the last.

        Raises:
            NlsTaskFailed: the task failed.
            AnswerTimeout: nothing for ``idle_s`` after :meth:`stop`. Before it there is no
                limit: silence has no events.
            ConnectionLost, ProtocolViolation: as their classes say.
        """
        self._reading = True
        try:
            while not self.complete:
                event = await self._receive(self._timeouts.idle_s if self._stopped else None)
                if isinstance(event, bytes):
                    raise Violation("the server sent audio in a recognition task")
                yield event
        finally:
            self._reading = False

    async def finish(self) -> list[Event]:
        """Stop, and return the events that are left. Raises what :meth:`events` raises."""
        await self.stop()
        return [event async for event in self.events()]


class SynthesisTask(Task):
    """A running synthesis."""

    async def start(self, payload: Mapping[str, object]) -> None:
        """Send the Start directive. Nothing answers it but audio (nls-protocol.md 4.2)."""
        await self._direct(self._words.start, payload)

    async def frames(self) -> AsyncIterator[Event | bytes]:
        """Everything in order: audio as bytes, and events, of which Completed is the last.

        Raises:
            NlsTaskFailed: the task failed.
            AnswerTimeout: nothing for ``idle_s``.
            ConnectionLost, ProtocolViolation: as their classes say.
        """
        while not self.complete:
            yield await self._receive(self._timeouts.idle_s)

    async def audio(self) -> AsyncIterator[bytes]:
        """Only the audio of :meth:`frames`."""
        async for frame in self.frames():
            if isinstance(frame, bytes):
                yield frame
