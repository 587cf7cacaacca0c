"""Inverse text normalisation: recognised numbers, dates, times and amounts in figures.

A recogniser writes what it hears (二零二六年十一月二十日, twenty three dollars); people write
2026年11月20日 and $23. The rules are our own, not those of wetext, which ``normalise.py`` uses for
the way back: its Chinese style is another one (2026/11/20, ¥3.14, 3:30p.m., 65kg), it takes words
for numbers (10字路口, 快1.3个人, wait a 2nd), and a sentence costs 5 to 8 ms with the interpreter's
lock held. These take 2 to 50 µs, so interim results have them too and the final does not jump.

What may be no number stays as it was spoken: single digits in running text (三个人), estimates
(三四个, 几十个), idioms, and whatever does not read as one number (三七二十一, seven eleven).
"""

from __future__ import annotations

import re
from typing import Final

from app.text import inverse_en, inverse_zh

_KANA: Final = re.compile(r"[\u3041-\u30ff]")


def inverse_normalize(text: str, language: str | None = None) -> str:
    """``text`` with its numbers in figures; applying it again changes nothing.

    ``language`` is the BCP 47 tag of the speech, None if it is not known: then Chinese numerals
    and English words are both rewritten, wherever they stand. Other languages than those two
    leave the text as it is. Any thread.
    """
    # What is rewritten may clear the view on its neighbour. Every turn leaves fewer numerals.
    while (found := _once(text, language)) != text:
        text = found
    return text


def _once(text: str, language: str | None) -> str:
    family = (language or "auto").replace("_", "-").partition("-")[0].lower()
    if family in ("auto", "zh", "cmn", "yue"):
        # Japanese has the same numerals and other rules.
        if inverse_zh.needs(text) and not _KANA.search(text):
            text = inverse_zh.rewrite(text)
    elif family != "en":
        return text
    return inverse_en.rewrite(text) if inverse_en.needs(text) else text
