"""What a stream's recognised text still needs before it goes out, where its engine lacks it.

Run it in the thread of the step, not on the event loop: it is text work of all streams of a step.
Words with times stay as they were spoken: each has its place in the audio, and the figures of a
number have none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import msgspec

from app.core.speech import RecognitionEvent, RecognitionOptions, SentenceBegan
from app.engines.base import Hypothesis, RecognizerCapabilities
from app.text.inverse import inverse_normalize

Writer = Callable[[str], str]
"""A sentence as it was spoken, to the same as it is written."""


def writer(options: RecognitionOptions, capabilities: RecognizerCapabilities) -> Writer | None:
    """How the sentences of a task are to be written, interim and final; None: as they come."""
    if not options.inverse_text_normalization or capabilities.inverse_text_normalization:
        return None
    return partial(inverse_normalize, language=options.language)


def written_hypothesis(
    write: Writer | None, found: Hypothesis | Exception
) -> Hypothesis | Exception:
    """A sentence recogniser's answer for one stream, with its text as it is written."""
    if write is None or isinstance(found, Exception):
        return found
    return replace(found, text=write(found.text))


def written_event(write: Writer | None, event: RecognitionEvent) -> RecognitionEvent:
    """An event of an engine that finds the sentences itself, with its text as it is written."""
    if write is None or isinstance(event, SentenceBegan):
        return event
    return msgspec.structs.replace(event, text=write(event.text))
