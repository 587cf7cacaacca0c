"""When each character of a sentence is heard, as far as the engine tells."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from app.core.speech import Mark, Subtitle


def subtitles(
    text: str, marks: Iterable[Mark], speed: float, begin_ms: int, end_ms: int
) -> tuple[Subtitle, ...]:
    """One for each mark of a sentence that is heard from ``begin_ms`` to ``end_ms`` of the task's
    audio, in the order of the text. ``speed``: by which the engine's audio was sped up after the
    marks were made.

    A mark holds until the next one, or to the end of the sentence. White space and punctuation
    behind what it marks are left out of the text, unless they are all that it marks.
    """
    starts = _ascending(marks, len(text))
    if not starts:
        return ()
    times = [min(begin_ms + round(mark.start_ms / speed), end_ms) for mark in starts]
    indexes = [mark.index for mark in starts]
    return tuple(
        Subtitle(text[first:last], from_ms, until_ms, first, last)
        for (first, last), (from_ms, until_ms) in zip(
            (_trimmed(text, *borders) for borders in pairwise([*indexes, len(text)])),
            pairwise([*times, end_ms]),
            strict=True,
        )
    )


def _ascending(marks: Iterable[Mark], length: int) -> list[Mark]:
    """The marks that lie inside the text and whose places and times both ascend: after the death of
    a worker they come from two attempts, which need not agree."""
    found: list[Mark] = []
    for mark in marks:
        last = found[-1] if found else Mark(-1, 0)
        if last.index < mark.index < length and mark.start_ms >= last.start_ms:
            found.append(mark)
    return found


def _trimmed(text: str, first: int, last: int) -> tuple[int, int]:
    end = last
    while end > first and not text[end - 1].isalnum():
        end -= 1
    return first, end if end > first else last
