"""FlowingSpeechSynthesizer: text in pieces, speech as soon as there is a sentence
(nls-protocol.md 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from app.core.errors import InvalidText
from app.core.speech import SpeechBegan, SpeechEnded, SpeechEvent
from app.nls.outputs import FinishText, FlushText, OpenTextStream, Output, Say
from app.nls.parameters import given, stream_request, text_piece
from app.nls.status import TASK_STATE_ERROR, ProtocolError
from app.nls.subtitles import of_sentence, within_sentence
from app.nls.synthesis import SynthesisSession
from app.nls.task import Phase


class FlowingSynthesizer(SynthesisSession):
    """One FlowingSpeechSynthesizer task: numbered sentences until Stop.

    Text may come before the service granted the task. A ``text`` in Start is C++'s way to speak one
    text in one go: the task then completes without Stop, unless more text comes.
    """

    NAMESPACE: ClassVar[str] = "FlowingSpeechSynthesizer"
    RUN: ClassVar[str] = "RunSynthesis"
    STOP: ClassVar[str] = "StopSynthesis"
    FLUSH: ClassVar[str] = "FlushText"
    DIRECTIVES: ClassVar[frozenset[str]] = frozenset({RUN, STOP, FLUSH})

    _ssml = False
    _index = 0
    _chars = 0
    """Of all text so far."""
    _one_shot = False
    """Whether all of the text came with Start, so far."""
    _finished_text = False
    """Whether the service knows that no text follows."""
    _unspoken = 0
    """Letters and digits of which no sentence has begun yet: what has none is not spoken."""

    def _open(self, payload: Mapping[str, object]) -> list[Output]:
        request = stream_request(
            payload,
            task_id=self.task_id,
            appkey=self.appkey,
            formats=self._limits.synthesis_formats,
            project=self.project,
        )
        self._subtitles = request.subtitles
        self._ssml = bool(request.ssml)
        outputs: list[Output] = [OpenTextStream(request)]
        if given(payload, "text"):
            outputs += self._one_go(payload)
        return outputs

    def _one_go(self, payload: Mapping[str, object]) -> list[Output]:
        self._one_shot = True
        outputs = self._say(payload)
        # Of markup nobody here can tell when all of it was heard.
        ends = self._ssml or not self._unspoken
        return outputs + (self._finish() if ends else [FlushText()])

    def opened(self) -> list[Output]:
        """Send SynthesisStarted, also to a client that has already said Stop."""
        super().opened()
        return self._reply("SynthesisStarted", {"session_id": self._new_id(), "index": 0})

    def _directive(self, name: str, payload: Mapping[str, object]) -> list[Output]:
        if self.phase is Phase.STOPPING:
            said = "stop directive" if name == self.STOP else f"directive '{name}'"
            raise ProtocolError(TASK_STATE_ERROR, f"Got {said} while task is stopping!")
        if name == self.RUN:
            return self._run(payload)
        if name == self.STOP:
            self.phase = Phase.STOPPING
        if self._finished_text:
            return []
        return self._finish() if name == self.STOP else [FlushText()]

    def _run(self, payload: Mapping[str, object]) -> list[Output]:
        """More text. C++ repeats the payload of Start around it, which means nothing here."""
        if self._finished_text:
            raise ProtocolError(TASK_STATE_ERROR, "Got more text after the text of the start!")
        self._one_shot = False
        return self._say(payload)

    def _say(self, payload: Mapping[str, object]) -> list[Output]:
        text = text_piece(payload, self._limits.max_piece_chars)
        self._chars += len(text)
        self._unspoken += _letters(text)
        limit = self._limits.max_long_text_chars
        if self._chars > limit:
            raise InvalidText(f"The text has more than {limit} characters: use several tasks!")
        return [Say(text)] if text else []

    def _finish(self) -> list[Output]:
        self._finished_text = True
        return [FinishText()]

    def speech(self, event: SpeechEvent) -> list[Output]:
        """Sentence events to their NLS counterparts."""
        match event:
            case SpeechBegan():
                return self._begin(event)
            case SpeechEnded():
                return self._end(event)

    def _begin(self, event: SpeechBegan) -> list[Output]:
        self._sentence = event
        self._index += 1
        self._unspoken -= _letters(event.text)
        return self._send("SentenceBegin", {"index": self._index})

    def _end(self, event: SpeechEnded) -> list[Output]:
        began, self._sentence = self._sentence, None
        if began is None:
            return []
        outputs: list[Output] = []
        subtitles: list[dict[str, object]] = []
        if self._subtitles:
            for part in within_sentence(event):
                outputs += self._send("SentenceSynthesis", {"subtitles": part})
            subtitles = of_sentence(began, event)
        outputs += self._send("SentenceEnd", {"subtitles": subtitles})
        if self._one_shot and self._unspoken <= 0 and not self._finished_text:
            outputs += self._finish()
        return outputs

    def finished(self) -> list[Output]:
        """All audio was handed over. What was said is measured as the account does; of markup that
        is not known here."""
        measure: dict[str, object] = {"measureType": "TextLengthHD", "measureLength": self._chars}
        return self._complete("SynthesisCompleted", None if self._ssml else measure)

    # The client's turn

    @property
    def waits_for_client(self) -> bool:
        """Not while a sentence is being spoken."""
        return self.phase is Phase.RUNNING and self._sentence is None and not self._finished_text

    def idle_deadline(self, touched_at: float) -> float | None:
        """10 s after the latest text, or audio, or ping; pings alone keep it up to 23 s after text
        or audio (nls-protocol.md 5.2)."""
        if not self.waits_for_client:
            return None
        since = max(touched_at, self.reported_at)
        return min(
            max(since, self.pinged_at) + self._limits.idle_timeout_s,
            since + self._limits.idle_with_pings_s,
        )


def _letters(text: str) -> int:
    return sum(map(str.isalnum, text))
