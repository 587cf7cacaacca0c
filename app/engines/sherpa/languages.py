"""What languages a model knows, as far as its tokens tell: metadata do not say."""

from __future__ import annotations

import re
from typing import Final

from app.engines.sherpa.kinds import FoundModel

HAN: Final = re.compile(r"[\u3400-\u9fff]")
"""A Chinese character."""
_OF_SENSE_VOICE: Final = ("zh", "yue", "en", "ja", "ko")


def languages_of(model: FoundModel) -> tuple[str, ...]:
    """``zh`` where there are Chinese characters among the tokens, ``en`` where there are Latin
    letters; SenseVoice's five."""
    if model.kind == "SenseVoice":
        return _OF_SENSE_VOICE
    symbols = [symbol for symbol in model.symbols if not symbol.startswith("<")]
    chinese = any(map(HAN.search, symbols))
    latin = any(char.isascii() and char.isalpha() for symbol in symbols for char in symbol)
    found = (["zh"] if chinese else []) + (["en"] if latin else [])
    return tuple(found) or ("zh", "en")
