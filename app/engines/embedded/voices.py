"""The voices of the embedded synthesiser: names, and which language a text is read in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from app.core.speech import Gender, Voice


@dataclass(frozen=True, slots=True)
class EspeakVoice:
    """A preset: an espeak-ng language, and the variant that makes its timbre."""

    voice: Voice
    language: str
    variant: str

    def name_for(self, text: str) -> str:
        """The espeak-ng voice that reads ``text``: this one's language if it has the script,
        otherwise one that has, in the same timbre."""
        return f"{_language_for(text, self.language)}+{self.variant}"


def _preset(
    name: str, tag: str, gender: Gender, language: str, variant: str, description: str
) -> EspeakVoice:
    voice = Voice(name=name, language=tag, gender=gender, description=f"{description}, espeak-ng")
    return EspeakVoice(voice, language, variant)


# The seven preset names come first, as every engine has them. In espeak-ng, British English is
# plain "en" ("en-gb" is no name that it finds), Mandarin is "cmn" ("zh" is none either), and an
# unknown variant is ignored in silence.
PRESETS: Final = (
    _preset("中文女", "zh-CN", "female", "cmn", "f2", "Mandarin, female"),
    _preset("中文男", "zh-CN", "male", "cmn", "m3", "Mandarin, male"),
    _preset("日语男", "ja-JP", "male", "ja", "m3", "Japanese, male"),
    _preset("粤语女", "zh-HK", "female", "yue", "f2", "Cantonese, female"),
    _preset("英文女", "en-US", "female", "en-us", "f2", "American English, female"),
    _preset("英文男", "en-US", "male", "en-us", "m3", "American English, male"),
    _preset("韩语女", "ko-KR", "female", "ko", "f2", "Korean, female"),
    _preset("english-gb-female", "en-GB", "female", "en", "f2", "British English, female"),
    _preset("english-gb-male", "en-GB", "male", "en", "m3", "British English, male"),
    _preset("english-us-female-2", "en-US", "female", "en-us", "f4", "American English, light"),
    _preset("english-us-male-2", "en-US", "male", "en-us", "m7", "American English, deep"),
    _preset("mandarin-female-2", "zh-CN", "female", "cmn", "f4", "Mandarin, light"),
    _preset("mandarin-male-2", "zh-CN", "male", "cmn", "m7", "Mandarin, deep"),
    _preset("cantonese-male", "zh-HK", "male", "yue", "m3", "Cantonese, male"),
    _preset("japanese-female", "ja-JP", "female", "ja", "f2", "Japanese, female"),
    _preset("korean-male", "ko-KR", "male", "ko", "m3", "Korean, male"),
)

BY_NAME: Final = {preset.voice.name: preset for preset in PRESETS}

_HAN: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KANA: Final = re.compile(r"[\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f]")
_HANGUL: Final = re.compile(r"[\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3]")

_READS: Final = {"cmn": _HAN, "yue": _HAN, "ja": _KANA, "ko": _HANGUL}


def _language_for(text: str, language: str) -> str:
    """``language`` unless ``text`` has another script and nothing of its own.

    Without the script, espeak-ng says the name of the script once for each character. All of
    these languages read Latin words by themselves.
    """
    own = _READS.get(language)
    if own is not None and own.search(text):
        return language
    counts = {
        "cmn": len(_HAN.findall(text)),
        "ja": len(_KANA.findall(text)),
        "ko": len(_HANGUL.findall(text)),
    }
    if not any(counts.values()):
        return language
    # Kana are the sign of Japanese even where most characters are Han.
    return "ja" if counts["ja"] else max(counts, key=lambda key: counts[key])
