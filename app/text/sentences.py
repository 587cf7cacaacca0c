"""Text into sentences, also while it is still arriving.

A sentence is what an engine speaks in one go, so a border in the wrong place is heard as a pause,
and a border that comes late as a delay. Chinese and English rules work side by side, because one
text often has both.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

DEFAULT_MAX_CHARS: Final = 100
"""About 20 s of Chinese. Longer sentences are cut, so that no engine works on one for long."""
MIN_MAX_CHARS: Final = 8

_LOOKAHEAD: Final = 12
"""Characters behind the greatest length that a decision may still look at."""

_CANDIDATE: Final = re.compile(r"[\r\n\u2028\u2029]|[。！？；…｡．!?;.]+")
"""A line break, or a run of terminators: ``……`` and ``?!`` are one."""
_ALWAYS: Final = frozenset("。！？；…｡")
_CLOSERS: Final = frozenset("”’」』）)】》〉〕］]}｝'\"")
"""These stay with the sentence that they follow."""

_NEVER_LAST: Final = re.compile(
    r"(?i:[dm]r|mrs|m[sx]|prof|rev|hon|gen|col|capt|lt|sgt|gov|sen|rep|st|mt|ft|vs|cf|approx"
    r"|dept|est|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)"
    r"|[A-HJ-Z]"
)
"""Abbreviations and initials that do not end a sentence: "Dr. Smith", "J. Smith"."""
_MAYBE_LAST: Final = re.compile(
    r"(?i:etc|inc|ltd|co|corp|jr|sr|bros|al|ave|blvd|rd|(?:[a-z]\.)+[a-z])"
)
"""These, and ones like "p.m." and "U.S.", end a sentence only before a capital."""
_BEFORE_NUMBER: Final = re.compile(r"(?i:nos?|vol|figs?|pp?|art|sec|ch|eq|tel|ext|ver)")
"""These are abbreviations only before a digit: "No. 5", but "I said no. Then…"."""
_LIST_NUMBER: Final = re.compile(r"\d{1,3}")
_WORD_BEFORE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.]*$")
_TOKEN_BEFORE: Final = re.compile(r"[!-~]*$")

_SOFT_BREAK: Final = re.compile(r"[，、：—）】》”]+|[,:)](?=\s)|[,:)](?=[^\x00-\x7f])")
_WORD_CHARS: Final = re.compile(r"[0-9A-Za-z'.,:/@_%+\-]")


class SentenceSplitter:
    """Cuts a text that arrives in pieces; the sentences are the same for any pieces.

    A sentence ends at ``。！？；…``, at ``! ? ; .`` where that is not inside a number, an address,
    an abbreviation or an initial, and at a line break. Closing quotes and brackets belong to the
    sentence before them. One that is longer than ``max_chars`` is cut behind a comma, else between
    words, else anywhere. Whitespace around sentences is removed; what has neither letter nor digit
    cannot be spoken and is dropped; nothing else is lost or changed.

    A sentence comes out once the next character shows that its terminator is complete, at
    ``flush``, or at ``settle``.

    Raises:
        ValueError: ``max_chars`` is less than 8.
    """

    def __init__(self, max_chars: int = DEFAULT_MAX_CHARS) -> None:
        if max_chars < MIN_MAX_CHARS:
            raise ValueError(f"max_chars must be at least {MIN_MAX_CHARS}")
        self._max_chars = max_chars
        self._buffer = ""

    def feed(self, text: str) -> list[str]:
        """Take in more text, and return the sentences that are complete."""
        self._buffer += text
        return self._take()

    def flush(self) -> list[str]:
        """No more text for now: the rest. More may be fed afterwards, as a new text."""
        return self._take(final=True)

    @property
    def may_settle(self) -> bool:
        """Whether the text stands at a terminator that only waits for the next character to show
        that it is complete, and that nothing but a closing quote could still follow: ``。`` is
        one, ``.`` is not, since 3. may become 3.14."""
        return self._end(self._buffer[: self._max_chars + _LOOKAHEAD], settled=True) is not None

    def settle(self) -> list[str]:
        """Nothing came for a while: the sentence at whose end the text stands (``may_settle``), as
        far as there is one. What comes later belongs to the next one, even if it is a closing
        quote."""
        return self._take(settled=True)

    def _take(self, *, final: bool = False, settled: bool = False) -> list[str]:
        sentences: list[str] = []
        start = 0
        while True:
            start = _skip_space(self._buffer, start)
            window = self._buffer[start : start + self._max_chars + _LOOKAHEAD]
            end = self._end(window, final=final, settled=settled)
            if end is None:
                break
            sentences.append(window[:end])
            start += end
        self._buffer = self._buffer[start:]
        if final:
            sentences.append(self._buffer)
            self._buffer = ""
        return [sentence.strip() for sentence in sentences if _speakable(sentence)]

    def _end(self, window: str, *, final: bool = False, settled: bool = False) -> int | None:
        # A full window is judged as it is, so that the result does not depend on what else has
        # arrived already.
        final = final or len(window) == self._max_chars + _LOOKAHEAD
        end = _sentence_end(window, self._max_chars, final, settled)
        if end is None and final and len(window) > self._max_chars:
            return _soft_end(window, self._max_chars)
        return end


def split_sentences(text: str, max_chars: int = DEFAULT_MAX_CHARS) -> list[str]:
    """The sentences of a whole text; see :class:`SentenceSplitter`."""
    splitter = SentenceSplitter(max_chars)
    return splitter.feed(text) + splitter.flush()


def _skip_space(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start


def _speakable(text: str) -> bool:
    return any(char.isalnum() for char in text)


def _sentence_end(window: str, max_chars: int, final: bool, settled: bool) -> int | None:
    """The end of the first sentence in ``window``; None if there is none up to ``max_chars``, or
    if more text is needed to tell (never so when ``final``; when ``settled``, not for terminators
    that end a sentence whatever follows)."""
    for match in _CANDIDATE.finditer(window):
        if match[0].isspace():
            return match.start() if match.start() <= max_chars else None
        end = _skip_closers(window, match.end())
        complete = final or (settled and not _ALWAYS.isdisjoint(match[0]))
        if end > max_chars or (end == len(window) and not complete):
            return None
        ends = _is_end(window, match, end, final)
        if ends is None:
            return None
        if ends:
            return end
    return None


def _skip_closers(window: str, end: int) -> int:
    while end < len(window) and window[end] in _CLOSERS:
        # A straight quote closes only what one has opened.
        if window[end] == '"' and window.count('"', 0, end) % 2 == 0:
            break
        end += 1
    return end


def _is_end(window: str, match: re.Match[str], end: int, final: bool) -> bool | None:
    """Whether the run of terminators ends a sentence; None if more text is needed to tell."""
    run = match[0]
    if not _ALWAYS.isdisjoint(run):
        return True
    following = window[end : end + 1]
    border = not following or following.isspace() or _is_wide(following)
    if "!" in run or "?" in run:
        return border or (following.isalpha() and not _in_address(window, match.start()))
    if not border:
        return False
    if ";" in run:
        return True
    return _is_full_stop(window, match.start(), end, final)


def _in_address(window: str, position: int) -> bool:
    token = _TOKEN_BEFORE.search(window, 0, position)
    return token is not None and any(mark in token[0] for mark in ("://", "www.", "@"))


def _is_full_stop(window: str, position: int, end: int, final: bool) -> bool | None:
    """Whether ``.`` or ``...`` with a border behind it ends a sentence: not in "Dr. Smith"."""
    found = _WORD_BEFORE.search(window, 0, position)
    word = found[0] if found else ""
    after = _skip_space(window, end)
    if after == len(window) and not final:
        return None
    following = window[after : after + 1]
    if window.startswith("..", position):
        return not following.islower()
    if word.isdecimal():
        # "1. Apples" and "2.苹果" are lists; "in 2026. Then" is an end.
        listed = position == len(word) and _LIST_NUMBER.fullmatch(word) is not None
        return not (listed or (after == end and _is_wide(following)))
    if _NEVER_LAST.fullmatch(word):
        return False
    if _BEFORE_NUMBER.fullmatch(word):
        return not following.isdecimal()
    if _MAYBE_LAST.fullmatch(word):
        return not following or following.isupper() or _is_wide(following)
    return True


def _soft_end(window: str, max_chars: int) -> int:
    """Where to cut a sentence that is too long: the last good place, if not too early."""
    earliest = max_chars // 3
    breaks = [m.end() for m in _SOFT_BREAK.finditer(window) if earliest <= m.end() <= max_chars]
    if breaks:
        return breaks[-1]
    for position in range(max_chars, earliest, -1):
        if window[position].isspace():
            return position
    for position in range(max_chars, earliest, -1):
        inside_word = _WORD_CHARS.match(window[position - 1]) and _WORD_CHARS.match(
            window[position]
        )
        if not inside_word and not _joins_previous(window[position]):
            return position
    return max_chars


def _joins_previous(char: str) -> bool:
    """Accents, variation selectors and joiners: they are one character with the one before."""
    return unicodedata.category(char) in ("Mn", "Mc", "Me", "Cf")


def _is_wide(char: str) -> bool:
    """Ideographs, kana, hangul and full-width forms, which need no space after a full stop."""
    return char != "" and unicodedata.east_asian_width(char) in "WF"
