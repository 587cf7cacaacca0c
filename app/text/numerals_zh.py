"""Chinese numerals as numbers: 一万两千零五十 is 12050."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

DIGITS: Final = "零〇一二三四五六七八九"
NUMERALS: Final = DIGITS + "幺两兩十百千万萬亿億"

_DIGIT_VALUES: Final[dict[str, int]] = dict(zip(DIGITS, (0, *range(10)), strict=True)) | {"两": 2}
_SMALL_UNITS: Final[dict[str, int]] = {"十": 10, "百": 100, "千": 1000}
_FIGURES: Final = str.maketrans(DIGITS + "幺两兩", "00123456789122")
_SIMPLIFIED: Final = str.maketrans("萬億兩", "万亿两")
_WAN: Final = 10_000
_YI: Final = _WAN * _WAN
_LONGEST: Final = 24
"""Characters of the longest numeral; what is longer is none."""


def figures(digits: str) -> str:
    """Digits read one by one: 幺三八 is 138."""
    return digits.translate(_FIGURES)


def value(numeral: str) -> int | None:
    """The number that ``numeral`` is, None if it does not read as one (三四十, 二零二六, 百八).

    The last unit may be left out: 三千五 is 3500. 零 may be, too: 三万五百 is 30500.
    """
    if len(numeral) > _LONGEST:
        return None
    return _whole(numeral.translate(_SIMPLIFIED))


def written(numeral: str) -> str | None:
    """The number as it is written: 三百万 is 300万, 一亿两千万 is 1亿2000万, the rest figures
    only. None if ``numeral`` is no number."""
    number = value(numeral)
    if number is None or not number:
        return None if number is None else "0"
    wan, yi = ("萬" if "萬" in numeral else "万"), ("億" if "億" in numeral else "亿")
    if numeral[-1] not in (wan, yi):
        return str(number)
    over, under = divmod(number, _YI)
    if over and over % _WAN == 0 and not under:
        return f"{over // _WAN}{wan}{yi}"
    return (f"{over}{yi}" if over else "") + (f"{under // _WAN}{wan}" if under else "")


def _whole(numeral: str) -> int | None:
    if numeral in ("两", "零", "〇"):
        return _DIGIT_VALUES[numeral]
    for unit, size in (("亿", _YI), ("万", _WAN)):
        high, found, low = numeral.rpartition(unit)
        if found:
            front = _section(high) if unit == "万" and high != "两" else _whole(high)
            return _joined(front, size, low)
    return _section(numeral)


def _joined(high: int | None, size: int, low: str) -> int | None:
    """``high`` of the unit ``size`` (万 or 亿), and what follows it."""
    if not high or high >= _WAN * _WAN:
        return None
    if not low:
        return high * size
    if low in _DIGIT_VALUES and low != "两":  # 三万五 is 35000
        digit = _DIGIT_VALUES[low]
        return high * size + digit * size // 10 if digit else None
    rest = _whole(low[1:] if low[0] in "零〇" else low)
    return high * size + rest if rest and rest < size else None


def _section(numeral: str) -> int | None:
    """Below 10,000, without 万."""
    total, last_unit = 0, _WAN
    digit: int | None = None
    after_zero = False
    for before, char in pairwise(f" {numeral}"):
        if char in _SMALL_UNITS:
            unit = _SMALL_UNITS[char]
            if (
                unit >= last_unit
                or (digit is None and unit > 10)
                or (unit == 10 and before == "两")
            ):
                return None
            total += (1 if digit is None else digit) * unit
            last_unit, digit, after_zero = unit, None, False
        elif char in "零〇":
            if digit is not None or after_zero or not total:
                return None
            after_zero = True
        elif digit is not None or char not in _DIGIT_VALUES:
            return None
        else:
            digit = _DIGIT_VALUES[char]
    if numeral.endswith("两"):
        return None
    if digit is None:
        return None if after_zero or not total else total
    if not total or after_zero or last_unit == 10:
        return total + digit
    return total + digit * last_unit // 10
