"""English numbers, dates, times and amounts in figures.

A run of number words is rewritten as a whole or not at all: seven eleven and three thirty stay as
they were spoken. Numbers below ten stay words in running text, as the style guides have it.
"""

from __future__ import annotations

import re
from typing import Final

_ONES: Final = {
    word: number
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    )
}
_TEENS: Final = {
    word: number
    for number, word in enumerate(
        (
            *("ten", "eleven", "twelve", "thirteen", "fourteen"),
            *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
        ),
        10,
    )
}
_TENS: Final = {
    word: number * 10
    for number, word in enumerate(
        ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 2
    )
}
_SCALES: Final = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ORDINAL_ONES: Final = {
    word: number
    for number, word in enumerate(
        ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"), 1
    )
}
_ORDINAL_TEENS: Final = {
    word: number
    for number, word in enumerate(
        (
            *("tenth", "eleventh", "twelfth", "thirteenth", "fourteenth"),
            *("fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth"),
        ),
        10,
    )
} | {f"{word[:-1]}ieth": number for word, number in _TENS.items()}
_MONTHS: Final = (
    "january|february|march|april|may|june|july|august|september|october|november|december"
)
_CURRENCIES: Final = {"dollar": "$", "euro": "€"}
_WORDS: Final = [*_ONES, *_TEENS, *_TENS, "hundred", *_SCALES]
_CENTURIES: Final = ("seventeen", "eighteen", "nineteen", "twenty")
_DATE_COMES: Final = re.compile(
    r"(?:^|[^\w\s]|\b(?:on|by|until|till|since|from|to|before|after|is|of|for))\s*$", re.IGNORECASE
)
"""What stands before a date of may or march, which are verbs as well."""
_LAST_DAY: Final = 31
_WRITTEN_FROM: Final = 10
_DIGITS_FROM: Final = 3
"""Digits one by one are a number string from this many on."""

_ANY: Final = "|".join(sorted(_WORDS, key=len, reverse=True))
_GAP: Final = r"(?:[ ]|-(?=[a-z]))"
_RUN: Final = (
    rf"(?:(?:oh|o)[ ])?(?:{_ANY})\b(?:{_GAP}(?:(?:oh|o|point)[ ](?=(?:oh|o|{_ANY})\b))*"
    r"(?:(?:(?<=hundred[ ])|(?<=thousand[ ])|(?<=million[ ])|(?<=billion[ ]))and[ ])?"
    rf"(?:{_ANY})\b)*+"
)
_ORDINAL: Final = "|".join(sorted((*_ORDINAL_ONES, *_ORDINAL_TEENS), key=len, reverse=True))
_PHRASE: Final = re.compile(
    rf"""
    (?<![\w.$€-])
    (?:
        (?P<month>{_MONTHS})[ ](?:the[ ])?(?P<day>(?:(?:twenty|thirty)[ -])?(?:{_ORDINAL}))\b
      | (?P<ordinal>(?:(?P<higher>{_RUN}){_GAP})?(?:and[ ])?(?P<last>{_ORDINAL}))\b
      | (?P<run>{_RUN})
        (?:
            [ ](?P<percent>percent|per[ ]cent)\b
          | [ ](?P<noon>[ap][.]?[ ]?m)\b(?P<dot>[.])?
          | [ ](?P<currency>dollars?|euros?)\b
            (?:[ ](?:and[ ])?(?P<cents>(?:(?:{_ANY})[ -]?){{1,2}})[ ]cents\b)?
          | [ ](?P<decade>twenties|thirties|forties|fifties|sixties|seventies|eighties|nineties)\b
        )?
    )
    (?![\w]|-\w)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NEEDS: Final = re.compile(rf"(?<![\w.$€-])(?:{_ANY}|{_ORDINAL})\b", re.IGNORECASE)


def needs(text: str) -> bool:
    """Whether there is anything that could be rewritten."""
    return _NEEDS.search(text) is not None


def rewrite(text: str) -> str:
    """``text`` with its numbers in figures."""
    return _PHRASE.sub(lambda match: _written(match) or match[0], text)


def _written(match: re.Match[str]) -> str | None:
    if match["month"]:
        return _date(match)
    if match["ordinal"]:
        return _place(match)
    words = re.split("[ -]", match["run"].lower())
    if match["noon"]:
        return _time(words, match)
    number = _number(words)
    if match["decade"]:
        return _decade(words, match["decade"].lower())
    if number is None:
        return None
    if match["percent"]:
        return f"{number}%"
    if match["currency"]:
        return _money(number, match)
    return number if len(words) > 1 or int(number) >= _WRITTEN_FROM else None


def _date(match: re.Match[str]) -> str | None:
    """november twentieth: november 20. It may first be, and march second, are none."""
    if match["month"].lower() in ("may", "march") and not _DATE_COMES.search(
        match.string, 0, match.start()
    ):
        return None
    day = _ordinal(match["day"])
    return f"{match['month']} {day}" if day and day <= _LAST_DAY else None


def _number(words: list[str]) -> str | None:
    """The figures of a whole run of number words; None if it is not one number."""
    if "point" in words:
        whole, part = words[: words.index("point")], words[words.index("point") + 1 :]
        scale = part.pop() if part and part[-1] in _SCALES else ""
        before, after = _cardinal(whole), _digits(part)
        if before is None or not after:
            return None
        return f"{before}.{after} {scale}".rstrip()
    if len(words) >= _DIGITS_FROM and (digits := _digits(words)):
        return digits
    if (year := _year(words)) is not None:
        return year
    if words[-1] in _SCALES and words[-1] != "thousand":
        front = _cardinal(words[:-1])
        return None if front is None else f"{front} {words[-1]}"
    number = _cardinal(words)
    return None if number is None else str(number)


def _digits(words: list[str]) -> str:
    """Digits one by one; "" if there is another word."""
    named = _ONES | {"oh": 0, "o": 0}
    return "".join(str(named[word]) for word in words) if all(w in named for w in words) else ""


def _year(words: list[str]) -> str | None:
    """nineteen ninety eight, twenty twenty six, nineteen oh five."""
    if words[0] not in _CENTURIES or len(words) < 2:
        return None
    century = _cardinal(words[:1])
    if words[1] in ("oh", "o") and len(words) == 3 and words[2] in _ONES:
        return f"{century}0{_ONES[words[2]]}"
    rest = _below_hundred(words[1:])
    return f"{century}{rest}" if rest is not None and rest >= 10 else None


def _cardinal(words: list[str]) -> int | None:
    """The number of "twelve thousand three hundred and four"."""
    if not words:
        return None
    total, limit = 0, 10**15
    part: list[str] = []
    for word in words:
        if word not in _SCALES:
            part.append(word)
            continue
        number = _below_thousand(part)
        if not number or _SCALES[word] >= limit:
            return None
        limit = _SCALES[word]
        total += number * limit
        part = []
    if not part:
        return total
    if total and part[0] == "and":
        part = part[1:]
    rest = _below_thousand(part)
    return None if rest is None or (total and not rest) else total + rest


def _below_thousand(words: list[str]) -> int | None:
    if "hundred" not in words:
        return _below_hundred(words)
    at = words.index("hundred")
    hundreds, rest = _below_hundred(words[:at]), words[at + 1 :]
    if not hundreds:
        return None
    if rest and rest[0] == "and":
        rest = rest[1:]
    number = _below_hundred(rest) if rest else 0
    return None if number is None else hundreds * 100 + number


def _below_hundred(words: list[str]) -> int | None:
    match words:
        case [word]:
            return (_ONES | _TEENS | _TENS).get(word)
        case [tens, ones] if tens in _TENS and _ONES.get(ones):
            return _TENS[tens] + _ONES[ones]
        case _:
            return None


def _time(words: list[str], match: re.Match[str]) -> str | None:
    """three thirty p m: 3:30 p.m.; three PM: 3 PM."""
    hour, rest = _below_hundred(words[:1]), words[1:]
    if hour is None or not 0 < hour <= 12:
        return None
    noon = match["noon"] + (match["dot"] or "")
    if " " in noon:
        noon = f"{noon[0]}.{noon[-1]}."
    if not rest:
        return f"{hour} {noon}"
    if rest[0] in ("oh", "o") and len(rest) == 2:
        minute = _ONES.get(rest[1])
    else:
        minute = _below_hundred(rest)
        minute = None if minute is None or minute < 10 else minute
    return None if minute is None or minute > 59 else f"{hour}:{minute:02} {noon}"


def _money(number: str, match: re.Match[str]) -> str | None:
    """twenty three dollars: $23; five dollars and twenty cents: $5.20."""
    name = match["currency"].lower()
    if not name.endswith("s") and number != "1":
        return f"{number} {match['currency']}" if len(number) > 1 else None  # a 20 dollar bill
    sign = _CURRENCIES[name.removesuffix("s")]
    if match["cents"] is None:
        return f"{sign}{number}"
    cents = _below_hundred(re.split("[ -]", match["cents"].strip(" -").lower()))
    return f"{sign}{number}.{cents:02}" if cents and number.isdigit() else None


def _decade(words: list[str], decade: str) -> str | None:
    """nineteen eighties: 1980s."""
    if len(words) > 1 or words[0] not in _CENTURIES:
        return None
    return f"{_cardinal(words)}{_TENS[decade.removesuffix('ies') + 'y']}s"


def _ordinal(text: str) -> int | None:
    *higher, last = re.split("[ -]", text.lower())
    if not higher:
        return _ORDINAL_ONES.get(last) or _ORDINAL_TEENS[last]
    front = _cardinal([word for word in higher if word != "and"])
    if front is None:
        return None
    if last in _ORDINAL_ONES:
        return front + _ORDINAL_ONES[last] if front % 10 == 0 and front % 100 != 10 else None
    return front + _ORDINAL_TEENS[last] if front % 100 == 0 else None


def _place(match: re.Match[str]) -> str | None:
    """the twenty first: the 21st. Below the tenth, fractions (one third) and what may be a time
    (a twenty second clip) stay."""
    number = _ordinal(match["ordinal"])
    if number is None or number < _WRITTEN_FROM:
        return None
    if match["last"].lower() == "second" and not match.string[: match.start()].lower().endswith(
        "the "
    ):
        return None
    teen = 10 <= number % 100 < 20
    ending = "th" if teen else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
