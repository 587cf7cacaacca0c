"""The voices of a synthesis model: their names, languages and genders.

A model's own names come from its metadata. Kokoro's begin with a letter for the language and one
for the gender ("zf_001"; hexgrad's list of Kokoro's voices). Then there are the preset names that
clients of this server know, for the speakers that fit them: every speaker of these models reads all
languages of its lexicon, so the first man reads English under 英文男 even where he is Chinese.
There is no preset of a language that the model does not read, nor of a gender that it is not known
to have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from app.core.speech import Gender, Voice
from app.engines.sherpa.folder import unusable
from app.engines.sherpa.voice_kinds import VoiceModel

_PRESETS: Final[tuple[tuple[str, str, Gender], ...]] = (
    ("中文女", "zh-CN", "female"),
    ("中文男", "zh-CN", "male"),
    ("粤语女", "zh-HK", "female"),
    ("英文女", "en-US", "female"),
    ("英文男", "en-US", "male"),
)
"""Of the seven that this server has: those whose languages a lexicon can be of."""

_OF_KOKORO: Final = re.compile(r"([abefhijpz])([fm])(?:_.+)?")
_LANGUAGES: Final = {
    "a": "en-US",
    "b": "en-GB",
    "e": "es-ES",
    "f": "fr-FR",
    "h": "hi-IN",
    "i": "it-IT",
    "j": "ja-JP",
    "p": "pt-BR",
    "z": "zh-CN",
}
_GENDERS: Final[dict[str, Gender]] = {"f": "female", "m": "male"}

_MANDARIN: Final = "zh-CN"
_CANTONESE: Final = "zh-HK"
_ENGLISH: Final = "en-US"
_NAME: Final = re.compile(r"\w(?:[\w .-]{0,62}[\w.-])?")


@dataclass(frozen=True, slots=True)
class Speaker:
    """A voice, and the number of its speaker in the model."""

    voice: Voice
    number: int


def is_name(text: str) -> bool:
    """Whether a voice may be called so: names become parts of paths and of log lines."""
    return _NAME.fullmatch(text) is not None and ".." not in text


def tags_of(model: VoiceModel) -> tuple[str, ...]:
    """The languages that a model reads, as BCP 47 tags."""
    cantonese = any(word in model.told_language.lower() for word in ("cantonese", "yue"))
    chinese = _CANTONESE if cantonese else _MANDARIN
    return tuple({"zh": chinese, "en": _ENGLISH}[language] for language in model.languages)


def speakers_of(model: VoiceModel) -> tuple[Speaker, ...]:
    """The voices of a model that has some, the presets first.

    Kokoro's voices of languages that the lexicon has no words of are left out: what they are for
    they could not read. A speaker without a usable name is called after its number.

    Raises:
        EngineNotUsable: none is left.
    """
    tags = tags_of(model)
    families = {_family(tag) for tag in tags}
    own = [each for each in _own(model, tags[0]) if _family(each.voice.language) in families]
    if not own:
        raise unusable(model.folder, "it has no voice of the languages of its lexicon")
    presets = tuple(_presets(own, tags, model.kind))
    if presets and len(own) == 1:
        return presets
    return (*presets, *own)


def _own(model: VoiceModel, tag: str) -> Iterator[Speaker]:
    """Every speaker by its own name. ``tag``: the language of one that does not tell its."""
    # The published models of one Chinese or English voice of these kinds are all of women.
    alone = model.speakers == 1 and model.kind in ("Melo", "Matcha")
    taken: set[str] = set()
    for number in range(model.speakers):
        name = model.names[number] if model.names else ""
        told = _OF_KOKORO.fullmatch(name) if model.kind == "Kokoro" else None
        gender: Gender = "female" if alone else "unknown"
        language = tag
        if told is not None:
            language, gender = _LANGUAGES[told[1]], _GENDERS[told[2]]
        if not is_name(name) or name.lower() in taken:
            name = f"speaker-{number}"
        taken.add(name.lower())
        description = f"{model.kind}, speaker {number}"
        yield Speaker(
            Voice(name=name, language=language, gender=gender, description=description), number
        )


def _presets(own: list[Speaker], tags: tuple[str, ...], kind: str) -> Iterator[Speaker]:
    taken = {each.voice.name.lower() for each in own}
    for name, language, gender in _PRESETS:
        fitting = [each for each in own if each.voice.gender == gender]
        if language not in tags or not fitting or name in taken:
            continue
        best = min(fitting, key=lambda each: _distance(each.voice.language, language))
        description = f"{kind}, the same as {best.voice.name}" if len(own) > 1 else kind
        voice = Voice(name=name, language=language, gender=gender, description=description)
        yield Speaker(voice, best.number)


def _distance(have: str, want: str) -> int:
    if have == want:
        return 0
    return 1 if _family(have) == _family(want) else 2


def _family(tag: str) -> str:
    return tag.partition("-")[0]
