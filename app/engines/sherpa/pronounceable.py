"""A text as a lexicon can read it: words in Latin letters that it lacks are spelled.

The runtime drops a word that the lexicon lacks without a sound (sherpa-onnx 2.0.1). So one is cut
at its hyphens and where its capitals begin ("FunSpeech"), and what is still unknown is spelled,
letter by letter, like "API". Dropped are: Latin words of more than 20 letters that are not known,
or with letters that the lexicon has not by themselves; digits, which the server has written out
before; and characters of other scripts that the lexicon lacks.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from app.engines.sherpa.lexicon import Lexicon

_MOST_SPELLED: Final = 20
_UNSPEAKABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FULL_WIDTH: Final = {
    code + 0xFEE0: code for code in (*range(0x30, 0x3A), *range(0x41, 0x5B), *range(0x61, 0x7B))
}
"""Digits and letters, but not marks, which the runtime knows in full width."""
_LETTER: Final = r"[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]"
_DOTTED: Final = re.compile(r"(?<![A-Za-z.])(?:[A-Za-z]\.){2,}(?![A-Za-z])")
_WORD: Final = re.compile(rf"{_LETTER}+(?:['’-]{_LETTER}+)*")
_CAPITALS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_KNOWN: Final = re.compile(r"[a-z][a-z']*")
_BESIDE_DIGIT: Final = re.compile(r"(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")


class Reader:
    """Reads with one lexicon."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._words = lexicon.latin
        self._characters = lexicon.characters

    def readable(self, text: str) -> str:
        """The text in lower case, without control characters, and spelled where it must be."""
        plain = _UNSPEAKABLE.sub(" ", text).translate(_FULL_WIDTH)
        plain = _DOTTED.sub(_undotted, plain)
        return _WORD.sub(self._word, _BESIDE_DIGIT.sub(" ", plain))

    def knows(self, readable: str) -> bool:
        """Whether the lexicon has any of it. Of nothing but marks, some models make noises."""
        if any(char in self._characters for char in readable):
            return True
        return any(word in self._words for word in _KNOWN.findall(readable))

    def _word(self, match: re.Match[str]) -> str:
        word = _without_accents(match[0].replace("’", "'"))
        # Most kinds of the runtime do not find a word with a hyphen, even if it is in the lexicon.
        return " ".join(map(self._part, word.split("-")))

    def _part(self, part: str) -> str:
        if part.lower() in self._words:
            return part.lower()
        return " ".join(map(self._piece, _CAPITALS.findall(part))) or part

    def _piece(self, piece: str) -> str:
        lower = piece.lower()
        known = lower in self._words or not self._words.issuperset(lower)
        return lower if known or len(lower) > _MOST_SPELLED else " ".join(lower)


def _undotted(match: re.Match[str]) -> str:
    """U.S.A. in letters; the full stop stays where the text ends with it."""
    stop = "." if match.end() == len(match.string.rstrip()) else ""
    return match[0].replace(".", " ").rstrip() + stop


def _without_accents(word: str) -> str:
    if word.isascii():
        return word
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))
