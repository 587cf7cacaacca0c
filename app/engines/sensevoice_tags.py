"""What SenseVoice tells beside the words, and is asked for, whichever library runs it: language,
emotion, events; figures with punctuation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from app.core.speech import RecognitionOptions

_EMOTIONS: Final = frozenset(
    {"HAPPY", "SAD", "ANGRY", "NEUTRAL", "FEARFUL", "DISGUSTED", "SURPRISED"}
)
_LANGUAGES: Final = frozenset({"zh", "en", "yue", "ja", "ko"})
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


@dataclass(frozen=True, slots=True)
class Tags:
    """What was heard beside the words; names as in :class:`app.core.speech.SentenceEnded`."""

    language: str | None = None
    emotion: str | None = None
    events: tuple[str, ...] = ()


def wants_figures(options: RecognitionOptions) -> bool:
    """Figures and punctuation come together in SenseVoice: only where both are asked for."""
    return options.punctuation and options.inverse_text_normalization


def read_tags(names: Iterable[str]) -> Tags:
    """SenseVoice's tags (``zh``, ``HAPPY``, ``Laughter`` …) sorted by their kind. Speech itself is
    no event; unknown tags, and those that say "unknown", leave no trace."""
    tags = Tags()
    for name in names:
        if name in _LANGUAGES and tags.language is None:
            tags = replace(tags, language=name)
        elif name in _EMOTIONS and tags.emotion is None:
            tags = replace(tags, emotion=name.lower())
        elif (event := _EVENTS.get(name)) is not None and event not in tags.events:
            tags = replace(tags, events=(*tags.events, event))
    return tags
