"""Sentences whose audio came at 8 kHz, to a model that was trained on such audio.

Everything here is at 16 kHz, whatever the client sends. What came at 8 kHz has nothing above 4 kHz,
which a model for 16 kHz seldom met in its training; it is taken back to 8 kHz for the other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import soxr  # type: ignore[import-untyped]  # the package has no py.typed marker

from app.engines.base import Hypothesis, OfflineCapabilities, OfflineRecognizer, Segment

NARROW_RATE: Final = 8_000
"""Hz of the model for such audio, and the highest rate of a source that is such audio."""


class NarrowbandRouter:
    """An :class:`app.engines.base.OfflineRecognizer` at 16 kHz over two others: ``narrow``, at
    8 kHz, hears what came at 8 kHz or less, and ``wide``, at 16 kHz, everything else."""

    def __init__(self, wide: OfflineRecognizer, narrow: OfflineRecognizer) -> None:
        self._wide = wide
        self._narrow = narrow
        self._capabilities = _common(wide.capabilities, narrow.capabilities)

    @property
    def capabilities(self) -> OfflineCapabilities:
        """Constant for the life of the object. What only one of the two adds to its texts, the
        caller adds to those of the other: it is not among them."""
        return self._capabilities

    def recognize(self, batch: Sequence[Segment]) -> Sequence[Hypothesis | Exception]:
        """Each segment's hypothesis, in order, from the model for its source. Times are the same
        for both: they are in milliseconds."""
        is_narrow = [each.options.source_rate <= NARROW_RATE for each in batch]
        wide = [each for each, narrow in zip(batch, is_narrow, strict=True) if not narrow]
        narrowed = [
            self._narrowed(each) for each, narrow in zip(batch, is_narrow, strict=True) if narrow
        ]
        answers = {
            False: iter(self._wide.recognize(wide) if wide else ()),
            True: iter(self._narrow.recognize(narrowed) if narrowed else ()),
        }
        return [next(answers[narrow]) for narrow in is_narrow]

    def _narrowed(self, segment: Segment) -> Segment:
        """At 8 kHz. A sample that is no number remains one, which the model refuses."""
        rate = self._capabilities.sample_rate
        narrow = soxr.resample(segment.samples, rate, NARROW_RATE)
        # Rounded up it could be a millisecond longer than the sentence, and so could its words.
        return Segment(narrow[: segment.samples.size * NARROW_RATE // rate], segment.options)


def _common(wide: OfflineCapabilities, narrow: OfflineCapabilities) -> OfflineCapabilities:
    return msgspec.structs.replace(
        wide,
        languages=tuple(dict.fromkeys(wide.languages + narrow.languages)),
        word_times=wide.word_times and narrow.word_times,
        max_batch_s=min(wide.max_batch_s, narrow.max_batch_s),
        max_segment_s=min(wide.max_segment_s, narrow.max_segment_s),
        hotwords=wide.hotwords or narrow.hotwords,
        punctuation=wide.punctuation and narrow.punctuation,
        inverse_text_normalization=(
            wide.inverse_text_normalization and narrow.inverse_text_normalization
        ),
        confidence=wide.confidence and narrow.confidence,
        tags=wide.tags or narrow.tags,
    )
