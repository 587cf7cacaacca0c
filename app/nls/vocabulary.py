"""Hotword vocabularies as the cloud's interface writes them: ``WordWeights``, a JSON object from
words to weights (help.aliyun.com, document 98005)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from app.core.errors import InvalidRequest
from app.nls.status import quote

MAX_WORDS: Final = 1_000
MAX_WORD_CHARS: Final = 64
"""The cloud has 500 words of 15 Chinese characters, or 7 English words."""

MIN_WEIGHT: Final = -6
MAX_WEIGHT: Final = 5

MAX_NAME_CHARS: Final = 128
MAX_DESCRIPTION_CHARS: Final = 512


def word_weights(text: str) -> dict[str, int]:
    """The words and weights of a JSON object.

    Raises:
        InvalidRequest: not such an object; or as :func:`check_words`.
    """
    try:
        words = msgspec.json.decode(text, type=dict[str, int])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise InvalidRequest(
            "Invalid WordWeights: expected a JSON object from words to whole numbers!"
        ) from None
    check_words(words)
    return words


def check_words(words: Mapping[str, int]) -> None:
    """Whether a vocabulary may hold these words, with these weights.

    Raises:
        InvalidRequest: there are none or too many, one is blank, too long or not printable, or a
            weight is out of range.
    """
    if not 0 < len(words) <= MAX_WORDS:
        raise InvalidRequest(f"A vocabulary has 1 to {MAX_WORDS} words; this one has {len(words)}!")
    for word, weight in words.items():
        if not word.strip() or len(word) > MAX_WORD_CHARS or not word.isprintable():
            raise InvalidRequest(
                f"Invalid word {quote(word)}: expected 1 to {MAX_WORD_CHARS} printable characters!"
            )
        if not MIN_WEIGHT <= weight <= MAX_WEIGHT:
            raise InvalidRequest(
                f"Invalid weight {weight} of {quote(word)}: expected {MIN_WEIGHT} to {MAX_WEIGHT}!"
            )
