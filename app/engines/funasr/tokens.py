"""From token ids to text: which tokens make a word, where a space belongs, what is no text at all.

Two kinds of vocabulary: a list in which ``@@`` at the end of a token says that the word goes on
(Paraformer), and SentencePiece, in which ``▁`` begins a word (SenseVoice). The rules are those of
funasr 1.4.16 (``postprocess_utils.py``), with two differences: a word that is cut off in its
middle is kept, and there is a space between a Latin word and a figure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.core.errors import EngineNotUsable
from app.engines.funasr.checkpoint import read_tokens, unusable
from app.engines.reading import check_file

SENTENCEPIECE_FILE: Final = "chn_jpn_yue_eng_ko_spectok.bpe.model"
GOES_ON: Final = "@@"
"""After a token whose word goes on with the next one."""
LANGUAGES: Final = ("zh", "en")
"""Of the models with a token list, all of which are Paraformers."""
NO_TEXT: Final = frozenset({0, 1, 2})
"""Ids of a token list's blank, begin and end of a sentence."""
_NEW_WORD: Final = "▁"
SPECIAL: Final = frozenset({"<blank>", "<s>", "</s>", "<unk>", "<OOV>", "<pad>"})
"""Tokens that are no text."""
_TAG: Final = re.compile(r"<\|(.+)\|>")
_BYTE: Final = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True, slots=True)
class SpelledWord:
    """A word, and the first and the last of the tokens (places in the given ids) that make it."""

    text: str
    first: int
    last: int


class TokenList:
    """A vocabulary of Chinese characters and Latin syllables, of which ``@@`` marks the unfinished
    ones. ``names``: the token of each id."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)

    def __len__(self) -> int:
        return len(self._names)

    def words(self, ids: Sequence[int]) -> list[SpelledWord]:
        """The words; letters that are spelt one by one are one word in capitals (``NBA``)."""
        found: list[SpelledWord] = []
        goes_on = False
        for place, token in enumerate(ids):
            name = self._names[token]
            if name in SPECIAL:
                continue
            part = name.removesuffix(GOES_ON)
            if goes_on and is_latin(part):
                found[-1] = SpelledWord(found[-1].text + part, found[-1].first, place)
            elif part:
                found.append(SpelledWord(part, place, place))
            goes_on = name.endswith(GOES_ON) and bool(part)
        return _abbreviated(found)

    def text(self, ids: Sequence[int]) -> str:
        """The words, with spaces as in :func:`spaced`."""
        return spaced(word.text for word in self.words(ids))


class PieceList:
    """A vocabulary of SentencePiece's pieces. ``names``: the piece of each id."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._tags = {
            token: match[1]
            for token, name in enumerate(self._names)
            if (match := _TAG.fullmatch(name)) is not None
        }

    def __len__(self) -> int:
        return len(self._names)

    def tag(self, token: int) -> str | None:
        """``HAPPY`` for the token ``<|HAPPY|>``; None for one that is text."""
        return self._tags.get(token)

    def words(self, ids: Sequence[int]) -> list[SpelledWord]:
        """The words: Latin letters go together up to the next ``▁``, other characters stand
        alone; those of pieces that are bytes are put together."""
        found: list[SpelledWord] = []
        for first, last in self._runs(ids):
            text = self._decoded(ids[first : last + 1])
            begins = self._names[ids[first]].startswith(_NEW_WORD)
            if not text or all(map(_is_punctuation, text)):
                continue
            if found and not begins and self._continues(found[-1], first, text):
                found[-1] = SpelledWord(found[-1].text + text, found[-1].first, last)
            else:
                found.append(SpelledWord(text, first, last))
        return found

    def text(self, ids: Sequence[int]) -> str:
        """The pieces put together, without tags."""
        return self._decoded(ids)

    @staticmethod
    def _continues(word: SpelledWord, first: int, text: str) -> bool:
        return word.last == first - 1 and is_latin(word.text) and is_latin(text)

    def _runs(self, ids: Sequence[int]) -> Iterable[tuple[int, int]]:
        """First and last place of what is to be looked at as one: a piece, or bytes in a row."""
        place = 0
        while place < len(ids):
            last = place
            if _BYTE.fullmatch(self._names[ids[place]]):
                while last + 1 < len(ids) and _BYTE.fullmatch(self._names[ids[last + 1]]):
                    last += 1
            yield place, last
            place = last + 1

    def _decoded(self, ids: Sequence[int]) -> str:
        raw = bytearray()
        for token in ids:
            name = self._names[token]
            if name in SPECIAL or token in self._tags:
                continue
            raw += bytes([int(name[3:5], 16)]) if _BYTE.fullmatch(name) else name.encode()
        return raw.decode(errors="replace").replace(_NEW_WORD, " ").strip()


def read_pieces(folder: Path) -> PieceList:
    """The vocabulary of a SenseVoice folder: the SentencePiece model, or ``tokens.json``.

    Raises:
        EngineNotUsable: neither is there, or it cannot be read.
    """
    model = folder / SENTENCEPIECE_FILE
    if not model.exists():
        return PieceList(read_tokens(folder))
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise EngineNotUsable(f"the FunASR engine needs sentencepiece: {error}") from error
    processor: Any = SentencePieceProcessor()
    try:
        check_file(model)
        processor.load(str(model))
    except (OSError, ValueError, RuntimeError) as error:
        raise unusable(model, error) from None
    return PieceList([processor.id_to_piece(token) for token in range(len(processor))])


def spaced(words: Iterable[str]) -> str:
    """The words in a row, with a space between two of them unless one is in a script without
    spaces, or both are figures."""
    text = ""
    for word in words:
        if text and _needs_space(text[-1], word[0]):
            text += " "
        text += word
    return text


def _needs_space(left: str, right: str) -> bool:
    if left.isdigit() and right.isdigit():
        return False
    return not (_is_wide(left) or _is_wide(right))


def _is_wide(char: str) -> bool:
    return unicodedata.east_asian_width(char) in "WF"


def is_latin(text: str) -> bool:
    """Only letters of an alphabet, and apostrophes; at least one."""
    return bool(text) and all(
        (char.isalpha() and not _is_wide(char)) or char == "'" for char in text
    )


def _is_punctuation(char: str) -> bool:
    return unicodedata.category(char).startswith("P")


def _abbreviated(words: list[SpelledWord]) -> list[SpelledWord]:
    """Two or more letters in a row become one word."""
    found: list[SpelledWord] = []
    run: list[SpelledWord] = []
    for word in words:
        if _is_letter(word.text):
            run.append(word)
            continue
        found += [*_run_together(run), word]
        run = []
    return [*found, *_run_together(run)]


def _run_together(letters: list[SpelledWord]) -> list[SpelledWord]:
    if len(letters) < 2:
        return letters
    spelled = "".join(letter.text for letter in letters).upper()
    return [SpelledWord(spelled, letters[0].first, letters[-1].last)]


def _is_letter(text: str) -> bool:
    return len(text) == 1 and text.isascii() and text.isalpha()
