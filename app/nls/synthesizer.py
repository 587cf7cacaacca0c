"""SpeechSynthesizer: one text in, one audio stream out (nls-protocol.md 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from app.nls.messages import MAX_FRAME_BYTES
from app.nls.outputs import OpenSynthesis, Output, SendAudio
from app.nls.parameters import synthesis_request
from app.nls.status import Family
from app.nls.task import Task


class Synthesizer(Task):
    """One SpeechSynthesizer task: audio frames, then SynthesisCompleted.

    SynthesisStarted is not sent: no SDK waits for it here, and Python logs an error on it. There is
    no stop directive; a client that has heard enough closes the connection.
    """

    NAMESPACE: ClassVar[str] = "SpeechSynthesizer"
    FAMILY: ClassVar[Family] = "synthesis"
    START: ClassVar[str] = "StartSynthesis"

    def _open(self, payload: Mapping[str, object]) -> list[Output]:
        request = synthesis_request(
            payload,
            task_id=self.task_id,
            appkey=self.appkey,
            formats=self._limits.synthesis_formats,
            max_text_chars=self._limits.max_text_chars,
        )
        return [OpenSynthesis(request)]

    def audio(self, data: bytes) -> list[Output]:
        """Frames of at most 64 KiB, never an empty one (nls-protocol.md 1.8)."""
        return [
            SendAudio(data[start : start + MAX_FRAME_BYTES])
            for start in range(0, len(data), MAX_FRAME_BYTES)
        ]

    def finished(self) -> list[Output]:
        """All audio was handed over."""
        return self._complete("SynthesisCompleted")
