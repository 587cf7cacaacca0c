"""Punctuation by a ct-transformer.

The runtime takes the spaces out of a text, and what it does not know: so only its marks are taken,
each to its place among the characters of the text that was given.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, Final

import sherpa_onnx

from app.engines.base import Progress
from app.engines.sherpa.kinds import FoundModel
from app.engines.sherpa.settings import SherpaOptions

_ASCII_MARKS: Final = {"，": ",", "。": ".", "？": "?"}
"""Behind a Latin letter or a digit."""
_MARKS: Final = frozenset("，。？、")


class CtPunctuator:
    """An :class:`app.engines.base.Punctuator`.

    ``final``: whether a text is a whole sentence; else the mark at its end is left out.
    """

    def __init__(self, runtime: Any, *, final: bool) -> None:
        self._runtime = runtime
        self._final = final

    def punctuate(self, texts: Sequence[str]) -> Sequence[str]:
        """Each text with punctuation, in order; empty ones stay empty, and those in other languages
        than Chinese and English as they are."""
        return [self._punctuated(text) for text in texts]

    def _punctuated(self, text: str) -> str:
        if not any(map(str.isalnum, text)) or not all(map(_is_known, text)):
            return text
        marks = aligned(text, self._runtime.add_punctuation(text))
        if marks is None:
            return text
        end = len(text.rstrip())
        written = ""
        for place, char in enumerate(text):
            written += char
            is_last = place + 1 >= end
            if place in marks and (self._final or not is_last):
                inside = not is_last and char.isascii() and text[place + 1].isascii()
                if not inside or text[place + 1].isspace():
                    written += _written(marks[place], char)
        return written


def aligned(text: str, marked: str) -> dict[int, str] | None:
    """The mark behind each place of ``text``, as ``marked`` has them: the same characters but for
    white space, and marks between them. None if it has others."""
    places = [place for place, char in enumerate(text) if not char.isspace()]
    marks: dict[int, str] = {}
    passed = 0
    for char in marked:
        if passed < len(places) and char == text[places[passed]]:
            passed += 1
        elif char in _MARKS and passed:
            marks.setdefault(places[passed - 1], char)
        elif not char.isspace():
            return None
    return marks if passed == len(places) else None


def _written(mark: str, before: str) -> str:
    """As it is written behind a character; nothing behind one that is a mark itself."""
    if unicodedata.category(before).startswith("P"):
        return ""
    return _ASCII_MARKS.get(mark, mark) if before.isascii() else mark


def _is_known(char: str) -> bool:
    """No letter, or a Latin one without an accent, or Chinese. No half of a character: the runtime
    takes no text with one, and its error would show the text."""
    if char.isascii() or not char.isalpha():
        return not "\ud800" <= char <= "\udfff"
    return unicodedata.name(char, "").startswith("CJK ")


def load_punctuators(
    model: FoundModel, options: SherpaOptions, progress: Progress
) -> tuple[CtPunctuator, CtPunctuator]:
    """Of one loaded model: the punctuator of final texts, and that of interim ones. Slow and
    blocking.

    Raises:
        RuntimeError: the runtime refuses the model.
    """
    progress(f"loading {model.folder.name}")
    config = sherpa_onnx.OfflinePunctuationModelConfig(
        ct_transformer=str(model.files["model"]), num_threads=options.threads
    )
    runtime = sherpa_onnx.OfflinePunctuation(sherpa_onnx.OfflinePunctuationConfig(model=config))
    return CtPunctuator(runtime, final=True), CtPunctuator(runtime, final=False)
