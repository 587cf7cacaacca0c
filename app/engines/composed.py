"""The capabilities of a recogniser in parts, from those of its parts."""

from __future__ import annotations

from typing import Final

from app.engines.base import OfflineRecognizer, RecognizerCapabilities, SentenceRecognizer

_STEP_MS: Final = 600
"""Of a replica without a streaming part: nothing is stepped, so this is for form's sake."""


def capabilities_of(
    streaming: SentenceRecognizer | None,
    offline: OfflineRecognizer | None,
    *,
    punctuates: bool,
    device: str,
    notice: str,
) -> RecognizerCapabilities:
    """For :class:`app.engines.base.RecognizerParts`. ``punctuates``: there is a part for that. One
    of the other two is there."""
    first = streaming.capabilities if streaming else None
    second = offline.capabilities if offline else None
    known = [each for each in (second, first) if each is not None]
    return RecognizerCapabilities(
        sample_rate=known[0].sample_rate,
        languages=tuple(dict.fromkeys(name for each in known for name in each.languages)),
        step_ms=first.step_ms if first else _STEP_MS,
        partials=first is not None,
        word_times=any(each.word_times for each in known),
        own_endpointing=False,
        max_sessions=None,
        max_sentences=first.max_sentences if first else 1,
        max_batch=first.max_batch if first else None,
        hotwords=any(each.hotwords for each in known),
        punctuation=punctuates or (second is not None and second.punctuation),
        inverse_text_normalization=False,
        tags=second is not None and second.tags,
        device=device,
        notice=notice,
    )
