"""How far a recognised text is from what was said: CER, WER, and what they are made of.

Both texts become units first (:func:`units`), so that what cannot be heard does not count: letter
case, full and half width, punctuation, spaces in Chinese. A unit is a Chinese or Japanese
character, a digit, or a word of any other script. The error rate is the least number of
substitutions, deletions and insertions that make one sequence of the other, divided by the units of
the reference. Over characters alone it is the CER, over words alone the WER; where both occur it is
called the mixed error rate, MER (:func:`measure`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.text.inverse import inverse_normalize

_WIDE: Final = (
    r"\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Scripts without spaces between words: ideographs and kana."""
_SYMBOLS: Final = "%‰°$€£¥"
"""They are said, unlike other signs."""

_THOUSANDS: Final = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_UNSAID: Final = re.compile(
    rf"""
    (?<![^\W\d_])' | '(?![^\W\d_])      # an apostrophe that is not inside a word
  | (?<!\d)[.:/] | [.:/](?!\d)          # one of these that is not inside a number
  | [^\w\s'.:/{_SYMBOLS}] | _
    """,
    re.VERBOSE,
)
_SPACES: Final = re.compile(rf"\s+(?=[{_WIDE}])|(?<=[{_WIDE}])\s+")
_UNIT: Final = re.compile(rf"[{_WIDE}]|\d|[.:/{_SYMBOLS}]|[^\s\d.:/{_SYMBOLS}{_WIDE}]+")
_CHARACTER: Final = re.compile(rf"[{_WIDE}]")
_WORD: Final = re.compile(rf"[^\s\d.:/{_SYMBOLS}{_WIDE}]")

_WORDS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_NUMERALS: Final[dict[str, tuple[str, ...]]] = {
    **{numeral: (str(value),) for value, numeral in enumerate("零一二三四五六七八九")},
    "〇": ("0",),
    "两": ("2",),
    "十": ("1", "0"),
    **{word: (str(value),) for value, word in enumerate(_WORDS)},
    "ten": ("1", "0"),
}
"""Small numbers, which inverse normalisation leaves in words and some engines do not."""

_BOOTSTRAP_BLOCK: Final = 100
_TAILS: Final = (2.5, 97.5)
"""Percent: 95 % lie between them."""


def units(text: str, *, numerals: bool = True) -> list[str]:
    """What is compared of a text.

    ``numerals``: numbers count as their digits however they are written, so that 二十, twenty and
    20 are the same (``app/text/inverse.py``).
    """
    text = _heard(text)
    if not numerals:
        return _UNIT.findall(text)
    found = _UNIT.findall(_heard(inverse_normalize(text)))
    return [digit for unit in found for digit in _NUMERALS.get(unit, (unit,))]


def measure(units: Iterable[str]) -> str:
    """``CER``, ``WER`` or ``MER``: what an error rate over these units is called. Digits and signs
    fit either."""
    text = " ".join(units)
    if not _CHARACTER.search(text):
        return "WER" if _WORD.search(text) else "CER"
    return "MER" if _WORD.search(text) else "CER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """What makes a hypothesis of a reference of so many ``units``; sums over a corpus add up."""

    units: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def count(self) -> int:
        """All of them: the edit distance (Levenshtein)."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float | None:
        """Errors per unit of the reference, which may exceed 1; None where it has no unit."""
        return self.count / self.units if self.units else None

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            units=self.units + other.units,
            substitutions=self.substitutions + other.substitutions,
            deletions=self.deletions + other.deletions,
            insertions=self.insertions + other.insertions,
        )


def errors(reference: Sequence[str], hypothesis: Sequence[str]) -> Errors:
    """The fewest errors that explain ``hypothesis``; where there are several ways, the one that
    leaves the most units right, which has the fewest substitutions.

    Time goes with the product of the two lengths, memory with the second.
    """
    numbers: dict[str, int] = {}
    rows, columns = (
        np.array([numbers.setdefault(unit, len(numbers)) for unit in each], np.int64)
        for each in (reference, hypothesis)
    )
    # One number is minimised: errors * base - deletions, for most deletions among the fewest
    # errors. The others follow, since deletions - insertions is the difference of the lengths.
    base = len(reference) + 1
    inserted = np.arange(columns.size + 1, dtype=np.int64) * base
    cost = inserted.copy()
    for unit in rows:
        next_cost = cost + base - 1
        np.minimum(next_cost[1:], cost[:-1] + base * (columns != unit), out=next_cost[1:])
        # The best way to a column by insertions alone, from any column before it.
        cost = np.minimum.accumulate(next_cost - inserted) + inserted
    count = -(-int(cost[-1]) // base)
    deletions = count * base - int(cost[-1])
    insertions = deletions + len(hypothesis) - len(reference)
    return Errors(
        units=len(reference),
        substitutions=count - deletions - insertions,
        deletions=deletions,
        insertions=insertions,
    )


def disagreement(one: Sequence[str], other: Sequence[str]) -> Errors:
    """How much two texts differ, with neither of them right: symmetric, ``units`` are those of the
    longer one, so the rate is at most 1."""
    first, second = (one, other) if len(one) >= len(other) else (other, one)
    return errors(first, second)


def interval(
    first: Sequence[Errors], second: Sequence[Errors], *, seed: int, resamples: int = 2000
) -> tuple[float, float] | None:
    """The 95 % confidence interval of (error rate of ``second`` - error rate of ``first``), where
    the i-th of both are of the same clip.

    A bootstrap over clips (Bisani and Ney, Bootstrap Estimates for Confidence Intervals in ASR
    Performance Evaluation, ICASSP 2004): the clips are drawn again with replacement, for both at
    once, so that it is the difference that varies and not the difficulty of the clips. The same
    ``seed`` gives the same interval. None: fewer than two clips, or references without units.
    """
    if len(first) < 2:
        return None
    sizes = np.array([each.units for each in first], np.float64)
    more = np.array(
        [after.count - before.count for before, after in zip(first, second, strict=True)],
        np.float64,
    )
    random = np.random.default_rng(seed)
    found: list[NDArray[np.float64]] = []
    for _ in range(0, resamples, _BOOTSTRAP_BLOCK):
        drawn = random.integers(0, sizes.size, (_BOOTSTRAP_BLOCK, sizes.size))
        total = sizes[drawn].sum(axis=1)
        found.append(more[drawn].sum(axis=1)[total > 0] / total[total > 0])
    differences = np.concatenate(found)
    if not differences.size:
        return None
    low, high = np.percentile(differences, _TAILS)
    return float(low), float(high)


def _heard(text: str) -> str:
    """Without what is not said, in lower case and half width."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("⁄", "/")
    text = _UNSAID.sub(_space_or_mark, _THOUSANDS.sub("", text))
    return _SPACES.sub("", " ".join(text.split()))


def _space_or_mark(found: re.Match[str]) -> str:
    """A combining mark (a vowel in Thai, say) is part of its word."""
    return found.group() if unicodedata.category(found.group())[0] == "M" else " "
