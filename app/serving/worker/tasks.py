"""What the running tasks of a worker report to, and the error text they may send."""

from __future__ import annotations

from typing import Protocol

import structlog

from app.core.errors import EngineFailed, SpeechError
from app.core.speech import Mark, RecognitionEvent

log = structlog.get_logger(__name__)


class RecognitionSink(Protocol):
    """Where a recognition task's answers go (its connection). Called on the event loop."""

    def recognized(self, event: RecognitionEvent) -> None:
        """An event, in order."""

    def processed(self, samples: int) -> None:
        """So many more samples are done with."""

    def done(self) -> None:
        """All of the audio is recognised. Last call."""

    def failed(self, error: SpeechError) -> None:
        """The task failed. Last call."""


class SpeechSink(Protocol):
    """Where an utterance's audio goes. Called on the event loop."""

    def speech(self, pcm: bytes, marks: tuple[Mark, ...]) -> None:
        """Some audio, s16le."""

    def done(self) -> None:
        """The utterance is complete. Last call."""

    def failed(self, error: SpeechError) -> None:
        """The utterance failed. Last call."""


def client_error(error: BaseException, what: str, task: str) -> SpeechError:
    """The error to send for ``error``: itself if it was made for clients; otherwise a fixed text,
    and the cause goes to the log once."""
    if isinstance(error, SpeechError):
        return error
    log.error("engine failed", what=what, task_id=task, exc_info=error)
    return EngineFailed()
