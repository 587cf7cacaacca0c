"""Which voice a name means."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from app.core.errors import UnknownVoice
from app.core.speech import Voice
from app.voices.aliases import Aliases, Wanted

log = structlog.get_logger(__name__)

_MAX_NAME_CHARS: Final = 64
_FORBIDDEN: Final = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|\.\.|^\.")
"""Names become parts of paths and logs elsewhere, so nothing that could leave them."""

_DEFAULT_LANGUAGE: Final = "zh-CN"

_CANTONESE: Final = ("yue", "zh-hk", "zh-yue", "zh-mo")
"""Tags in use for one and the same spoken language."""


class VoiceCatalogue:
    """The voices of the running engine, and the names that lead to them.

    The event loop reads while a thread refreshes: each change is one assignment.
    """

    def __init__(self, aliases: Aliases) -> None:
        self._aliases = aliases
        self._any_voice = False
        self._voices: tuple[Voice, ...] = ()
        self._by_name: dict[str, Voice] = {}
        self._told: frozenset[tuple[str, str]] = frozenset()

    def set_engine(self, voices: Sequence[Voice], any_voice: bool) -> None:
        """The engine's presets, in its order, and whether it takes names beyond those. Aliases for
        voices that it lacks are told once, as a warning."""
        self._by_name = {_key(voice.name): voice for voice in reversed(voices)}
        self._voices = tuple(voices)
        self._any_voice = any_voice
        self._tell_lost()

    def refresh(self) -> None:
        """Read the owner's aliases again. Blocking: call it in a thread.

        Raises:
            AliasFileError: the file is malformed; the aliases stay as they were.
        """
        self._aliases.refresh()
        self._tell_lost()

    def list(self) -> list[Voice]:
        """All voices by their own names, in the engine's order; no aliases."""
        return [*self._voices]

    def resolve(self, name: str) -> Voice:
        """The voice that ``name`` means: a preset, else an alias, else any name that the engine
        may know. ASCII letters may be in either case. Where an alias is for a voice that the engine
        lacks, it means what that name stands for itself: the closest one to ``中文男``, say.

        Raises:
            UnknownVoice: none of these, or a name that no voice can have.
        """
        if not 1 <= len(name) <= _MAX_NAME_CHARS or _FORBIDDEN.search(name) or not name.strip():
            raise UnknownVoice
        preset = self._by_name.get(_key(name))
        if preset is not None:
            return preset
        alias = self._aliases.find(name)
        if isinstance(alias, str):
            target = self._by_name.get(_key(alias))
            if target is not None:
                return target
            name, alias = alias, self._aliases.find(alias)
        if isinstance(alias, Wanted):
            return self._closest(alias, name)
        return self._unlisted(name)

    def _tell_lost(self) -> None:
        """Warn of the aliases for voices that the engine lacks, where they have changed."""
        if self._any_voice or not self._voices:
            return
        named = self._aliases.named().items()
        lost = frozenset((alias, to) for alias, to in named if _key(to) not in self._by_name)
        for alias, to in sorted(lost - self._told):
            closest = isinstance(self._aliases.find(to), Wanted)
            log.warning(
                "an alias is for a voice that the engine does not have",
                alias=alias,
                voice=to,
                instead="the closest one" if closest else "none: requests for it fail",
            )
        self._told = lost

    def _closest(self, wanted: Wanted, name: str) -> Voice:
        """The first preset under the strictest rule that any preset meets."""
        for matches in _RULES:
            for voice in self._voices:
                if matches(voice, wanted):
                    return voice
        if not self._any_voice:
            raise UnknownVoice
        return Voice(name=name, language=wanted.language, gender=wanted.gender)

    def _unlisted(self, name: str) -> Voice:
        if not self._any_voice:
            raise UnknownVoice
        language = self._voices[0].language if self._voices else _DEFAULT_LANGUAGE
        return Voice(name=name, language=language, gender="unknown")


def _key(name: str) -> str:
    """Without the case of ASCII letters; other letters are different names."""
    return "".join(char.lower() if char.isascii() else char for char in name)


def _language(tag: str) -> str:
    lowered = tag.lower().replace("_", "-")
    return "yue" if lowered.startswith(_CANTONESE) else lowered


def _family(tag: str) -> str:
    primary = _language(tag).partition("-")[0]
    return "zh" if primary in ("cmn", "yue") else primary


def _same_language(voice: Voice, wanted: Wanted) -> bool:
    return _language(voice.language) == _language(wanted.language)


def _same_family(voice: Voice, wanted: Wanted) -> bool:
    return _family(voice.language) == _family(wanted.language)


def _same_gender(voice: Voice, wanted: Wanted) -> bool:
    return voice.gender == wanted.gender


_RULES: Final[tuple[Callable[[Voice, Wanted], bool], ...]] = (
    lambda voice, wanted: _same_language(voice, wanted) and _same_gender(voice, wanted),
    _same_language,
    lambda voice, wanted: _same_family(voice, wanted) and _same_gender(voice, wanted),
    _same_family,
    _same_gender,
    lambda voice, wanted: True,
)
"""What a preset must have in common with the wish, strictest first. The language comes before the
gender: a text read by a voice of another language cannot be understood."""
