"""What the synthesis namespaces share: audio out."""

from __future__ import annotations

from typing import ClassVar

from app.core.speech import SpeechBegan
from app.nls.messages import MAX_FRAME_BYTES
from app.nls.outputs import Output, SendAudio
from app.nls.status import Family
from app.nls.task import Task


class SynthesisSession(Task):
    """A task that sends audio frames. There is no directive to cancel it: a client that has heard
    enough closes the connection."""

    FAMILY: ClassVar[Family] = "synthesis"
    START: ClassVar[str] = "StartSynthesis"

    _subtitles = False
    """Whether the client asked for them."""
    _sentence: SpeechBegan | None = None
    """The sentence whose audio is under way."""

    def audio(self, data: bytes) -> list[Output]:
        """Frames of at most 64 KiB, never an empty one (nls-protocol.md 1.8)."""
        return [
            SendAudio(data[start : start + MAX_FRAME_BYTES])
            for start in range(0, len(data), MAX_FRAME_BYTES)
        ]
