"""What languages a model knows, as far as its tokens tell: metadata do not say."""

from __future__ import annotations

from app.engines.sherpa.kinds import Model

_OF_SENSE_VOICE = ("zh", "yue", "en", "ja", "ko")


def languages_of(model: Model) -> tuple[str, ...]:
    """``zh`` where there are Chinese characters among the tokens, ``en`` where there are Latin
    letters; SenseVoice's five."""
    if model.kind == "SenseVoice":
        return _OF_SENSE_VOICE
    symbols = [symbol for symbol in model.symbols if not symbol.startswith("<")]
    chinese = any("\u4e00" <= char <= "\u9fff" for symbol in symbols for char in symbol)
    latin = any(char.isascii() and char.isalpha() for symbol in symbols for char in symbol)
    found = (["zh"] if chinese else []) + (["en"] if latin else [])
    return tuple(found) or ("zh", "en")
