"""One task on a connection: the part that all NLS namespaces share.

A namespace is one subclass in a file of its own, entered in ``app/nls/namespaces.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar, Final

from app.core.errors import EngineFailed
from app.core.project import Project
from app.core.speech import AudioProcessed, RecognitionEvent, SpeechEvent
from app.nls.messages import MAX_FRAME_BYTES, Events
from app.nls.outputs import Output, Send
from app.nls.status import SERVER_UNAVAILABLE, SHUTTING_DOWN_TEXT, Family, ProtocolError

REPLY_DELAY_S: Final = 0.005
"""Go's SDK waits for Started and Completed only some time after it sent the directive, and loses an
answer that is faster (nls-protocol.md 1.10)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a connection accepts.

    ``max_text_chars``: characters of one synthesis; ``max_long_text_chars``: of one that may be
    long, or comes in pieces, of ``max_piece_chars`` each. ``max_recognizer_audio_ms``: audio of one
    SpeechRecognizer task; a transcriber has no limit. ``idle_timeout_s``: a running recognition
    without any frame from the client fails after this. ``idle_between_tasks_s``: a connection
    without a task and without any frame is closed after this; at least 10 (nls-protocol.md 1.10).
    ``idle_with_pings_s``: in place of ``idle_timeout_s`` for a text that comes in pieces, from the
    last piece on, where the client goes on to send pings (nls-protocol.md 5.2).
    Formats are lower-case names, in the order in which they are shown.
    """

    max_text_chars: int = 1_000
    max_long_text_chars: int = 100_000
    max_piece_chars: int = 10_000
    max_recognizer_audio_ms: int = 60_000
    idle_timeout_s: float = 10.0
    idle_with_pings_s: float = 23.0
    idle_between_tasks_s: float = 60.0
    recognition_formats: Collection[str] = ("pcm", "wav")
    synthesis_formats: Collection[str] = ("pcm", "wav")


class ShuttingDown(ProtocolError):
    """The server ends before the task does. Its code is one that every client retries, C++ by
    itself and with its offsets (nls-protocol.md 3.5, 8.1)."""

    def __init__(self) -> None:
        super().__init__(SERVER_UNAVAILABLE, SHUTTING_DOWN_TEXT)


class Phase(Enum):
    """Where a task is. It only ever moves downwards."""

    NEW = auto()
    OPENING = auto()
    """The service was asked, and has not granted the task yet."""
    RUNNING = auto()
    STOPPING = auto()
    """No more audio is taken, mostly because the client said that it sends none; the rest of the
    answer is still to come."""
    OVER = auto()


class Task(ABC):
    """A task of one namespace. Methods return what the driver is to do, and raise a
    :class:`app.core.errors.SpeechError` where the task fails; the connection turns that into
    TaskFailed. None is called when ``phase`` is OVER."""

    NAMESPACE: ClassVar[str]
    FAMILY: ClassVar[Family]
    START: ClassVar[str]
    """The directive that starts a task."""
    DIRECTIVES: ClassVar[frozenset[str]] = frozenset()
    """The other directives of the namespace."""

    def __init__(
        self,
        task_id: str,
        appkey: str,
        project: Project,
        started_at: float,
        limits: Limits,
        new_id: Callable[[], str],
    ) -> None:
        self.task_id = task_id
        self.appkey = appkey
        self.project = project
        self.phase = Phase.NEW
        self.reported_at = started_at
        """When the service last reported anything."""
        self.pinged_at = started_at
        """When the client last sent a ping."""
        self._limits = limits
        self._new_id = new_id
        self._events = Events(self.NAMESPACE, task_id, new_id)
        self._directive_at = started_at

    @property
    def waits_for_client(self) -> bool:
        """Whether it is the client's turn, so that its silence is an idle time."""
        return False

    def idle_deadline(self, touched_at: float) -> float | None:
        """When the task fails for the client's silence; None: not now. ``touched_at``: the latest
        sign of life of the client."""
        return touched_at + self._limits.idle_timeout_s if self.waits_for_client else None

    def start(self, payload: Mapping[str, object]) -> list[Output]:
        """The start directive's payload, with the project's defaults. A failed start leaves
        ``phase`` at NEW."""
        outputs = self._open(payload)
        self.phase = Phase.OPENING
        return outputs

    def directive(self, name: str, payload: Mapping[str, object], now: float) -> list[Output]:
        """Another directive of this namespace; ``name`` is one of ``DIRECTIVES``."""
        self._directive_at = now
        return self._directive(name, payload)

    def opened(self) -> list[Output]:
        """The service granted the task."""
        if self.phase is Phase.OPENING:
            self.phase = Phase.RUNNING
        return []

    def binary(self, data: bytes) -> list[Output]:
        """A binary frame of the client, not empty. Means nothing where no audio is expected."""
        return []

    def event(self, event: RecognitionEvent | AudioProcessed) -> list[Output]:
        """A result of the recognition service."""
        return []

    def audio(self, data: bytes) -> list[Output]:
        """Audio of the synthesis service."""
        return []

    def speech(self, event: SpeechEvent) -> list[Output]:
        """What the synthesis service reports beside the audio."""
        return []

    @abstractmethod
    def finished(self) -> list[Output]:
        """The service delivered everything."""

    def finish_early(self) -> list[Output]:
        """The server ends. Fails where the task has no shorter end than its own."""
        raise ShuttingDown

    @abstractmethod
    def _open(self, payload: Mapping[str, object]) -> list[Output]: ...

    def _directive(self, name: str, payload: Mapping[str, object]) -> list[Output]:
        return []

    def _complete(self, name: str, payload: dict[str, object] | None = None) -> list[Output]:
        """End the task with its Completed event."""
        outputs = self._reply(name, payload)
        self.phase = Phase.OVER
        return outputs

    def _reply(self, name: str, payload: dict[str, object] | None = None) -> list[Output]:
        """An answer that the client waits for after its directive."""
        text = _frame(self._events.success(name, payload))
        return [Send(text, not_before=self._directive_at + REPLY_DELAY_S)]

    def _send(
        self, name: str, payload: dict[str, object], *, interim: bool = False
    ) -> list[Output]:
        return [Send(_frame(self._events.success(name, payload)), interim=interim)]


def _frame(event: bytes) -> str:
    # A result that fills 64 KiB is no speech: better a failed task than a frame that breaks SDKs.
    if len(event) > MAX_FRAME_BYTES:
        raise EngineFailed
    return event.decode()
