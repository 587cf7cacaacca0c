"""What FlashRecognizer and recording-file transcription are both asked for: which channels are
heard, and how sentences are cut (nls-protocol.md 6.3, 6.5)."""

from __future__ import annotations

from typing import Final, Literal

from app.core.errors import InvalidRequest
from app.nls.parameters import Values, boolean, given, integer, string

Channels = Literal["mixed", "first", "each"]
"""All mixed, the first alone, or each by itself."""

TELEPHONE_RATE: Final = 8_000
"""Hz. What is called so is a call, with a speaker in each channel."""

MIN_SENTENCE_CHARS, MAX_SENTENCE_CHARS = 4, 50

MAX_MARKS: Final = 64
"""Of ``punctuation_mark``; there are not so many."""


def channels(values: Values, sample_rate: int) -> Channels:
    """As ``first_channel_only`` says; else each of a call, at ``sample_rate`` (Hz), and all mixed
    of everything else. Raises InvalidRequest."""
    if given(values, "first_channel_only"):
        return "first" if boolean(values, "first_channel_only", False) else "each"
    return "each" if sample_rate == TELEPHONE_RATE else "mixed"


def punctuation_marks(values: Values) -> str:
    """Behind which sentences end besides. Raises InvalidRequest."""
    marks = string(values, "punctuation_mark", "")
    if len(marks) > MAX_MARKS:
        raise InvalidRequest(f"Invalid punctuation_mark: at most {MAX_MARKS} are accepted!")
    return marks


def sentence_max_length(values: Values) -> int | None:
    """In characters, clamped to 4 to 50; None: any. Raises InvalidRequest."""
    if not given(values, "sentence_max_length"):
        return None
    asked = integer(values, "sentence_max_length", MAX_SENTENCE_CHARS)
    return min(max(asked, MIN_SENTENCE_CHARS), MAX_SENTENCE_CHARS)
