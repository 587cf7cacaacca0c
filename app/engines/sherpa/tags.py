"""What SenseVoice tells beside the words: language, emotion, event."""

from __future__ import annotations

from typing import Any, Final

_LANGUAGES: Final = frozenset({"zh", "en", "yue", "ja", "ko"})
_EMOTIONS: Final = frozenset(
    {"HAPPY", "SAD", "ANGRY", "NEUTRAL", "FEARFUL", "DISGUSTED", "SURPRISED"}
)
_EVENTS: Final = {
    "BGM": "music",
    "Applause": "applause",
    "Laughter": "laughter",
    "Cry": "crying",
    "Sneeze": "sneeze",
    "Breath": "breath",
    "Cough": "cough",
    "Sing": "singing",
    "Speech_Noise": "noise",
}
"""Names as in :class:`app.core.speech.SentenceEnded`. Speech itself is no event."""


def language(result: Any) -> str | None:
    """That of a result of the runtime, ``zh`` of ``<|zh|>``; None where it says none."""
    name = _name(result.lang)
    return name if name in _LANGUAGES else None


def emotion(result: Any) -> str | None:
    """That of a result, in lower case; None where it is unknown."""
    name = _name(result.emotion)
    return name.lower() if name in _EMOTIONS else None


def events(result: Any) -> tuple[str, ...]:
    """Those of a result: at most one."""
    found = _EVENTS.get(_name(result.event))
    return () if found is None else (found,)


def _name(tag: str) -> str:
    return tag.removeprefix("<|").removesuffix("|>")
