"""SpeechTranscriber: real-time recognition of any length (nls-protocol.md 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import msgspec

from app.core.speech import (
    AudioProcessed,
    RecognitionEvent,
    RecognitionRequest,
    SentenceBegan,
    SentenceChanged,
    SentenceEnded,
    Word,
)
from app.nls.outputs import Configure, Output
from app.nls.parameters import integer, recognition_request, silence_ms
from app.nls.recognition import RecognitionSession
from app.nls.status import SUCCESS
from app.nls.tags import tags
from app.nls.task import Phase

_MAX_SESSION_ID_CHARS: Final = 128
# Java reads index and times as 32-bit integers (nls-protocol.md 3.3); this leaves 13 days of audio.
_MAX_OFFSET: Final = 1_000_000_000


class Transcriber(RecognitionSession):
    """One SpeechTranscriber task: numbered sentences until Stop."""

    NAMESPACE: ClassVar[str] = "SpeechTranscriber"
    START: ClassVar[str] = "StartTranscription"
    STOP: ClassVar[str] = "StopTranscription"
    STARTED: ClassVar[str] = "TranscriptionStarted"
    # Two names of one directive: Python, Go and C++ say the first, Node the second.
    DIRECTIVES: ClassVar[frozenset[str]] = frozenset(
        {STOP, "ControlTranscriber", "ControlTranscription"}
    )

    _session_id = ""
    _interim = False
    _words = False
    _time_offset_ms = 0
    _index = 0
    # Start of the open sentence, as sent; None between sentences.
    _begin_ms: int | None = None

    def _request(self, payload: Mapping[str, object]) -> RecognitionRequest:
        request = recognition_request(
            payload,
            task_id=self.task_id,
            appkey=self.appkey,
            formats=self._limits.recognition_formats,
            max_audio_ms=None,
            project=self.project,
        )
        request = msgspec.structs.replace(request, progress=False)
        self._interim = request.options.partials
        self._words = request.options.words
        # C++ goes on counting where it was when it reconnects by itself.
        self._time_offset_ms = _offset(payload, "tw_time_offset")
        self._index = _offset(payload, "tw_index_offset")
        given = payload.get("session_id")
        usable = isinstance(given, str) and 0 < len(given) <= _MAX_SESSION_ID_CHARS
        self._session_id = str(given) if usable else self._new_id()
        return request

    def _started_payload(self) -> dict[str, object]:
        return {"session_id": self._session_id}

    def _control(self, payload: Mapping[str, object]) -> list[Output]:
        """Never answered; only max_sentence_silence can change (nls-protocol.md 3.4)."""
        silence = silence_ms(payload, "max_sentence_silence")
        if silence is None or self.phase is Phase.STOPPING:
            return []
        return [Configure(silence)]

    def event(self, event: RecognitionEvent | AudioProcessed) -> list[Output]:
        """Sentence events to their NLS counterparts; progress has none."""
        match event:
            case SentenceBegan():
                return self._begin(event.start_ms)
            case SentenceChanged():
                return self._change(event)
            case SentenceEnded():
                # A sentence always begins, even for an engine that forgot to say so.
                began = self._begin(event.start_ms) if self._begin_ms is None else []
                return began + self._end(event)
            case AudioProcessed():
                return []

    def _completed(self) -> list[Output]:
        return self._complete("TranscriptionCompleted")

    def _begin(self, start_ms: int) -> list[Output]:
        self._index += 1
        self._begin_ms = self._shifted(start_ms)
        return self._send("SentenceBegin", {"index": self._index, "time": self._begin_ms})

    def _change(self, event: SentenceChanged) -> list[Output]:
        if not self._interim or self._begin_ms is None:
            return []
        payload: dict[str, object] = {
            "index": self._index,
            "time": max(self._shifted(event.end_ms), self._begin_ms),
            "result": event.text,
            **self._word_list(event.words),
            "status": 0,
        }
        return self._send("TranscriptionResultChanged", payload, interim=True)

    def _end(self, event: SentenceEnded) -> list[Output]:
        begin_ms, self._begin_ms = self._begin_ms or 0, None
        payload: dict[str, object] = {
            "index": self._index,
            "time": max(self._shifted(event.end_ms), begin_ms),
            "begin_time": begin_ms,
            "result": event.text,
        }
        if event.confidence is not None:
            payload["confidence"] = event.confidence
        payload |= self._word_list(event.words)
        payload |= tags(event)
        payload["status"] = SUCCESS.code
        return self._send("SentenceEnd", payload)

    def _word_list(self, words: Sequence[Word]) -> dict[str, object]:
        if not self._words:
            return {}
        return {
            "words": [
                {
                    "text": word.text,
                    "startTime": self._shifted(word.start_ms),
                    "endTime": self._shifted(word.end_ms),
                }
                for word in words
            ]
        }

    def _shifted(self, time_ms: int) -> int:
        return time_ms + self._time_offset_ms


def _offset(payload: Mapping[str, object], name: str) -> int:
    return min(max(integer(payload, name, 0), 0), _MAX_OFFSET)
