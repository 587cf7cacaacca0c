"""SpeechSynthesizer: one text in, one audio stream out (nls-protocol.md 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from app.core.speech import SpeechBegan, SpeechEnded, SpeechEvent
from app.nls.outputs import OpenSynthesis, Output
from app.nls.parameters import synthesis_request
from app.nls.subtitles import meta_info
from app.nls.synthesis import SynthesisSession


class Synthesizer(SynthesisSession):
    """One SpeechSynthesizer task: audio frames, MetaInfo between them where subtitles are wanted,
    then SynthesisCompleted.

    SynthesisStarted is not sent: no SDK waits for it here, and Python logs an error on it.
    """

    NAMESPACE: ClassVar[str] = "SpeechSynthesizer"

    def _open(self, payload: Mapping[str, object]) -> list[Output]:
        request = synthesis_request(
            payload,
            task_id=self.task_id,
            appkey=self.appkey,
            formats=self._limits.synthesis_formats,
            max_text_chars=self._max_text_chars,
            project=self.project,
        )
        self._subtitles = request.subtitles
        return [OpenSynthesis(request)]

    @property
    def _max_text_chars(self) -> int:
        return self._limits.max_text_chars

    def speech(self, event: SpeechEvent) -> list[Output]:
        """The subtitles of a sentence, behind its audio."""
        match event:
            case SpeechBegan():
                self._sentence = event
                return []
            case SpeechEnded():
                began, self._sentence = self._sentence, None
                if not self._subtitles or began is None:
                    return []
                return [
                    output
                    for subtitles in meta_info(began, event)
                    for output in self._send("MetaInfo", {"subtitles": subtitles})
                ]

    def finished(self) -> list[Output]:
        """All audio was handed over."""
        return self._complete("SynthesisCompleted")
