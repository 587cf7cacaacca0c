"""Words that a result must not show (``special_word_filter``, nls-protocol.md 3.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from app.core.speech import WordFilter
from app.text.leaving_out import Changes, Finder

_LETTER: Final = "[0-9A-Za-z]"


def finder(words: WordFilter) -> Finder:
    """What finds the words in a text: the longest one at each place, in capitals or not, and those
    in Latin letters only as whole words. A word that is in both lists is removed."""
    removed = _pattern(words.removed)
    masked = _pattern([word for word in words.masked if word not in words.removed])

    def find(text: str) -> Changes:
        return Changes(removed=_spans(removed, text), masked=_spans(masked, text))

    return find


def _pattern(words: Sequence[str]) -> re.Pattern[str] | None:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile("|".join(map(_whole, longest_first)), re.IGNORECASE) if words else None


def _whole(word: str) -> str:
    before = f"(?<!{_LETTER})" if re.match(_LETTER, word) else ""
    after = f"(?!{_LETTER})" if re.match(_LETTER, word[-1]) else ""
    return before + re.escape(word) + after


def _spans(pattern: re.Pattern[str] | None, text: str) -> tuple[tuple[int, int], ...]:
    return tuple(match.span() for match in pattern.finditer(text)) if pattern is not None else ()
