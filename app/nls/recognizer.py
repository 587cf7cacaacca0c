"""SpeechRecognizer: one short utterance, one result (nls-protocol.md 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec

from app.core.joining import join_sentences
from app.core.speech import (
    AudioProcessed,
    RecognitionEvent,
    RecognitionRequest,
    SentenceBegan,
    SentenceChanged,
    SentenceEnded,
)
from app.nls.outputs import Abandon, Output
from app.nls.parameters import (
    DEFAULT_SILENCE_MS,
    WHOLE_UTTERANCE_MS,
    boolean,
    integer,
    recognition_request,
    silence_ms,
)
from app.nls.recognition import RecognitionSession
from app.nls.tags import tags

_MAX_START_SILENCE_MS: Final = 60_000


class Recognizer(RecognitionSession):
    """One SpeechRecognizer task. Exactly one RecognitionCompleted, with "" where nobody spoke.

    With ``enable_voice_detection`` it completes without Stop, at the end of the first sentence or
    when nobody begins to speak; what the service still has to say is then abandoned.
    """

    NAMESPACE: ClassVar[str] = "SpeechRecognizer"
    START: ClassVar[str] = "StartRecognition"
    STOP: ClassVar[str] = "StopRecognition"
    STARTED: ClassVar[str] = "RecognitionStarted"
    DIRECTIVES: ClassVar[frozenset[str]] = frozenset({STOP})

    _interim = False
    _voice_detection = False
    _max_start_silence_ms: int | None = None
    _began = False
    _processed_ms = 0
    _sentences: tuple[SentenceEnded, ...] = ()

    def _request(self, payload: Mapping[str, object]) -> RecognitionRequest:
        request = recognition_request(
            payload,
            task_id=self.task_id,
            appkey=self.appkey,
            formats=self._limits.recognition_formats,
            max_audio_ms=self._limits.max_recognizer_audio_ms,
            project=self.project,
        )
        self._interim = request.options.partials
        self._voice_detection = boolean(payload, "enable_voice_detection", False)
        silence = WHOLE_UTTERANCE_MS
        if self._voice_detection:
            silence = silence_ms(payload, "max_end_silence") or DEFAULT_SILENCE_MS
            # (0, 60000]; anything below is "no limit", which is also the default.
            start_silence = integer(payload, "max_start_silence", 0)
            if start_silence > 0:
                self._max_start_silence_ms = min(start_silence, _MAX_START_SILENCE_MS)
        options = msgspec.structs.replace(
            # There are no words in this namespace's events: spare the engine the work.
            request.options,
            max_sentence_silence_ms=silence,
            words=False,
        )
        return msgspec.structs.replace(request, options=options)

    def event(self, event: RecognitionEvent | AudioProcessed) -> list[Output]:
        """Collect finals, show partials, and complete early where voice detection says so."""
        match event:
            case AudioProcessed():
                self._advance(event.position_ms)
                return self._completed_early() if self._silent_too_long() else []
            case SentenceBegan():
                self._began = True
                return []
            case SentenceChanged():
                self._began = True
                self._advance(event.end_ms)
                return self._change(event.text) if self._interim else []
            case SentenceEnded():
                self._began = True
                self._advance(event.end_ms)
                self._sentences += (event,)
                if self._cut_short:
                    # There is no event for a part of the result but this one.
                    return self._change() if self._interim else []
                return self._completed_early() if self._voice_detection else []

    def _silent_too_long(self) -> bool:
        limit = self._max_start_silence_ms
        return limit is not None and not self._began and self._processed_ms >= limit

    def _advance(self, position_ms: int) -> None:
        self._processed_ms = max(self._processed_ms, position_ms)

    def _text(self, *more: str) -> str:
        return join_sentences([*(sentence.text for sentence in self._sentences), *more])

    def _change(self, *open_sentence: str) -> list[Output]:
        payload: dict[str, object] = {
            "result": self._text(*open_sentence),
            "duration": self._processed_ms,
        }
        return self._send("RecognitionResultChanged", payload, interim=True)

    def _completed_early(self) -> list[Output]:
        return [Abandon(), *self._completed()]

    def _completed(self) -> list[Output]:
        payload: dict[str, object] = {"result": self._text(), "duration": self._processed_ms}
        if len(self._sentences) == 1:
            # Of several sentences nobody can say what holds for all of them.
            (sentence,) = self._sentences
            if sentence.confidence is not None:
                payload["confidence"] = sentence.confidence
            payload |= tags(sentence)
        return self._complete("RecognitionCompleted", payload)
