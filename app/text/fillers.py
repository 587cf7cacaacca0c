"""Disfluency: sounds and repetitions of spontaneous speech that are not meant to be read
(``disfluency``, nls-protocol.md 2.1).

Chinese and English, and only what is hardly ever meant: doubled verbs and adjectives (看看, 慢慢),
digits and "that that" stay, and so do particles at the end of a sentence (好啊).
"""

from __future__ import annotations

import re
from typing import Final

from app.text.leaving_out import Changes

_WORD: Final = "0-9A-Za-z\\u3400-\\u9fff"
"""Characters that words are made of, as far as it matters here."""

_ALWAYS: Final = "嗯+哼?|呃+(?!逆)"
_ALONE: Final = "[啊哦噢喔哎唉诶欸额唔]+"
"""Only between pauses: each of them is a part of words, too (金额, 啊 after a verb)."""
_ENGLISH: Final = "u+h+|u+m+|u+h+m+|e+r+m+|h+m+"

_FILLER: Final = re.compile(
    rf"{_ALWAYS}|(?<![{_WORD}])(?:{_ALONE})(?![{_WORD}])"
    rf"|(?<![0-9A-Za-z'-])(?:{_ENGLISH})(?![0-9A-Za-z'-])",
    re.IGNORECASE,
)

_SAID_AGAIN: Final = re.compile(
    r"(我们|你们|他们|她们|这个|那个|就是|然后|因为|所以|但是|如果|[我你您他她这那])(?:[\s，,、]*\1)+"
    r"|(?<![0-9A-Za-z'])(i|we|the|an?|and|to|of|my|but|so)(?:[\s,，]+\2)+(?![0-9A-Za-z'])",
    re.IGNORECASE,
)
"""Words that nobody doubles on purpose, said more than once. The last time counts."""

_LANGUAGES: Final = ("zh", "en", "yue", "cmn")


def fillers(text: str) -> Changes:
    """The fillers of a text, and all but the last of words said again and again."""
    sounds = [match.span() for match in _FILLER.finditer(text)]
    heard = list(text)
    for start, end in sounds:  # "我，嗯，我想" is a repetition, too
        heard[start:end] = " " * (end - start)
    again = [
        (match.start(), match.end() - len(match[1] or match[2]))
        for match in _SAID_AGAIN.finditer("".join(heard))
    ]
    return Changes(removed=tuple(sounds + again))


def has_fillers(language: str | None) -> bool:
    """Whether fillers of this language are known (BCP 47, None: not known): um is one in English,
    and a number in Portuguese."""
    return language is None or language.lower().split("-")[0] in _LANGUAGES
