"""The pronunciations that a voice's model comes with: sherpa-onnx 2.x has no others.

A lexicon has "word phone phone …" lines; Melo's has a tone for each phone behind them. The runtime
takes the words of all of them in lower case (2.0.1, seen with every kind).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from app.core.errors import EngineNotUsable
from app.engines.sherpa.folder import lines_of, unusable
from app.engines.sherpa.languages import HAN

Language = Literal["zh", "en"]

_AMERICAN: Final = "lexicon-us-en.txt"
_BRITISH: Final = "lexicon-gb-en.txt"
_LATIN: Final = re.compile(r"[a-z][a-z']*")
_ENGLISH_SHARE: Final = 50
"""A lexicon with one Latin word in so many is one of English, too: Chinese ones have a few."""


@dataclass(frozen=True, slots=True)
class Lexicon:
    """A model's lexicons as one. ``languages``: those that they have words of. ``latin``: their
    words in Latin letters, in lower case. ``characters``: what the other words are made of."""

    paths: tuple[Path, ...]
    languages: tuple[Language, ...]
    latin: frozenset[str] = field(repr=False)
    characters: frozenset[str] = field(repr=False)

    @property
    def option(self) -> str:
        """As the runtime takes them."""
        return ",".join(map(str, self.paths))


def read_lexicon(folder: Path, symbols: frozenset[str], *, with_tones: bool = False) -> Lexicon:
    """The lexicons of a folder, checked against the model's ``symbols``. Where American and British
    English are there, the American one is taken.

    Raises:
        EngineNotUsable: there is none, or it is not one of this model.
    """
    paths = [path for path in sorted(folder.glob("lexicon*.txt")) if path.is_file()]
    if any(path.name == _AMERICAN for path in paths):
        paths = [path for path in paths if path.name != _BRITISH]
    if not paths:
        raise EngineNotUsable(
            f"{folder} has no lexicon*.txt; models that need espeak-ng-data are not for this engine"
        )
    if len(paths) > 1 and "," in str(folder):
        # The runtime takes the paths with commas between them.
        raise EngineNotUsable(f"{folder}: a model of several lexicons needs a path without a comma")
    han = 0
    latin: set[str] = set()
    characters: set[str] = set()
    for path in paths:
        for word in _words(path, symbols, with_tones=with_tones):
            han += HAN.search(word) is not None
            if _LATIN.fullmatch(word):
                latin.add(word)
            else:
                characters.update(filter(str.isalnum, word))
    languages: list[Language] = ["zh"] if han else []
    if latin and len(latin) * _ENGLISH_SHARE >= han:
        languages.append("en")
    if not languages:
        raise unusable(paths[0], "it has neither Chinese nor English words")
    return Lexicon(tuple(paths), tuple(languages), frozenset(latin), frozenset(characters))


def _words(path: Path, symbols: frozenset[str], *, with_tones: bool) -> Iterator[str]:
    """The words of a file whose phones are the model's, in lower case."""
    found = False
    for number, line in enumerate(lines_of(path), 1):
        word, *phones = line.decode("utf-8", "replace").split() or [""]
        if with_tones:
            phones, tones = phones[: len(phones) // 2], phones[len(phones) // 2 :]
            # The runtime ends the process over such a line.
            if len(tones) != len(phones) or not all(map(_is_tone, tones)):
                raise unusable(path, f"line {number} is not a word, its phones and their tones")
        if phones and symbols.issuperset(phones):
            found = True
            yield word.lower()
    if not found:
        raise unusable(path, "none of its words has phones of tokens.txt")


def _is_tone(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 4
