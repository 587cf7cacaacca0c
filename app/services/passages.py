"""What is to be spoken, a sentence at a time: from a whole text, from SSML, or from a text that
comes in pieces."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from app.core.speech import SynthesisRequest, Voice
from app.text import ssml
from app.text.sentences import SentenceSplitter

MAX_SENTENCE_CHARS: Final = 200

SETTLE_S: Final = 0.3
"""After this long without more text, a sentence whose terminator is there is spoken, although the
next character has not shown yet that nothing else belongs to it."""

_HELD_UP_S: Final = 0.05
"""A timer that is later than this: the process was held up, and so may text have been that has
come in the meantime."""

_STEP_CHARS: Final = 1_000
"""Of a long text that are split at once: less than a millisecond."""

_QUICKLY_PARSED_CHARS: Final = 2_000
"""SSML of this length is read in less than a millisecond; a longer one needs a thread."""

Resolve = Callable[[str], Voice]
"""The voice that a name means. Any thread. Raises UnknownVoice, or AccessDenied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A sentence, how to speak it, and the silence after it. Without a text it is the silence
    alone. ``text_index``: where it begins in the whole text; 0 for text in pieces."""

    text: str
    voice: Voice
    speed: float = 1.0
    pitch: float = 1.0
    volume: float = 1.0
    pause_ms: int = 0
    text_index: int = 0


class Script(Protocol):
    """The passages of one task, in order."""

    @property
    def characters(self) -> int:
        """Of the text that was taken in so far; of SSML, those that are spoken."""
        ...

    @property
    def began_at(self) -> float | None:
        """``time.monotonic`` of when the first passage could have been spoken; None before."""
        ...

    async def take(self) -> Passage | None:
        """The next passage; waits for it. None: there are no more.

        Raises:
            InvalidSsml, UnknownVoice, AccessDenied: see :func:`read_ssml`.
        """
        ...

    def close(self) -> None:
        """Nobody takes any more."""
        ...


class WholeScript:
    """All passages of a text that is there. ``characters`` are its own."""

    def __init__(self, passages: Iterator[Passage], characters: int, began_at: float) -> None:
        self._passages = passages
        self.characters = characters
        self.began_at: float | None = began_at

    async def take(self) -> Passage | None:
        """See :class:`Script`."""
        return next(self._passages, None)

    def close(self) -> None:
        """See :class:`Script`."""


class PieceScript:
    """The passages of a text that comes in pieces, cut anywhere: the same as those of the whole
    text, whatever the pieces, unless the client waits longer than ``settle_s`` inside a run of
    punctuation, or flushes.

    Where the text may be SSML, which cannot be cut anywhere, it is collected until ``flush`` or
    ``finish``; what ``speak`` says of the audio's format is ignored then, since the audio may have
    begun.
    """

    def __init__(
        self, request: SynthesisRequest, resolve: Resolve, settle_s: float = SETTLE_S
    ) -> None:
        self._request = request
        self._resolve = resolve
        self._voice = resolve(request.voice)
        self._settle_s = settle_s
        self._splitter = SentenceSplitter(MAX_SENTENCE_CHARS)
        self._collected: list[str] = []  # of what may be SSML
        self._ready: deque[str] = deque()  # sentences, or texts that may be SSML
        self._passages: Iterator[Passage] = iter(())  # of the SSML at hand
        self._came = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._finished = False
        self.characters = 0
        self.began_at: float | None = None

    def say(self, text: str) -> None:
        """More of the text."""
        if self._finished:
            return
        self._stop_timer()
        if self._request.ssml:
            self._collected.append(text)
            return
        self.characters += len(text)
        self._add(self._splitter.feed(text))
        if self._splitter.may_settle:
            self._start_timer()

    def flush(self) -> None:
        """Speak all that has come, even where no sentence has ended."""
        self._stop_timer()
        if self._request.ssml:
            text, self._collected = "".join(self._collected), []
            self._add([text] if text.strip() else [])
        else:
            self._add(self._splitter.flush())

    def finish(self) -> None:
        """There is no more text."""
        self.flush()
        self._finished = True
        self._came.set()

    async def take(self) -> Passage | None:
        """See :class:`Script`."""
        while True:
            passage = next(self._passages, None)
            if passage is not None:
                return passage
            if self._ready:
                self._passages = await self._passages_of(self._ready.popleft())
            elif self._finished:
                return None
            else:
                self._came.clear()
                await self._came.wait()

    def close(self) -> None:
        """See :class:`Script`."""
        self._finished = True
        self._stop_timer()

    async def _passages_of(self, text: str) -> Iterator[Passage]:
        if self._request.ssml and may_be_ssml(text, self._request):
            document = await read_ssml(text, self._request, self._resolve)
            self.characters += characters_of(document)
            return passages_of(document, self._resolve)
        if self._request.ssml:
            self.characters += len(text)
            return plain_passages(text, self._request, self._voice)
        return iter((_plain(text, self._request, self._voice, 0),))

    def _add(self, texts: list[str]) -> None:
        if texts:
            self.began_at = self.began_at or time.monotonic()
            self._ready += texts
            self._came.set()

    def _start_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._settle_s, self._settle, loop.time() + self._settle_s)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _settle(self, due: float) -> None:
        if asyncio.get_running_loop().time() > due + _HELD_UP_S:
            self._start_timer()
            return
        self._timer = None
        self._add(self._splitter.settle())


def may_be_ssml(text: str, request: SynthesisRequest) -> bool:
    """Whether the text is to be read as SSML: it begins like that, or is said to be, unless the
    request says that it is not."""
    if request.ssml:
        return "<" in text  # without it, plain text that nobody could take for SSML
    return request.ssml is None and ssml.is_ssml(text)


async def read_ssml(text: str, request: SynthesisRequest, resolve: Resolve) -> ssml.Document:
    """Read SSML; the request's manner is that of what the text says nothing about.

    Raises:
        InvalidSsml: it is none.
        UnknownVoice, AccessDenied: it names a voice that cannot be had.
    """
    base = ssml.Manner(request.voice, request.speed, request.pitch, request.volume)

    def language_of(voice: str) -> str:
        return resolve(voice).language

    if len(text) > _QUICKLY_PARSED_CHARS:
        document = await asyncio.to_thread(ssml.parse, text, base, language_of)
    else:
        document = ssml.parse(text, base, language_of)
    for voice in {span.manner.voice for span in document.spans}:
        resolve(voice)
    return document


def characters_of(document: ssml.Document) -> int:
    """How many characters SSML has spoken. Its line breaks are not among them: there is one where
    an element ends a sentence, and none from the client, whose white space is spaces."""
    text = document.text
    return len(text) - text.count("\n")


def speakable(text: str) -> bool:
    """Whether anything in ``text`` can be spoken: a letter or a digit."""
    return any(map(str.isalnum, text))


def plain_passages(text: str, request: SynthesisRequest, voice: Voice) -> Iterator[Passage]:
    """The passages of a whole text without SSML, which is split as they are asked for."""
    for sentence, index in _sentences(text):
        yield _plain(sentence, request, voice, index)


def passages_of(document: ssml.Document, resolve: Resolve) -> Iterator[Passage]:
    """The passages of SSML, whose voices there are. Line breaks count no more in their places than
    in :func:`characters_of`."""
    breaks = 0
    for span in document.spans:
        voice, manner = resolve(span.manner.voice), span.manner
        sentences = [*_sentences(span.text)]
        for number, (sentence, index) in enumerate(sentences or [("", 0)], 1):
            pause_ms = span.pause_ms if number >= len(sentences) else 0
            if sentence or pause_ms:
                yield Passage(
                    text=sentence,
                    voice=voice,
                    speed=manner.speed,
                    pitch=manner.pitch,
                    volume=manner.volume,
                    pause_ms=pause_ms,
                    text_index=span.start + index - breaks - span.text.count("\n", 0, index),
                )
        breaks += span.text.count("\n")


def _plain(sentence: str, request: SynthesisRequest, voice: Voice, index: int) -> Passage:
    return Passage(
        text=sentence,
        voice=voice,
        speed=request.speed,
        pitch=request.pitch,
        volume=request.volume,
        text_index=index,
    )


def _sentences(text: str) -> Iterator[tuple[str, int]]:
    """The sentences of a text, and where in it they begin."""
    splitter = SentenceSplitter(MAX_SENTENCE_CHARS)
    position = 0
    for start in range(0, len(text) + 1, _STEP_CHARS):
        found = splitter.feed(text[start : start + _STEP_CHARS])
        if start + _STEP_CHARS > len(text):
            found += splitter.flush()
        for sentence in found:
            # What lies between sentences has neither letter nor digit, so this finds no other one.
            position = text.index(sentence, position)
            yield sentence, position
            position += len(sentence)
