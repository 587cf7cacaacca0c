"""A recognised sentence in smaller parts, and the marks between its words.

A part begins where a word begins, and has the times of its words: what an engine gives no word
times for stays whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from app.core.speech import SentenceEnded, Word

_CLOSING: Final = frozenset("。，、；：？！…—～·,.;:?!”’\"'》〉」』】〕）)]}")
_OPENING: Final = frozenset("“‘《〈「『【〔（([{")

_LOOK_AHEAD: Final = 16
"""Characters in which a word is looked for. Figures are not written as they are spoken, so a word
may be missing; a later one of the same spelling must not be taken for it."""


class CaptionWord(msgspec.Struct, frozen=True):
    """A word, and the marks that follow it in the text."""

    word: Word
    marks: str


class Caption(msgspec.Struct, frozen=True):
    """A part of a sentence; times in ms."""

    text: str
    start_ms: int
    end_ms: int
    words: tuple[CaptionWord, ...] = ()


def captions(
    sentence: SentenceEnded, *, marks: str = "", max_chars: int | None = None
) -> list[Caption]:
    """The sentence, cut behind each of ``marks``, and where a part has more than ``max_chars``
    characters: behind its last mark that keeps to that, else its last word. A single word may be
    longer."""
    words = [Word(w.text.strip(), w.start_ms, w.end_ms) for w in sentence.words if w.text.strip()]
    text = sentence.text.strip()
    aligned = _Aligned(text, words)
    return [
        Caption(
            text=text[begin.place : end.place].strip(),
            start_ms=words[begin.word].start_ms if begin.word else sentence.start_ms,
            end_ms=words[end.word - 1].end_ms if end.place < len(text) else sentence.end_ms,
            words=tuple(
                CaptionWord(words[index], aligned.marks[index])
                for index in range(begin.word, end.word)
            ),
        )
        for begin, end in aligned.parts(marks, max_chars)
    ]


class _Border(msgspec.Struct, frozen=True):
    """Where a text may be cut: before its ``word``-th word, at ``place``. ``gap``: what stands
    between that word and the one before."""

    word: int
    place: int
    gap: str = ""


class _Aligned:
    """A text and the words in it."""

    def __init__(self, text: str, words: Sequence[Word]) -> None:
        self._text = text
        self._count = len(words)
        places = _places(text, words)
        self.marks = _marks(text, words, places)
        self._borders = list(_borders(text, words, places))

    def parts(self, marks: str, max_chars: int | None) -> Iterator[tuple[_Border, _Border]]:
        """The borders of each part."""
        begin = _Border(0, 0)
        forced = [border for border in self._borders if any(mark in marks for mark in border.gap)]
        for end in [*forced, _Border(self._count, len(self._text))]:
            while max_chars is not None and (cut := self._within(begin, end, max_chars)):
                yield begin, cut
                begin = cut
            yield begin, end
            begin = end

    def _within(self, begin: _Border, end: _Border, max_chars: int) -> _Border | None:
        """Where to cut; None: it is short enough, or cannot be cut."""
        if self._length(begin, end) <= max_chars:
            return None
        inside = [border for border in self._borders if begin.place < border.place < end.place]
        fitting = [border for border in inside if self._length(begin, border) <= max_chars]
        marked = [border for border in fitting if border.gap.strip()]
        choice = marked or fitting or inside[:1]
        return choice[-1] if choice else None

    def _length(self, begin: _Border, end: _Border) -> int:
        return len(self._text[begin.place : end.place].strip())


def _places(text: str, words: Sequence[Word]) -> list[int | None]:
    """Where each word begins; None for one that is not in the text as it was spoken."""
    lowered = text.lower()
    if len(lowered) != len(text):
        lowered = text  # a few capitals become two characters
    places: list[int | None] = []
    position = 0
    for word in words:
        found = lowered.find(word.text.lower(), position, position + len(word.text) + _LOOK_AHEAD)
        places.append(None if found < 0 else found)
        if found >= 0:
            position = found + len(word.text)
    return places


def _marks(text: str, words: Sequence[Word], places: Sequence[int | None]) -> list[str]:
    """What follows each word. Of the words that are not in the text, the last before one that is
    gets what stands before that one."""
    marks = [""] * len(words)
    position, lead = 0, None  # the end of the last word that was found, and that word
    for index, place in [*enumerate(places), (len(words), len(text))]:
        if place is None:
            continue
        gap = text[position:place]
        closing = _leading_marks(gap)
        if lead is not None:
            marks[lead] = closing
        if lead != index - 1 and index and closing != gap.strip():
            marks[index - 1] = _trailing_marks(gap)
        if index < len(words):
            position, lead = place + len(words[index].text), index
    return marks


def _borders(text: str, words: Sequence[Word], places: Sequence[int | None]) -> Iterator[_Border]:
    """Between two words that are both in the text."""
    for index in range(1, len(words)):
        before, place = places[index - 1], places[index]
        if before is None or place is None:
            continue
        end = before + len(words[index - 1].text)
        while place > end and text[place - 1] in _OPENING:
            place -= 1
        yield _Border(index, place, text[end:place])


def _leading_marks(gap: str) -> str:
    gap = gap.strip()
    count = next((at for at, char in enumerate(gap) if char not in _CLOSING), len(gap))
    return gap[:count]


def _trailing_marks(gap: str) -> str:
    gap = gap.rstrip("".join(_OPENING) + " ")
    return gap[len(gap.rstrip("".join(_CLOSING))) :]
