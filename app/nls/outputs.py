"""What a protocol session asks its driver to do, in the order of the list it returns."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.speech import RecognitionRequest, SynthesisRequest
from app.nls.status import Status


@dataclass(frozen=True, slots=True)
class Send:
    """Send one text frame.

    ``not_before``: the earliest time to send it, on the clock of the ``now`` arguments; None for
    at once. ``interim``: a newer interim event makes it worthless, so a driver whose client reads
    slowly may drop it when the next one comes.
    """

    text: str
    not_before: float | None = None
    interim: bool = False


@dataclass(frozen=True, slots=True)
class SendAudio:
    """Send one binary frame: 1 to 65,536 bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Close the WebSocket after everything before this was sent. ``status``: why, for the log;
    None where nothing failed. ``reason``: of an Overloaded, what was full."""

    code: int
    status: Status | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OpenRecognition:
    """Ask the recognition service for a task; report with ``opened`` or ``failed``. ``Feed``,
    ``Configure`` and ``FinishAudio`` may follow before it was granted."""

    request: RecognitionRequest


@dataclass(frozen=True, slots=True)
class Feed:
    """Audio for the running recognition: the client's bytes in any cut, never empty."""

    data: bytes


@dataclass(frozen=True, slots=True)
class FinishAudio:
    """No more audio: the service recognises the rest; report the end with ``finished``."""


@dataclass(frozen=True, slots=True)
class Configure:
    """Change the end-of-sentence silence of the running recognition."""

    max_sentence_silence_ms: int


@dataclass(frozen=True, slots=True)
class OpenSynthesis:
    """Ask the synthesis service for a task; report with ``opened``, ``speech``, ``audio``,
    ``finished`` or ``failed``."""

    request: SynthesisRequest


@dataclass(frozen=True, slots=True)
class OpenTextStream:
    """Ask the synthesis service for a task whose text comes in pieces; report with ``opened``,
    ``speech``, ``audio``, ``finished`` or ``failed``. ``Say``, ``FlushText`` and ``FinishText`` may
    follow before it was granted. The request's text is empty."""

    request: SynthesisRequest


@dataclass(frozen=True, slots=True)
class Say:
    """More text for the running synthesis, cut anywhere, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class FlushText:
    """Speak what there is of the text, even where no sentence has ended; more may follow."""


@dataclass(frozen=True, slots=True)
class FinishText:
    """No more text: the service speaks the rest; report the end with ``finished``."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """Cancel the running service task. Nothing more may be reported about it."""


Output = (
    Send
    | SendAudio
    | Close
    | OpenRecognition
    | Feed
    | FinishAudio
    | Configure
    | OpenSynthesis
    | OpenTextStream
    | Say
    | FlushText
    | FinishText
    | Abandon
)
