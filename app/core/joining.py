"""Joining the texts of several sentences into one."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def join_sentences(texts: Iterable[str]) -> str:
    """The texts in order: a space between two of them, but none next to a Chinese or Japanese
    character, whose scripts are written without (Korean is written with spaces). Empty texts leave
    no trace."""
    joined = ""
    for text in (text.strip() for text in texts):
        if joined and text and not (_is_wide(joined[-1]) or _is_wide(text[0])):
            joined += " "
        joined += text
    return joined


def _is_wide(char: str) -> bool:
    # East Asian wide and full-width forms: ideographs, kana and their punctuation; and hangul.
    return unicodedata.east_asian_width(char) in "WF" and not _is_hangul(char)


def _is_hangul(char: str) -> bool:
    return unicodedata.name(char, "").startswith("HANGUL")
