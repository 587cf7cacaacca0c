"""From the runtime's tokens to words with their times.

In sherpa-onnx's results "▁" begins a Latin word and "@@" says that one goes on; Chinese characters
stand alone. The text itself is the runtime's own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

from app.core.speech import Word

_NEW_WORD: Final = "▁"
_GOES_ON: Final = "@@"
_SPACES: Final = (_NEW_WORD, " ")
_LAST_TOKEN_MS: Final = 120
"""How long the last token is taken to be: there is no next one whose beginning would tell."""


def words_of(result: Any, text: str, heard_ms: int) -> tuple[Word, ...]:
    """:func:`words` of a result of the runtime, of which ``text`` is; none where a token is a part
    of a character."""
    try:
        tokens = result.tokens
    except UnicodeDecodeError:
        return ()
    return words(text, tokens, result.timestamps, heard_ms)


def words(
    text: str, tokens: Sequence[str], starts_s: Sequence[float], heard_ms: int
) -> tuple[Word, ...]:
    """The words of ``text``, within the ``heard_ms`` of audio; ``starts_s``: when each token
    begins (seconds). None where the tokens do not spell the text, as with bytes for tokens."""
    if not tokens or len(tokens) != len(starts_s):
        return ()
    inside = (min(max(round(start * 1000), 0), heard_ms) for start in starts_s)
    starts = list(accumulate(inside, max))  # never before the one before
    ends = [*starts[1:], min(starts[-1] + _LAST_TOKEN_MS, heard_ms)]
    found: list[Word] = []
    goes_on = pieces = False
    for token, start, end in zip(tokens, starts, ends, strict=True):
        begins = token.startswith(_SPACES)
        part = token.lstrip(_NEW_WORD + " ").removesuffix(_GOES_ON)
        continues = goes_on and not begins and _is_latin(part)
        if continues:
            found[-1] = Word(found[-1].text + part, found[-1].start_ms, end)
        elif _bare(part):
            found.append(Word(part, start, end))
        pieces = begins or (continues and pieces)
        goes_on = bool(found) and (token.endswith(_GOES_ON) or (pieces and _is_latin(part)))
    spelt = "".join(word.text for word in found)
    return tuple(found) if _bare(spelt) == _bare(text) else ()


def _is_latin(part: str) -> bool:
    """Letters of an alphabet, and apostrophes."""
    return bool(part) and all(
        c == "'" or (c.isalpha() and unicodedata.east_asian_width(c) not in "WF") for c in part
    )


def _bare(text: str) -> str:
    return "".join(c for c in text if c.isalnum())
