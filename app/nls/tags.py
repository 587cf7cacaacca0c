"""What an engine heard beside the words, as fields of a final result's payload.

The protocol has one such field, the emotion of the cloud's 8 kHz model, in three kinds; the others
are this server's own (nls-protocol.md 3.3). They are there only when the engine says something, so
the payloads of other engines stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from app.core.speech import SentenceEnded

EMOTION_TAGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "happy": "positive",
        "neutral": "neutral",
        "sad": "negative",
        "angry": "negative",
        "fearful": "negative",
        "disgusted": "negative",
    }
)
"""``emo_tag`` for an emotion; of others, such as surprise, nobody can say. ``emo_confidence`` is
never sent: engines that have a figure for it are not known."""


def tags(event: SentenceEnded) -> dict[str, object]:
    """The fields; none for an engine that hears only words."""
    fields: dict[str, object] = {}
    if event.emotion and (tag := EMOTION_TAGS.get(event.emotion)):
        fields["emo_tag"] = tag
    if event.language:
        fields["language"] = event.language
    if event.emotion:
        fields["emotion"] = event.emotion
    if event.events:
        fields["events"] = list(event.events)
    return fields
