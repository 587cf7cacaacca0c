"""What a stream's recognised text still needs before it goes out, where its engine lacks it:
punctuation, then figures.

Run it in the thread of a model, not on the event loop: it is text work of all streams of a step.
Words with times stay as they were spoken: each has its place in the audio, and the figures of a
number have none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog

from app.core.speech import RecognitionEvent, RecognitionOptions, SentenceBegan
from app.engines.base import (
    Hypothesis,
    OfflineCapabilities,
    Punctuator,
    RecognizerCapabilities,
)
from app.text.inverse import inverse_normalize

log = structlog.get_logger(__name__)

Writer = Callable[[str], str]
"""A sentence as it was spoken, to the same as it is written."""


@dataclass(frozen=True, slots=True)
class Finish:
    """What the texts of one part of an engine still need for one task. ``write``: None where
    figures stay as they come."""

    punctuate: bool = False
    write: Writer | None = None


def writer(
    options: RecognitionOptions, capabilities: RecognizerCapabilities | OfflineCapabilities
) -> Writer | None:
    """How the sentences of a task are to be written, interim and final; None: as they come."""
    if not options.inverse_text_normalization or capabilities.inverse_text_normalization:
        return None
    return partial(inverse_normalize, language=options.language)


def finish(
    options: RecognitionOptions, capabilities: RecognizerCapabilities | OfflineCapabilities
) -> Finish:
    """What the texts of the part with these capabilities need."""
    punctuate = options.punctuation and not capabilities.punctuation
    return Finish(punctuate, writer(options, capabilities))


def needs_punctuation(found: Hypothesis, needs: Finish) -> bool:
    """Whether a text has to be shown to a punctuator."""
    return needs.punctuate and not found.finished and bool(found.text)


def finished_texts(
    found: Sequence[tuple[Hypothesis, Finish]], punctuator: Punctuator | None
) -> list[str]:
    """The texts with what they need, in order; without punctuation where there is no punctuator,
    or where it fails, which is logged."""
    texts = [each.text for each, _ in found]
    if punctuator is not None:
        wanted = [i for i, (each, needs) in enumerate(found) if needs_punctuation(each, needs)]
        for i, text in zip(
            wanted, _punctuated(punctuator, [texts[i] for i in wanted]), strict=True
        ):
            texts[i] = text
    return [
        text if needs.write is None or each.finished else needs.write(text)
        for text, (each, needs) in zip(texts, found, strict=True)
    ]


def _punctuated(punctuator: Punctuator, texts: list[str]) -> Sequence[str]:
    if not texts:
        return texts
    try:
        made = punctuator.punctuate(texts)
        if len(made) != len(texts):
            raise ValueError(f"{len(made)} texts for {len(texts)}")
    except Exception:
        log.exception("punctuation failed, the texts go out without", sentences=len(texts))
        return texts
    return made


def written_event(write: Writer | None, event: RecognitionEvent) -> RecognitionEvent:
    """An event of an engine that finds the sentences itself, with its text as it is written."""
    if write is None or isinstance(event, SentenceBegan):
        return event
    return msgspec.structs.replace(event, text=write(event.text))
