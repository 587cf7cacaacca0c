"""Numbers, dates, units and the like as the words that one says for them.

The rules are those of wetext (finite-state grammars for Chinese and English). Around it stand the
cases that it gets wrong (A-101 becomes A负一百零一): what it must not touch is kept from it, and
what it misreads is rewritten before.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import Any, Final, Literal

Rules = Literal["zh", "en"]

CACHE_SENTENCES: Final = 1024

_NEEDS: Final = re.compile(r"[0-9０-９%％‰℃℉°$¥￥€£²³㎡№]")
_IDEOGRAPH: Final = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_FULL_WIDTH: Final = {ord("０") + n: str(n) for n in range(10)} | {ord("．"): ".", ord("％"): "%"}

_VERBATIM: Final = re.compile(
    r"""
    (?:https?|ftp|wss?)://[!-~]+ | www\.[!-~]+     # an address; engines spell it
  | [\w.+-]+@[\w-]+(?:\.[\w-]+)+                  # an e-mail address
  | ["\\]                                         # wetext puts a backslash before these
    """,
    re.VERBOSE | re.ASCII,
)
_IDENTIFIER: Final = re.compile(
    r"(?<![A-Za-z0-9])(?=[A-Za-z-]*[0-9])[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)+(?![A-Za-z0-9])"
)
"""A-101, which wetext reads as "A minus 101"."""
_NUMBER_STRING: Final = re.compile(
    r"(?<![\w.,-])(?:\+?\d{8,}|(?:\d{3}-)?\d{3}-\d{4})(?![\w-]|[.,]\d)", re.ASCII
)
"""Telephone and account numbers, which English wetext reads as one number."""
_VERSION: Final = re.compile(r"(?<![\d.])\d+(?:\.\d+){2,}(?![\d.]*\d)")
_IP_PARTS: Final = 4
_PERCENT_RANGE: Final = re.compile(r"(%)[-–—](?=\d)")
_THOUSANDS: Final = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_BARE_THOUSAND: Final = re.compile(
    r"(?<!ten )(?<!eleven )(?<!twelve )(?<!teen )(?<!ty )(?<!one )(?<!two )(?<!three )(?<!four )"
    r"(?<!five )(?<!six )(?<!seven )(?<!eight )(?<!nine )(?<!hundred )\bthousand\b"
)
_SPELLED_FROM: Final = 3
"""Digits in an identifier are read one by one from this many on: room 1 0 1, but COVID nineteen."""

_DIGIT_WORDS: Final[dict[Rules, dict[str, str]]] = {
    "zh": dict(zip("0123456789", "零一二三四五六七八九", strict=True)),
    "en": dict(
        zip(
            "0123456789",
            ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
            strict=True,
        )
    ),
}
_DIGIT_JOINT: Final[dict[Rules, str]] = {"zh": "", "en": " "}
_POINT: Final[dict[Rules, str]] = {"zh": "点", "en": " point "}


class Normalizer:
    """Text to speak, with everything written out. Safe for several threads.

    The grammars load with the first sentence that needs them (0.4 s), and a sentence takes 3 to
    7 ms with the interpreter's lock held: call it in a thread or a worker. Results are cached.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._grammars: dict[Rules, Callable[[str], str]] = {}
        self._cached = lru_cache(CACHE_SENTENCES)(self._rewrite)

    def needs(self, text: str) -> bool:
        """Whether there is anything to write out: most sentences have nothing."""
        return _NEEDS.search(text) is not None

    def normalize(self, text: str, language: str) -> str:
        """``text`` for a voice of ``language`` (a BCP 47 tag).

        A text with Chinese characters is read as Chinese, also by an English voice; languages
        without grammars leave it unchanged. So do sentences that the grammars fail on.
        """
        rules = _rules(text, language)
        if rules is None or not self.needs(text):
            return text
        return self._cached(text, rules)

    def _rewrite(self, text: str, rules: Rules) -> str:
        text = text.translate(_FULL_WIDTH)
        parts: list[str] = []
        position = 0
        for match in _VERBATIM.finditer(text):
            parts += [self._plain(text[position : match.start()], rules), match[0]]
            position = match.end()
        parts.append(self._plain(text[position:], rules))
        return "".join(parts)

    def _plain(self, text: str, rules: Rules) -> str:
        """Text that may be rewritten, by wetext; its outer whitespace is kept."""
        inner = text.strip()
        if not inner or not self.needs(inner):
            return text
        start = text.index(inner)
        try:
            with self._lock:
                found = self._grammar(rules)(_prepared(inner, rules))
        # The grammars raise whatever they like on text that they did not expect, and an engine
        # can still read what is not normalised.
        except Exception:
            return text
        if rules == "en":
            found = _corrected(found, inner)
        return text[:start] + found + text[start + len(inner) :]

    def _grammar(self, rules: Rules) -> Callable[[str], str]:
        """The loaded grammar; called with the lock held."""
        if rules not in self._grammars:
            import wetext

            loaded: Any = wetext.Normalizer(lang=rules, operator="tn")
            self._grammars[rules] = loaded.normalize
        return self._grammars[rules]


def _rules(text: str, language: str) -> Rules | None:
    family = language.replace("_", "-").partition("-")[0].lower()
    if family in ("zh", "cmn", "yue"):
        return "zh"
    if family == "en":
        return "zh" if _IDEOGRAPH.search(text) else "en"
    return None


def _prepared(text: str, rules: Rules) -> str:
    """Rewrite what wetext misreads but a small change makes right."""
    text = _VERSION.sub(lambda match: _version(match[0], rules), text)
    text = _IDENTIFIER.sub(lambda match: _identifier(match[0], rules), text)
    if rules == "zh":
        return _PERCENT_RANGE.sub(r"\1~", text)
    text = _NUMBER_STRING.sub(lambda match: _spell(match[0], rules), text)
    return _THOUSANDS.sub("", text)


def _corrected(found: str, source: str) -> str:
    """English wetext says "ten hundred" for 1000, and "thousand two hundred" for 1200.50."""
    if "thousand" in source or "hundred" in source:
        return found
    return _BARE_THOUSAND.sub("one thousand", found.replace("ten hundred", "one thousand"))


def _version(text: str, rules: Rules) -> str:
    """1.2.3 is not "1.2" and "3". Four parts are an IP address, which Chinese wetext reads."""
    parts = text.split(".")
    if rules == "zh" and len(parts) == _IP_PARTS:
        return text
    return _POINT[rules].join(parts)


def _identifier(text: str, rules: Rules) -> str:
    parts = text.split("-")
    return " ".join(
        _spell(part, rules) if part.isdecimal() and len(part) >= _SPELLED_FROM else part
        for part in parts
    )


def _spell(text: str, rules: Rules) -> str:
    """The digits one by one, without what stands between them."""
    words = _DIGIT_WORDS[rules]
    return _DIGIT_JOINT[rules].join(words[char] for char in text if char in words)
