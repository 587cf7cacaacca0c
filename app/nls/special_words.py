"""``special_word_filter``: words that a result must not show (nls-protocol.md 3.1)."""

from __future__ import annotations

from typing import Final

import msgspec

from app.core.errors import InvalidRequest
from app.core.speech import WordFilter

MAX_WORDS: Final = 32
MAX_WORD_CHARS: Final = 64
"""The cloud names no bound; this one keeps the search through each result short."""


class _List(msgspec.Struct):
    word_list: list[str] | None = None


class _Lists(msgspec.Struct):
    # ``system_reserved_filter`` is left out: this server has no list of its own.
    filter_with_empty: _List | None = None
    filter_with_signed: _List | None = None


def word_filter(given: object) -> WordFilter | None:
    """The filter from an object, or from one as a JSON string; None where it names no word.

    Raises:
        InvalidRequest: it is neither, or a list has more than 32 words or one of more than 64
            characters.
    """
    lists = _parse(given)
    found = WordFilter(
        removed=_words(lists.filter_with_empty), masked=_words(lists.filter_with_signed)
    )
    return found if found.removed or found.masked else None


def _parse(given: object) -> _Lists:
    try:
        if isinstance(given, str):
            return msgspec.json.decode(given, type=_Lists)
        return msgspec.convert(given, _Lists)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise InvalidRequest(
            "Invalid special_word_filter: expected an object with 'filter_with_empty' or "
            "'filter_with_signed', each with a 'word_list' of strings!"
        ) from None


def _words(given: _List | None) -> tuple[str, ...]:
    words = given.word_list if given and given.word_list else []
    # An empty word would be found everywhere.
    kept = tuple(dict.fromkeys(word.strip() for word in words if word.strip()))
    if len(kept) > MAX_WORDS or any(len(word) > MAX_WORD_CHARS for word in kept):
        raise InvalidRequest(
            f"Invalid special_word_filter: at most {MAX_WORDS} words of {MAX_WORD_CHARS} "
            "characters in each list!"
        )
    return kept
