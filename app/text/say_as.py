"""How a stretch of text is to be read (SSML's ``say-as``): digit by digit, letter by letter.

Numbers, dates, times, amounts and the like are left as they are: reading them is the normaliser's
business (``normalise.py``), or the engine's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_ZH_DIGITS: Final = dict(zip("0123456789", "零一二三四五六七八九", strict=True))
_ZH_TELEPHONE: Final = _ZH_DIGITS | {"1": "幺"}
"""Between other digits 一 sounds like 七."""
_EN_DIGITS: Final = dict(
    zip(
        "0123456789",
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
        strict=True,
    )
)
_FULL_WIDTH: Final = {ord("０") + n: str(n) for n in range(10)}

_ZH_MARKS: Final = {
    "，": "逗号", ",": "逗号", "。": "句号", ".": "点", "、": "顿号", "；": "分号", ";": "分号",
    "：": "冒号", ":": "冒号", "？": "问号", "?": "问号", "！": "感叹号", "!": "感叹号",
    "…": "省略号", "-": "杠", "—": "破折号", "_": "下划线", "/": "斜杠", "@": "艾特", "#": "井号",
    "*": "星号", "+": "加号", "=": "等号", "%": "百分号", "&": "和", "（": "左括号", "(": "左括号",
    "）": "右括号", ")": "右括号", "“": "左引号", "”": "右引号", '"': "引号",
}  # fmt: skip
_EN_MARKS: Final = {
    ",": "comma", ".": "dot", ";": "semicolon", ":": "colon", "?": "question mark",
    "!": "exclamation mark", "…": "ellipsis", "-": "dash", "—": "dash", "_": "underscore",
    "/": "slash", "@": "at", "#": "hash", "*": "star", "+": "plus", "=": "equals", "%": "percent",
    "&": "and", "(": "open bracket", ")": "close bracket", '"': "quote",
}  # fmt: skip

_NOT_DIGITS: Final = re.compile(r"[^0-9+]+")


def spoken(text: str, kind: str, language: str) -> str:
    """What to say for ``text``, read as ``kind`` by a voice of ``language`` (a BCP 47 tag).

    ``digits``: one by one. ``telephone``: so, with a pause between groups; in Chinese 1 is 幺.
    ``characters``, ``id``: each character by itself, marks by their names. ``punctuation``: marks
    by their names, the rest as it is. Every other kind (nls-protocol.md 4.3 has ``cardinal``,
    ``name``, ``address``, ``date``, ``time``, ``currency`` and ``measure``) gives the text as it
    is.
    """
    text = text.translate(_FULL_WIDTH)
    chinese = language.lower().partition("-")[0] in ("zh", "cmn", "yue")
    digits = _ZH_DIGITS if chinese else _EN_DIGITS
    marks = _ZH_MARKS if chinese else _EN_MARKS
    match kind.strip().lower():
        case "digits":
            return _named(text, digits, "" if chinese else " ")
        case "telephone":
            groups = filter(None, _NOT_DIGITS.split(text))
            names = {**(_ZH_TELEPHONE if chinese else _EN_DIGITS), "+": marks["+"]}
            joint = "" if chinese else " "
            return ("，" if chinese else ", ").join(_named(each, names, joint) for each in groups)
        case "characters" | "id":
            # Apart from each other, so that letters are not read as a word.
            return _named(text, digits | marks, " ")
        case "punctuation":
            return _named(text, marks, "")
    return text


def _named(text: str, names: Mapping[str, str], joint: str) -> str:
    """Each character by its name if it has one, else itself; no white space where there is a
    ``joint``."""
    if not joint:
        return "".join(names.get(character, character) for character in text)
    return joint.join(names.get(character, character) for character in text if character.strip())
