"""Leaving characters out of a recognised text, and masking some, so that it still reads well, and
the same in its words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from app.core.joining import join_sentences
from app.core.speech import Word

MASK: Final = "*"

Span = tuple[int, int]
"""Indexes into a text, the end exclusive."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to change in a text: spans to leave out, and spans to write as asterisks."""

    removed: tuple[Span, ...] = ()
    masked: tuple[Span, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.removed or self.masked)


Finder = Callable[[str], Changes]

_HOLE: Final = "\0"
"""Stands for one character that was left out; no recogniser writes it."""

_PAUSE: Final = "，,、；;：:"
_END: Final = "。！？!?…."
_GAP: Final = re.compile(rf"([{_PAUSE}{_END}]?)(\s*)\0[\0\s{_PAUSE}]*([{_END}]?)")
"""What was left out, with the pauses and spaces around it: the mark before, the space after that,
and the end of a sentence that follows."""


def changed(text: str, words: Sequence[Word], find: Finder) -> tuple[str, tuple[Word, ...]]:
    """The text and its words without what ``find`` finds in the text. A word that is left out
    wholly is dropped; the others keep their times. Words that cannot be found in the text (it has
    figures, they have numerals) are looked through by themselves."""
    found = find(text)
    places = _places(text, words) if words else []
    if places is None:
        joined = join_sentences(word.text for word in words)
        places, in_words = _places(joined, words) or [], find(joined)
    else:
        in_words = found
    if not found and not in_words:
        return text, tuple(words)
    kept = (
        Word(rest, word.start_ms, word.end_ms)
        for word, place in zip(words, places, strict=True)
        if (rest := _rest(word.text, place, in_words))
    )
    return _without(text, found), tuple(kept)


def _places(text: str, words: Sequence[Word]) -> list[Span] | None:
    """Where the words are, in their order; None if one of them is not there."""
    places: list[Span] = []
    position, lowered = 0, text.lower()
    if len(lowered) != len(text):  # a capital whose small letter is two characters
        lowered = text
    for word in (each.text.strip() for each in words):
        start = text.find(word, position)
        if start < 0:
            start = lowered.find(word.lower(), position)
        if start < 0:
            return None
        position = start + len(word)
        places.append((start, position))
    return places


def _rest(word: str, place: Span, changes: Changes) -> str:
    """What is left of the word at ``place``, which leaves out spaces around it."""
    spaces = len(word) - len(word.lstrip())
    rest = "".join(_marked(word, place[0] - spaces, changes)).replace(_HOLE, "")
    return rest if rest.strip() else ""


def _marked(text: str, offset: int, changes: Changes) -> list[str]:
    """The characters of a text that begins at ``offset`` of the one that ``changes`` speak of, with
    holes and asterisks."""
    characters = list(text)
    for spans, sign in ((changes.masked, MASK), (changes.removed, _HOLE)):
        for start, end in spans:
            for index in range(max(start - offset, 0), min(end - offset, len(characters))):
                characters[index] = sign
    return characters


def _without(text: str, changes: Changes) -> str:
    """The text with its changes, and without the spaces and punctuation that nothing is left
    around."""
    if not changes.removed:
        return "".join(_marked(text, 0, changes))
    rest = _GAP.sub(_closed, "".join(_marked(text, 0, changes))).strip()
    if not any(character.isalnum() or character == MASK for character in rest):
        return ""
    return rest[0].upper() + rest[1:] if text[:1].isupper() else rest


def _closed(gap: re.Match[str]) -> str:
    """What to write in place of a gap."""
    before, space, end = gap[1], gap[2], gap[3]
    inside = gap[0][len(before) + len(space) : len(gap[0]) - len(end)]
    has_space = bool(space) or any(character.isspace() for character in inside)
    blank = " " if has_space else ""
    if gap.start() == 0 and not before:
        return ""  # whatever follows is the beginning now
    if before and before in _END:
        return before + blank
    if end or gap.end() == len(gap.string):
        return end
    pause = before or next((each for each in inside if each in _PAUSE), "")
    return pause + blank
