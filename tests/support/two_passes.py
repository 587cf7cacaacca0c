"""An engine in parts whose texts can be computed: the first pass says ``first N``, the second
``second N``, N being the samples that it has heard."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import msgspec

from app.core.speech import RecognitionOptions, Word
from app.engines.base import (
    Feed,
    Hypothesis,
    OfflineCapabilities,
    OfflineRecognizer,
    Punctuator,
    RecognizerCapabilities,
    RecognizerParts,
    Segment,
)
from tests.support.gated import Gate

CAPABILITIES = RecognizerCapabilities(
    sample_rate=16_000,
    languages=("zh-CN",),
    step_ms=100,
    partials=True,
    word_times=True,
    own_endpointing=False,
    max_sessions=100,
    max_sentences=100,
)
OFFLINE = OfflineCapabilities(
    sample_rate=16_000, languages=("zh-CN",), word_times=True, max_batch_s=120.0
)


class _Open:
    def __init__(self) -> None:
        self.heard = 0


class FirstPass:
    """A SentenceRecognizer; ``text`` instead of its own, if given. ``most_open`` counts slots."""

    def __init__(
        self, text: str | None = None, capabilities: RecognizerCapabilities = CAPABILITIES
    ) -> None:
        self.capabilities = capabilities
        self.text = text
        self.open_now = 0
        self.opened = 0
        self.finished = False

    def open(self, options: RecognitionOptions) -> object:
        """A sentence."""
        self.open_now += 1
        self.opened += 1
        assert self.open_now <= self.capabilities.max_sentences
        return _Open()

    def step(self, batch: Sequence[Feed]) -> Sequence[Hypothesis | Exception]:
        """Count."""
        return [self._heard(feed) for feed in batch]

    def _heard(self, feed: Feed) -> Hypothesis:
        assert isinstance(feed.stream, _Open)
        feed.stream.heard += len(feed.samples)
        text = f"first {feed.stream.heard}" if self.text is None else self.text
        word = Word("first", 0, feed.stream.heard // 16)
        return Hypothesis(text, (word,), finished=self.finished)

    def close(self, stream: object) -> None:
        """Each is closed once."""
        self.open_now -= 1


class SecondPass:
    """An OfflineRecognizer. ``gate``: batches wait there; ``answer``: given instead of its own;
    ``batches``: what it was asked; ``niceness``: of its thread."""

    def __init__(
        self, gate: Gate | None = None, capabilities: OfflineCapabilities = OFFLINE
    ) -> None:
        self.capabilities = capabilities
        self.gate = gate
        self.answer: Hypothesis | Exception | None = None
        self.raises: Exception | None = None
        self.batches: list[list[Segment]] = []
        self.niceness: int | None = None

    def recognize(self, batch: Sequence[Segment]) -> Sequence[Hypothesis | Exception]:
        """Count."""
        self.batches.append(list(batch))
        self.niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        if self.gate is not None:
            self.gate.wait()
        if self.raises is not None:
            raise self.raises
        return [
            self.answer
            or Hypothesis(
                f"second {len(each.samples)}",
                (Word("second", 0, len(each.samples) // 16),),
                language="zh",
                emotion="happy",
                events=("laughter",),
            )
            for each in batch
        ]


class Marks:
    """A Punctuator that puts ``mark`` at the end; ``calls`` are what it was given."""

    def __init__(self, mark: str = "。", gate: Gate | None = None) -> None:
        self.mark = mark
        self.gate = gate
        self.calls: list[list[str]] = []
        self.broken = False

    def punctuate(self, texts: Sequence[str]) -> Sequence[str]:
        """Put it there."""
        self.calls.append(list(texts))
        if self.gate is not None:
            self.gate.wait()
        if self.broken:
            raise RuntimeError("broken")
        return [text + self.mark for text in texts]


def parts(
    first: FirstPass | None,
    second: OfflineRecognizer | None = None,
    *,
    punctuator: Punctuator | None = None,
    partial_punctuator: Punctuator | None = None,
    **changes: int,
) -> RecognizerParts:
    """An engine of these parts."""
    capabilities = first.capabilities if first is not None else CAPABILITIES
    whole = msgspec.structs.replace(capabilities, partials=first is not None, **changes)
    return RecognizerParts(whole, first, second, punctuator, partial_punctuator)
