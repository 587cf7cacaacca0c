"""Scripted sentences: what the fake recogniser says instead of ``heard N ms``.

A script is a UTF-8 file, either one JSON array of sentences or JSON lines, one sentence a line:

    {"text": "Turn it on, please.", "words": [{"text": "Turn", "start_ms": 0, "end_ms": 180}, …]}

Times count from the start of the sentence. The words must occur in the text in their order; what
the text has besides (punctuation, spaces) belongs to the word before it. The k-th sentence of
every stream is the k-th of the script, and after the last comes the first again. While the
sentence is open its text is cut after the last word whose end has been heard; at its end, whenever
that comes, the text and the words are complete.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from app.core.errors import EngineNotUsable
from app.core.speech import Word


class ScriptedWord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One word; times in ms from the start of its sentence."""

    text: str
    start_ms: int
    end_ms: int


class ScriptedSentence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sentence; see the module."""

    text: str
    words: tuple[ScriptedWord, ...] = ()

    def text_after(self, heard_ms: int) -> str:
        """The text up to the last word that ends within ``heard_ms`` of the sentence."""
        end = 0
        for word in self.words:
            if word.end_ms > heard_ms:
                break
            end = self.text.index(word.text, end) + len(word.text)
        return self.text[:end]

    def words_after(self, heard_ms: int | None, start_ms: int) -> tuple[Word, ...]:
        """The words that end within ``heard_ms`` (None: all), moved to a sentence at
        ``start_ms``."""
        return tuple(
            Word(word.text, start_ms + word.start_ms, start_ms + word.end_ms)
            for word in self.words
            if heard_ms is None or word.end_ms <= heard_ms
        )


def load_script(path: str) -> tuple[ScriptedSentence, ...]:
    """Read a script.

    Raises:
        EngineNotUsable: the file cannot be read, or is not a script; the text says why.
    """
    try:
        data = Path(path).read_bytes().strip()
    except OSError as error:
        raise EngineNotUsable(f"FAKE_ASR_SCRIPT cannot be read: {error.strerror}") from error
    try:
        script = _decode(data)
    except msgspec.DecodeError as error:
        raise EngineNotUsable(f"FAKE_ASR_SCRIPT is not a script: {error}") from error
    if not script:
        raise EngineNotUsable("FAKE_ASR_SCRIPT has no sentence")
    for number, sentence in enumerate(script, 1):
        _check(number, sentence)
    return tuple(script)


def _decode(data: bytes) -> list[ScriptedSentence]:
    if data.startswith(b"["):
        return msgspec.json.decode(data, type=list[ScriptedSentence])
    return msgspec.json.Decoder(ScriptedSentence).decode_lines(data)


def _check(number: int, sentence: ScriptedSentence) -> None:
    place = time = 0
    for word in sentence.words:
        found = sentence.text.find(word.text, place)
        if found < 0:
            raise EngineNotUsable(
                f"FAKE_ASR_SCRIPT, sentence {number}: word {word.text!r} is not in the rest of "
                "the text"
            )
        if not time <= word.start_ms <= word.end_ms:
            raise EngineNotUsable(
                f"FAKE_ASR_SCRIPT, sentence {number}: the times of word {word.text!r} go backwards"
            )
        place, time = found + len(word.text), word.end_ms
