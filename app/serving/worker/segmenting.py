"""Recognition with an engine whose streams are single sentences: the VAD finds their borders.

    audio ─► VAD, all streams at once ─► endpointer of each stream ─► its sentences, in order
                                                                         │ a slot of the engine
                                          audio of the open sentence ────┴─► step over all ─► text

A stream's audio is kept until both stages are done with it. What neither has taken in is not yet
``processed``, so the credit bounds it. A sentence that finds no free slot of the engine waits for
one, and its stream with it; silent streams hold no slot.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import numpy as np

from app.audio.endpoint import Endpointer, SpeechStarted, SpeechStopped
from app.audio.pcm import Float32, Int16, to_float
from app.audio.vad import WINDOW_SAMPLES, SileroVad, VadState
from app.core import metrics
from app.core.logs import log_ids
from app.core.speech import (
    RecognitionOptions,
    SentenceBegan,
    SentenceChanged,
    SentenceEnded,
    Word,
)
from app.engines.base import Feed, Hypothesis, SentenceRecognizer
from app.serving.batcher import Batcher
from app.serving.worker.stepper import Stepper
from app.serving.worker.tasks import RecognitionSink, client_error
from app.serving.worker.writing import Writer, writer, written_hypothesis

SAMPLE_RATE: Final = 16_000
"""The VAD's rate; an engine of this kind has the same."""

PREROLL_SAMPLES: Final = SAMPLE_RATE * 300 // 1000
"""Audio before the VAD's start that a sentence gets too: soft onsets come before it."""

_KEPT_SAMPLES: Final = PREROLL_SAMPLES + 8 * WINDOW_SAMPLES
"""Kept of a silent stream: the pre-roll, and what the endpointer looks back at a start."""

_MAX_WINDOWS_PER_TICK: Final = 32
"""Of one stream: a stream that is far behind (1 s or more) does not hold up the others' tick."""


def _ms(samples: int) -> int:
    return samples * 1000 // SAMPLE_RATE


@dataclass(slots=True, eq=False)
class _Sentence:
    """A sentence that the VAD found. ``stop`` is None while it is open. ``fed`` is the position
    (samples since the start of the stream) up to which the engine has its audio."""

    start: int
    feed_start: int
    fed: int
    stop: int | None = None
    feed_stop: int | None = None
    handle: object | None = None
    began_sent: bool = False
    text: str = ""


@dataclass(slots=True, eq=False)
class SegmentedStream:
    """One task."""

    owner: SegmentingRecognition
    options: RecognitionOptions
    sink: RecognitionSink
    log_id: str
    endpointer: Endpointer
    write: Writer | None = None
    vad: VadState = field(default_factory=VadState)
    audio: list[Int16] = field(default_factory=list)
    base: int = 0  # position of the first kept sample
    total: int = 0  # position after the last sample that came
    heard: int = 0  # position up to which the VAD has listened
    processed: int = 0  # position that the sink was told
    sentences: deque[_Sentence] = field(default_factory=deque)
    ended: bool = False
    flushed: bool = False
    closed: bool = False

    def feed(self, samples: Int16) -> None:
        """More audio."""
        self.audio.append(samples)
        self.total += len(samples)
        self.owner.audio_came(self)

    def end(self) -> None:
        """No more audio."""
        self.ended = True
        self.owner.audio_came(self)

    def configure(self, max_sentence_silence_ms: int) -> None:
        """Change the end-of-sentence silence."""
        self.endpointer.configure(max_sentence_silence_ms)

    def cancel(self) -> None:
        """Forget the stream; its sink is called no more."""
        if not self.closed:
            self.closed = True
            self.owner.gone(self)

    def slice(self, start: int, stop: int) -> Int16:
        """The kept audio from ``start`` to ``stop``."""
        if len(self.audio) != 1:
            self.audio = [np.concatenate(self.audio)] if self.audio else []
        if not self.audio:
            return np.zeros(0, dtype=np.int16)
        return self.audio[0][start - self.base : stop - self.base]

    def forget(self, position: int) -> None:
        """Drop the audio before ``position``."""
        drop = position - self.base
        while drop > 0 and self.audio:
            first = self.audio[0]
            taken = min(drop, len(first))
            if taken == len(first):
                self.audio.pop(0)
            else:
                # A copy, so that the long block behind the slice is freed.
                self.audio[0] = first[taken:].copy()
            self.base += taken
            drop -= taken


class SegmentingRecognition:
    """All streams of one :class:`SentenceRecognizer`."""

    def __init__(self, engine: SentenceRecognizer, vad: SileroVad, tick_s: float) -> None:
        capabilities = engine.capabilities
        if capabilities.sample_rate != SAMPLE_RATE:
            raise ValueError("the VAD needs an engine at 16 kHz")
        self.engine = engine
        self.vad = vad
        self._step_samples = SAMPLE_RATE * capabilities.step_ms // 1000
        self._free_slots = capabilities.max_sentences
        self._wait_for_slot: dict[SegmentedStream, None] = {}
        self._listening: set[SegmentedStream] = set()
        self._stepping: set[SegmentedStream] = set()
        self.listener: Stepper[SegmentedStream] = Stepper(
            Batcher(None, tick_s), self._listen, "vad"
        )
        self.stepper: Stepper[SegmentedStream] = Stepper(
            Batcher(capabilities.max_batch, tick_s), self._step, "recognise"
        )

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.listener.run())
            group.create_task(self.stepper.run())

    def work(self) -> dict[Hashable, int]:
        """What is outstanding (``app/serving/control.py``): each stage by itself, because the VAD
        goes on while the engine hangs."""
        return {**self.listener.work(), **self.stepper.work()}

    def open(
        self, options: RecognitionOptions, sink: RecognitionSink, log_id: str
    ) -> SegmentedStream:
        """Start a task."""
        endpointer = Endpointer(options.max_sentence_silence_ms, options.max_sentence_ms)
        write = writer(options, self.engine.capabilities)
        return SegmentedStream(self, options, sink, log_id, endpointer, write)

    def audio_came(self, stream: SegmentedStream) -> None:
        """``stream`` has more audio, or its end."""
        if stream.closed or stream.flushed or stream in self._listening:
            return
        waiting = stream.total - stream.heard
        if stream.ended or waiting >= WINDOW_SAMPLES:
            behind = waiting >= SAMPLE_RATE // 2
            self.listener.ready(stream, urgent=stream.ended or behind)

    def gone(self, stream: SegmentedStream) -> None:
        """``stream`` was cancelled."""
        self.listener.discard(stream)
        self.stepper.discard(stream)
        self._wait_for_slot.pop(stream, None)
        if stream not in self._stepping:
            self._release(stream)
        stream.audio.clear()

    # First stage: the VAD

    async def _listen(self, streams: list[SegmentedStream]) -> None:
        windows = [self._windows(stream) for stream in streams]
        states = [stream.vad for stream in streams]
        self._listening.update(streams)
        try:
            heard = cast(
                "list[list[float]]",
                await self.listener.in_thread(self._probabilities, states, windows),
            )
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._listening.clear()
            for stream in streams:
                self._fail(stream, error, "voice activity detection")
            return
        self._listening.clear()
        for stream, probabilities in zip(streams, heard, strict=True):
            if not stream.closed:
                self._endpoints(stream, probabilities)

    @staticmethod
    def _windows(stream: SegmentedStream) -> Float32:
        """The VAD windows that wait, shape (n, 512); at the end the last one is filled up."""
        waiting = stream.total - stream.heard
        count = min(waiting // WINDOW_SAMPLES, _MAX_WINDOWS_PER_TICK)
        samples = to_float(stream.slice(stream.heard, stream.heard + count * WINDOW_SAMPLES))
        if stream.ended and count < _MAX_WINDOWS_PER_TICK and waiting % WINDOW_SAMPLES:
            last = np.zeros(WINDOW_SAMPLES, dtype=np.float32)
            rest = to_float(stream.slice(stream.heard + count * WINDOW_SAMPLES, stream.total))
            last[: len(rest)] = rest
            samples = np.concatenate([samples, last])
        return samples.reshape(-1, WINDOW_SAMPLES)

    def _probabilities(self, states: list[VadState], windows: list[Float32]) -> list[list[float]]:
        """In the VAD's thread: the k-th windows of all streams in one call."""
        heard: list[list[float]] = [[] for _ in states]
        for k in range(max(len(each) for each in windows)):
            members = [i for i, each in enumerate(windows) if k < len(each)]
            batch = np.stack([windows[i][k] for i in members])
            probabilities = self.vad.probabilities([states[i] for i in members], batch)
            for i, probability in zip(members, probabilities.tolist(), strict=True):
                heard[i].append(probability)
        return heard

    def _endpoints(self, stream: SegmentedStream, probabilities: Sequence[float]) -> None:
        for probability in probabilities:
            stream.heard = min(stream.heard + WINDOW_SAMPLES, stream.total)
            for endpoint in stream.endpointer.feed(probability):
                self._note(stream, endpoint)
        if stream.ended and stream.heard == stream.total:
            stream.flushed = True
            for endpoint in stream.endpointer.flush(stream.total):
                self._note(stream, endpoint)
        self._advance(stream)
        self.audio_came(stream)

    @staticmethod
    def _note(stream: SegmentedStream, endpoint: SpeechStarted | SpeechStopped) -> None:
        if isinstance(endpoint, SpeechStarted):
            # Not before the last sentence's audio: words would be heard twice.
            earlier = stream.sentences[-1].feed_stop if stream.sentences else None
            floor = max(stream.base, earlier or 0)
            feed_start = max(endpoint.sample - PREROLL_SAMPLES, floor)
            stream.sentences.append(_Sentence(endpoint.sample, feed_start, feed_start))
        else:
            sentence = stream.sentences[-1]
            sentence.stop = endpoint.end_sample
            sentence.feed_stop = endpoint.end_sample if endpoint.cut else stream.heard
            why = "length" if endpoint.cut else "end" if stream.flushed else "silence"
            metrics.SENTENCES.labels(why).inc()
            metrics.SPEECH.inc((endpoint.end_sample - endpoint.start_sample) / SAMPLE_RATE)

    # Second stage: the engine

    def _advance(self, stream: SegmentedStream) -> None:
        """Bring the stream's first sentence on, or finish the stream."""
        if stream.closed or stream in self._stepping:
            return
        self._tell_progress(stream)
        if not stream.sentences:
            if stream.flushed:
                stream.closed = True
                stream.sink.done()
            return
        sentence = stream.sentences[0]
        if not sentence.began_sent:
            sentence.began_sent = True
            stream.sink.recognized(SentenceBegan(_ms(sentence.start)))
        if sentence.handle is None and not self._take_slot(stream, sentence):
            return
        end = stream.heard if sentence.feed_stop is None else sentence.feed_stop
        if sentence.feed_stop is not None or end - sentence.fed >= self._step_samples:
            behind = end - sentence.fed >= 2 * self._step_samples
            self.stepper.ready(stream, urgent=stream.ended or behind)

    def _take_slot(self, stream: SegmentedStream, sentence: _Sentence) -> bool:
        if self._free_slots == 0:
            self._wait_for_slot.setdefault(stream)
            return False
        try:
            with log_ids(task_id=stream.log_id):
                sentence.handle = self.engine.open(stream.options)
        except Exception as error:
            self._fail(stream, error, "opening a sentence")
            return False
        self._free_slots -= 1
        return True

    def _release(self, stream: SegmentedStream) -> None:
        """Give the slot of the stream's first sentence to whoever has waited longest."""
        if not stream.sentences or stream.sentences[0].handle is None:
            return
        handle, stream.sentences[0].handle = stream.sentences[0].handle, None
        self.engine.close(handle)
        self._free_slots += 1
        while self._free_slots and self._wait_for_slot:
            waiting = next(iter(self._wait_for_slot))
            del self._wait_for_slot[waiting]
            self._advance(waiting)

    async def _step(self, streams: list[SegmentedStream]) -> None:
        streams = [stream for stream in streams if not stream.closed]
        feeds = [self._feed(stream) for stream in streams]
        self._stepping.update(streams)
        try:
            writers = [stream.write for stream in streams]
            results = await self.stepper.in_thread(self._recognise, feeds, writers)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            results = [error] * len(streams)
        self._stepping.clear()
        answers = cast("Sequence[Hypothesis | Exception]", results)
        for stream, feed, answer in zip(streams, feeds, answers, strict=True):
            if isinstance(answer, Exception):
                self._fail(stream, answer, "recognition step")
            else:
                self._deliver(stream, feed, answer)

    def _recognise(
        self, feeds: list[Feed], writers: list[Writer | None]
    ) -> list[Hypothesis | Exception]:
        """In the engine's thread: a step, and its texts as they are written."""
        found = self.engine.step(feeds)
        return [written_hypothesis(write, each) for write, each in zip(writers, found, strict=True)]

    def _feed(self, stream: SegmentedStream) -> Feed:
        sentence = stream.sentences[0]
        end = stream.heard if sentence.feed_stop is None else sentence.feed_stop
        stop = min(sentence.fed + self._step_samples, end)
        samples = to_float(stream.slice(sentence.fed, stop))
        sentence.fed = stop
        return Feed(sentence.handle, samples, last=stop == sentence.feed_stop)

    def _deliver(self, stream: SegmentedStream, feed: Feed, hypothesis: Hypothesis) -> None:
        sentence = stream.sentences[0]
        if stream.closed:
            self._release(stream)
            return
        words = _placed(hypothesis.words, sentence)
        if not feed.last:
            if stream.options.partials and hypothesis.text and hypothesis.text != sentence.text:
                sentence.text = hypothesis.text
                stream.sink.recognized(SentenceChanged(hypothesis.text, _ms(sentence.fed), words))
            self._advance(stream)
            return
        assert sentence.stop is not None
        ended = SentenceEnded(
            _ms(sentence.start), _ms(sentence.stop), hypothesis.text, words, hypothesis.confidence
        )
        stream.sink.recognized(ended)
        self._release(stream)
        stream.sentences.popleft()
        self._advance(stream)

    def _tell_progress(self, stream: SegmentedStream) -> None:
        position = stream.heard
        keep = stream.heard - _KEPT_SAMPLES
        if stream.sentences:
            position = min(position, stream.sentences[0].fed)
            keep = min(keep, stream.sentences[0].fed)
        stream.forget(max(keep, stream.base))
        if position > stream.processed:
            stream.sink.processed(position - stream.processed)
            stream.processed = position

    def _fail(self, stream: SegmentedStream, error: Exception, what: str) -> None:
        if stream not in self._stepping:  # else the step's end releases it
            self._release(stream)
        if not stream.closed:
            stream.closed = True
            self.listener.discard(stream)
            self.stepper.discard(stream)
            self._wait_for_slot.pop(stream, None)
            stream.sink.failed(client_error(error, what, stream.log_id))


def _placed(words: Sequence[Word], sentence: _Sentence) -> tuple[Word, ...]:
    """The words in the task's time, inside their sentence: the engine heard the pre-roll too, and
    may put the beginning of a word there."""
    first = _ms(sentence.start)
    last = _ms(sentence.fed if sentence.stop is None else sentence.stop)
    offset = _ms(sentence.feed_start)

    def inside(ms: int) -> int:
        return min(max(ms + offset, first), last)

    return tuple(Word(word.text, inside(word.start_ms), inside(word.end_ms)) for word in words)
