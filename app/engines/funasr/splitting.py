"""Text into the tokens of the punctuation models.

After funasr 1.4.16, ``ct_transformer/utils.py``: characters of one byte go together up to the next
space, all others stand alone. Models that come with a list of words (``jieba_usr_dict``) have
whole Chinese words as tokens; FunASR cuts them with the package jieba and its dictionary, here the
model's own list decides: as few words as possible, or the most probable ones where the list has
frequencies.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from app.engines.funasr.checkpoint import read_text

WORDS_FILE: Final = "jieba_usr_dict"
_ENGLISH: Final = re.compile(r"[a-zA-Z']+")
_CUT: Final = re.compile(r"[\u4e00-\u9fd5a-zA-Z0-9+#&._%\-]+")
_ENTRY: Final = re.compile(r"(.+?)(?: ([0-9]+))?(?: [a-z]+)?")


def split_characters(text: str) -> list[str]:
    """``打开wifi了`` as 打, 开, wifi, 了."""
    found: list[str] = []
    for part in text.split():
        latin = ""
        for char in part:
            if char.isascii():
                latin += char
                continue
            found += [latin, char] if latin else [char]
            latin = ""
        if latin:
            found.append(latin)
    return found


class WordList:
    """Words with their frequencies, and the way of cutting text into them."""

    def __init__(self, frequencies: Iterable[tuple[str, int]]) -> None:
        known = dict(frequencies)
        total = math.log(max(sum(known.values()), 1) + 1)
        self._scores = {word: math.log(max(count, 1)) - total for word, count in known.items()}
        self._unknown = -total
        self._longest = max((len(word) for word in known), default=1)

    def split(self, text: str) -> list[str]:
        """As :func:`split_characters`, but with Chinese words in one piece."""
        found: list[str] = []
        run = ""
        for part in text.split():
            if _ENGLISH.fullmatch(part):
                found += [*self._cut(run), part]
                run = ""
            else:
                run += part
        return found + list(self._cut(run))

    def _cut(self, text: str) -> Iterator[str]:
        end = 0
        for match in _CUT.finditer(text):
            yield from text[end : match.start()]
            yield from _rejoined(self._best(match[0]))
            end = match.end()
        yield from text[end:]

    def _best(self, text: str) -> list[str]:
        """The most probable way through ``text``; of two equal ones that with the longer first
        word."""
        scores = [0.0] * (len(text) + 1)
        ends = [0] * len(text)
        for begin in range(len(text) - 1, -1, -1):
            scores[begin] = -math.inf
            for end in range(begin + 1, min(begin + self._longest, len(text)) + 1):
                own = self._scores.get(text[begin:end])
                if own is None:
                    if end > begin + 1:
                        continue
                    own = self._unknown
                if own + scores[end] >= scores[begin]:
                    scores[begin], ends[begin] = own + scores[end], end
        words: list[str] = []
        begin = 0
        while begin < len(text):
            words.append(text[begin : ends[begin]])
            begin = ends[begin]
        return words


def read_words(folder: Path) -> WordList | None:
    """The list of words of a model, None where it has none.

    Raises:
        EngineNotUsable: it cannot be read.
    """
    path = folder / WORDS_FILE
    if not path.exists():
        return None
    matches = (_ENTRY.fullmatch(line.strip()) for line in read_text(path).splitlines())
    return WordList((match[1], int(match[2] or 1)) for match in matches if match)


def _rejoined(words: Iterable[str]) -> Iterator[str]:
    """Letters and digits that were cut apart go together."""
    run = ""
    for word in words:
        if len(word) == 1 and word.isascii() and word.isalnum():
            run += word
            continue
        if run:
            yield run
        run = ""
        yield word
    if run:
        yield run
