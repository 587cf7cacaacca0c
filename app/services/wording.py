"""How recognised sentences are worded for the client: without fillers, and without words that it
does not want to see. Interim and final results alike, so that a text does not change at its end for
this reason."""

from __future__ import annotations

import msgspec

from app.core.speech import (
    RecognitionEvent,
    RecognitionRequest,
    SentenceBegan,
    SentenceEnded,
)
from app.text import word_filter
from app.text.fillers import fillers, has_fillers
from app.text.leaving_out import Finder, changed


class Wording:
    """What a request asks for."""

    def __init__(self, request: RecognitionRequest) -> None:
        self._language = request.options.language
        self._disfluency = request.disfluency
        self._filter = (
            None if request.word_filter is None else word_filter.finder(request.word_filter)
        )

    def worded(self, event: RecognitionEvent) -> RecognitionEvent:
        """The event as the client gets it. A sentence of which nothing is left has an empty
        text."""
        if isinstance(event, SentenceBegan) or not event.text:
            return event
        text, words = event.text, event.words
        for find in self._finders(event):
            text, words = changed(text, words, find)
        if text == event.text and words == event.words:
            return event
        return msgspec.structs.replace(event, text=text, words=words)

    def _finders(self, event: RecognitionEvent) -> list[Finder]:
        heard = event.language if isinstance(event, SentenceEnded) else None
        finders: list[Finder] = []
        if self._disfluency and has_fillers(heard or self._language):
            finders.append(fillers)
        if self._filter is not None:
            finders.append(self._filter)
        return finders


def wording(request: RecognitionRequest) -> Wording | None:
    """None where nothing is to be changed."""
    return Wording(request) if request.disfluency or request.word_filter else None
