"""The fake recogniser: the text of a sentence is how long its sound lasted.

``heard N ms``: N goes from the first to the last loud 10 ms of the sentence, so a lost, repeated
or swapped piece of audio changes the text. With hotwords it says that it knows them: ``heard N ms,
knowing A B``. With a script it says that instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from app.core.speech import (
    RecognitionEvent,
    RecognitionOptions,
    SentenceBegan,
    SentenceChanged,
    SentenceEnded,
    Word,
)
from app.engines.base import Feed, RecognizerCapabilities
from app.engines.fake.endpointing import (
    BLOCK_MS,
    SAMPLE_RATE,
    LoudBlocks,
    Sentence,
    SentenceTracker,
)
from app.engines.fake.options import FakeOptions
from app.engines.fake.script import ScriptedSentence

_MAX_STREAMS = 1000


class _Stream:
    """One task: its blocks, its sentences, and what is said about them."""

    def __init__(self, options: RecognitionOptions, script: Sequence[ScriptedSentence]) -> None:
        self._options = options
        self._script = script
        self._blocks = LoudBlocks()
        self._sentences = SentenceTracker(options.max_sentence_silence_ms, options.max_sentence_ms)
        self.configure = self._sentences.set_silence
        known = " ".join(word for word, weight in options.hotwords if weight > 0)
        self._knowing = f", knowing {known}" if known else ""

    def feed(self, feed: Feed) -> list[RecognitionEvent]:
        """The events that this part of the audio brings."""
        events: list[RecognitionEvent] = []
        for start_ms in self._blocks.feed(feed.samples):
            self._loud(start_ms, start_ms + BLOCK_MS, events)
        if feed.last:
            rest = self._blocks.flush()
            if rest is not None:
                self._loud(*rest, events)
        position_ms = self._blocks.position_ms
        over = self._sentences.finish() if feed.last else self._sentences.due(position_ms)
        if over is not None:
            events.append(self._ended(over))
        elif self._options.partials and self._sentences.open is not None:
            events += self._changed(self._sentences.open, position_ms)
        return events

    def _loud(self, start_ms: int, end_ms: int, events: list[RecognitionEvent]) -> None:
        over = self._sentences.due(start_ms)
        if over is not None:
            events.append(self._ended(over))
        if self._sentences.loud(start_ms, end_ms):
            events.append(SentenceBegan(start_ms=start_ms))

    def _changed(self, sentence: Sentence, position_ms: int) -> list[RecognitionEvent]:
        heard_ms = position_ms - sentence.start_ms
        scripted = self._scripted(sentence)
        text = self._heard(sentence) if scripted is None else scripted.text_after(heard_ms)
        if not text:
            return []
        words = self._words(sentence, heard_ms)
        return [SentenceChanged(text=text, end_ms=sentence.end_ms, words=words)]

    def _ended(self, sentence: Sentence) -> SentenceEnded:
        scripted = self._scripted(sentence)
        return SentenceEnded(
            start_ms=sentence.start_ms,
            end_ms=sentence.end_ms,
            text=self._heard(sentence) if scripted is None else scripted.text,
            words=self._words(sentence, None),
        )

    def _words(self, sentence: Sentence, heard_ms: int | None) -> tuple[Word, ...]:
        if not self._options.words:
            return ()
        scripted = self._scripted(sentence)
        if scripted is not None:
            return scripted.words_after(heard_ms, sentence.start_ms)
        return (Word(self._heard(sentence), sentence.start_ms, sentence.end_ms),)

    def _heard(self, sentence: Sentence) -> str:
        return f"heard {sentence.length_ms} ms{self._knowing}"

    def _scripted(self, sentence: Sentence) -> ScriptedSentence | None:
        return self._script[sentence.number % len(self._script)] if self._script else None


class FakeRecognizer:
    """An :class:`app.engines.base.EndpointingRecognizer` of known cost.

    A caller's mistake (too many streams, too large a batch, a stream fed after its end) raises
    RuntimeError instead of being carried: the server is tested on this engine.

    ``sleep`` takes seconds; it is what a step costs.
    """

    def __init__(
        self,
        options: FakeOptions,
        script: Sequence[ScriptedSentence] = (),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._options = options
        self._script = tuple(script)
        self._sleep = sleep
        self._streams: set[_Stream] = set()
        self._capabilities = RecognizerCapabilities(
            sample_rate=SAMPLE_RATE,
            languages=("zh-CN", "en-US"),
            step_ms=200,
            partials=True,
            word_times=True,
            own_endpointing=True,
            hotwords=True,
            max_sessions=_MAX_STREAMS,
            max_sentences=_MAX_STREAMS,
            max_batch=options.asr_batch,
            notice="for tests: tells how long it heard sound, recognises nothing",
        )

    @property
    def capabilities(self) -> RecognizerCapabilities:
        """Constant for the life of the object."""
        return self._capabilities

    def open(self, options: RecognitionOptions) -> object:
        """A new stream, for a whole task."""
        if len(self._streams) >= _MAX_STREAMS:
            raise RuntimeError("more streams than max_sessions")
        stream = _Stream(options, self._script)
        self._streams.add(stream)
        return stream

    def step(self, batch: Sequence[Feed]) -> list[list[RecognitionEvent]]:
        """Spend the step's cost, and tell what each stream's audio brought."""
        if self._options.asr_batch is not None and len(batch) > self._options.asr_batch:
            raise RuntimeError("more streams in a step than max_batch")
        cost_ms = self._options.asr_delay_ms + len(batch) * self._options.asr_item_ms
        if cost_ms:
            self._sleep(cost_ms / 1000)
        return [self._feed(feed) for feed in batch]

    def configure(self, stream: object, max_sentence_silence_ms: int) -> None:
        """Change the end-of-sentence silence of a running stream."""
        self._running(stream).configure(max_sentence_silence_ms)

    def close(self, stream: object) -> None:
        """Forget the stream, if it is still there."""
        if isinstance(stream, _Stream):
            self._streams.discard(stream)

    def _feed(self, feed: Feed) -> list[RecognitionEvent]:
        stream = self._running(feed.stream)
        if feed.last:
            self._streams.discard(stream)
        return stream.feed(feed)

    def _running(self, stream: object) -> _Stream:
        if not isinstance(stream, _Stream) or stream not in self._streams:
            raise RuntimeError("the stream is closed")
        return stream
