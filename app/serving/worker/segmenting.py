"""Recognition with an engine that hears single sentences: the VAD finds their borders.

    audio ─► VAD, all streams at once ─► endpointer of each stream ─► its sentences, in order
                                                                         │ a slot of the engine
                                          audio of the open sentence ────┴─► step over all ─► text
                                                                                               │
            final text ◄── the whole sentence once more, or punctuation (refining.py) ◄────────┘

What an engine has of it, it says by its :class:`app.engines.base.RecognizerParts`. Without an
offline part the texts of the steps are the final ones, but for punctuation; without a streaming
part, and for files where there is an offline part, sentences are only heard whole.

A stream's audio is kept until the VAD and the steps are done with it; what they have not taken in
is not yet ``processed``, so the credit bounds it. The audio of a sentence that is heard whole is
kept until then; its length is limited, and so is the number of them that a stream may have on the
way. A sentence that finds no free slot of the engine waits for one, and its stream with it; silent
streams hold no slot, nor does a sentence after its last step.

The next sentence goes on while the one before it waits for its final text, but the client is told
of it only afterwards (``ordering.py``). Until then its audio is not ``processed``: whoever would
repeat the stream elsewhere has not heard of it yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

import numpy as np

from app.audio.endpoint import Endpointer, SpeechStarted, SpeechStopped
from app.audio.pcm import Float32, to_float
from app.core import metrics
from app.core.logs import log_ids
from app.core.speech import RecognitionOptions, SentenceBegan, SentenceChanged, SentenceEnded
from app.engines.base import Feed, Hypothesis, RecognizerParts, VoiceDetector
from app.serving.batcher import Batcher
from app.serving.scheduling import LatestStart
from app.serving.worker.ordering import SentenceOrder
from app.serving.worker.refining import SECOND_PASS_BUDGET_S, Refinement, Refiner
from app.serving.worker.sentences import SAMPLE_RATE, SegmentedStream, Sentence, to_ms
from app.serving.worker.stepper import Stepper
from app.serving.worker.tasks import RecognitionSink, client_error
from app.serving.worker.writing import Finish, finish, finished_texts, needs_punctuation

PREROLL_SAMPLES: Final = SAMPLE_RATE * 300 // 1000
"""Audio before the VAD's start that a sentence gets too: soft onsets come before it."""

_LOOK_BACK_SAMPLES: Final = 8 * 512
"""What the endpointer looks back at a start, at most: kept of a silent stream, with the pre-roll.
"""

_MAX_SAMPLES_PER_TICK: Final = SAMPLE_RATE
"""Of one stream: a stream that is far behind does not hold up the others' tick."""

_MAX_REFINING: Final = 4
"""Sentences of one stream whose final texts are on their way; the next one waits. It bounds the
audio that they keep (2 MB each at most)."""


@dataclass(slots=True)
class _Draft:
    """A stream's part of a step, besides its audio: how far its text was, what it needs."""

    raw: str
    shown: str
    needs: Finish
    wanted: bool  # or nobody looks at the text of this step


@dataclass(frozen=True, slots=True)
class _Heard:
    """The first pass' answer: its hypothesis, and the text with what can be added at once."""

    hypothesis: Hypothesis
    shown: str


class SegmentingRecognition:
    """All streams of one engine.

    ``vad``: the engine's detector, or the server's own. ``second_pass_budget_s``: see
    :class:`Refiner`, as ``yields``.
    """

    def __init__(
        self,
        parts: RecognizerParts,
        vad: VoiceDetector,
        tick_s: float,
        *,
        second_pass_budget_s: float = SECOND_PASS_BUDGET_S,
        yields: bool = True,
    ) -> None:
        capabilities = parts.capabilities
        _check(parts)
        self.parts = parts
        self.engine = parts.streaming
        self.vad = vad
        self._window = self.vad.window_samples
        self._step_samples = SAMPLE_RATE * capabilities.step_ms // 1000
        self._free_slots = capabilities.max_sentences
        self._wait_for_slot: dict[SegmentedStream, None] = {}
        self._wait_for_room: dict[SegmentedStream, None] = {}
        self._listening: set[SegmentedStream] = set()
        self._stepping: set[SegmentedStream] = set()
        self.listener: Stepper[SegmentedStream] = Stepper(
            Batcher(None, tick_s), self._listen, "vad"
        )
        self.stepper: Stepper[SegmentedStream] = Stepper(
            LatestStart(capabilities.step_ms / 1000, capabilities.max_batch, tick_s),
            self._step,
            "recognise",
        )
        self.refiner = Refiner(
            parts.offline,
            parts.punctuator,
            budget_s=second_pass_budget_s,
            on_room=self._room,
            yields=yields,
        )

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.listener.run())
            group.create_task(self.stepper.run())
            group.create_task(self.refiner.run())

    def work(self) -> dict[Hashable, int]:
        """What is outstanding (``app/serving/control.py``): each stage by itself, because the
        others go on while one hangs."""
        return {**self.listener.work(), **self.stepper.work(), **self.refiner.work()}

    def open(
        self, options: RecognitionOptions, sink: RecognitionSink, log_id: str
    ) -> SegmentedStream:
        """Start a task."""
        offline, streaming = self.parts.offline, self.parts.streaming
        longest_ms = options.max_sentence_ms
        if offline is not None:
            longest_ms = min(longest_ms, int(offline.capabilities.max_segment_s * 1000))
        return SegmentedStream(
            self,
            options,
            sink,
            log_id,
            Endpointer(
                options.max_sentence_silence_ms,
                longest_ms,
                self._window,
                options.noise_threshold or 0.0,
            ),
            self.vad.new_state(),
            first_pass=streaming is not None and (options.live or offline is None),
            needs=Finish() if streaming is None else finish(options, streaming.capabilities),
            order=SentenceOrder(sink.recognized),
        )

    def audio_came(self, stream: SegmentedStream) -> None:
        """``stream`` has more audio, or its end."""
        if stream.closed or stream.flushed or stream in self._listening:
            return
        waiting = stream.total - stream.heard
        if stream.ended or waiting >= self._window:
            behind = waiting >= SAMPLE_RATE // 2
            self.listener.ready(stream, urgent=stream.ended or behind)

    def gone(self, stream: SegmentedStream) -> None:
        """``stream`` was cancelled."""
        self._forget(stream)
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

    def _windows(self, stream: SegmentedStream) -> Float32:
        """The VAD windows that wait, shape (n, window); at the end the last one is filled up."""
        window, waiting = self._window, stream.total - stream.heard
        most = max(_MAX_SAMPLES_PER_TICK // window, 1)
        count = min(waiting // window, most)
        whole = stream.heard + count * window
        samples = to_float(stream.slice(stream.heard, whole))
        if stream.ended and count < most and waiting % window:
            last = np.zeros(window, dtype=np.float32)
            rest = to_float(stream.slice(whole, stream.total))
            last[: len(rest)] = rest
            samples = np.concatenate([samples, last])
        return samples.reshape(-1, window)

    def _probabilities(self, states: list[object], windows: list[Float32]) -> list[list[float]]:
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
            stream.heard = min(stream.heard + self._window, stream.total)
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
            floor = max(stream.base, stream.given)
            feed_start = max(endpoint.sample - PREROLL_SAMPLES, floor)
            stream.sentences.append(Sentence(endpoint.sample, feed_start, feed_start))
        else:
            sentence = stream.sentences[-1]
            sentence.stop = endpoint.end_sample
            sentence.feed_stop = endpoint.end_sample if endpoint.cut else stream.heard
            stream.given = sentence.feed_stop
            why = "length" if endpoint.cut else "end" if stream.flushed else "silence"
            metrics.SENTENCES.labels(why).inc()
            metrics.SPEECH.inc((endpoint.end_sample - endpoint.start_sample) / SAMPLE_RATE)

    # Second stage: the engine's first pass

    def _advance(self, stream: SegmentedStream) -> None:
        """Bring the stream's first sentence on, or finish the stream."""
        if stream.closed or stream in self._stepping:
            return
        self._tell_progress(stream)
        if not stream.sentences:
            if stream.flushed and not stream.order:
                stream.closed = True
                stream.sink.done()
            return
        sentence = stream.sentences[0]
        if sentence.place is None:
            sentence.place = stream.order.began(SentenceBegan(to_ms(sentence.start)))
        if len(stream.refining) >= _MAX_REFINING:
            return  # the first that is done brings it on
        if not stream.first_pass:
            self._collect(stream, sentence)
            return
        if sentence.handle is None and not self._take_slot(stream, sentence):
            return
        enough = stream.available(sentence) - sentence.fed >= self._step_samples
        if sentence.feed_stop is not None or enough:
            self.stepper.ready(stream, urgent=stream.ended)

    def _collect(self, stream: SegmentedStream, sentence: Sentence) -> None:
        """Keep the audio of a sentence without a first pass; when it is whole, hand it over."""
        end = stream.available(sentence)
        if sentence.feed_stop is None and end - sentence.fed < self._step_samples:
            return
        if end > sentence.fed:
            sentence.audio.append(stream.slice(sentence.fed, end).copy())
            sentence.fed = end
        if sentence.feed_stop is None:
            self._tell_progress(stream)
            return
        seconds = (sentence.fed - sentence.feed_start) / SAMPLE_RATE
        if not self.refiner.has_room(seconds, live=stream.options.live):
            self._wait_for_room.setdefault(stream)
            return
        stream.sentences.popleft()
        self._hand_over(stream, sentence, None)
        self._advance(stream)

    def _take_slot(self, stream: SegmentedStream, sentence: Sentence) -> bool:
        if self._free_slots == 0:
            self._wait_for_slot.setdefault(stream)
            return False
        assert self.engine is not None
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
        if self.engine is None or not stream.sentences or stream.sentences[0].handle is None:
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
        drafts = [_draft(stream, feed) for stream, feed in zip(streams, feeds, strict=True)]
        self._stepping.update(streams)
        answers: Sequence[_Heard | Exception]
        try:
            answers = cast(
                "list[_Heard | Exception]",
                await self.stepper.in_thread(self._recognise, feeds, drafts),
            )
        except asyncio.CancelledError:
            raise
        except Exception as error:
            answers = [error] * len(streams)
        self._stepping.clear()
        for stream, feed, answer in zip(streams, feeds, answers, strict=True):
            if isinstance(answer, Exception):
                self._fail(stream, answer, "recognition step")
            else:
                self._deliver(stream, feed, answer)

    def _recognise(self, feeds: list[Feed], drafts: list[_Draft]) -> list[_Heard | Exception]:
        """In the engine's thread: a step, and those of its texts that have changed as they are
        shown."""
        assert self.engine is not None
        found = self.engine.step(feeds)
        changed = [
            (draft, each)
            for draft, each in zip(drafts, found, strict=True)
            if not isinstance(each, Exception) and draft.wanted and each.text != draft.raw
        ]
        texts = finished_texts(
            [(each, draft.needs) for draft, each in changed], self.parts.partial_punctuator
        )
        for (draft, _), text in zip(changed, texts, strict=True):
            draft.shown = text
        return [
            each if isinstance(each, Exception) else _Heard(each, draft.shown)
            for draft, each in zip(drafts, found, strict=True)
        ]

    def _feed(self, stream: SegmentedStream) -> Feed:
        sentence = stream.sentences[0]
        stop = min(sentence.fed + self._step_samples, stream.available(sentence))
        samples = stream.slice(sentence.fed, stop)
        if self.parts.offline is not None:
            sentence.audio.append(samples.copy())
        sentence.fed = stop
        return Feed(sentence.handle, to_float(samples), last=stop == sentence.feed_stop)

    def _deliver(self, stream: SegmentedStream, feed: Feed, heard: _Heard) -> None:
        sentence = stream.sentences[0]
        if stream.closed:
            self._release(stream)
            return
        if not feed.last:
            self._changed(stream, sentence, heard)
            self._advance(stream)
            return
        self._release(stream)
        stream.sentences.popleft()
        self.stepper.discard(stream)  # until it speaks again, no step waits for it
        if self.parts.offline is not None or self._needs_punctuator(stream, heard.hypothesis):
            self._hand_over(stream, sentence, heard)
        else:
            self._ended(stream, sentence, replace(heard.hypothesis, text=heard.shown))
        self._advance(stream)

    @staticmethod
    def _changed(stream: SegmentedStream, sentence: Sentence, heard: _Heard) -> None:
        if not stream.options.partials:
            return
        sentence.raw, sentence.shown = heard.hypothesis.text, heard.shown
        if not heard.shown or heard.shown == sentence.told:
            return
        sentence.told = heard.shown
        words = sentence.placed(heard.hypothesis.words)
        assert sentence.place is not None
        stream.order.changed(
            sentence.place, SentenceChanged(heard.shown, to_ms(sentence.fed), words)
        )

    def _tell_progress(self, stream: SegmentedStream) -> None:
        position = stream.heard
        keep = stream.heard - PREROLL_SAMPLES - max(_LOOK_BACK_SAMPLES, 4 * self._window)
        if stream.sentences:
            position = min(position, stream.sentences[0].fed)
            keep = min(keep, stream.sentences[0].fed)
        stream.forget(max(keep, stream.base))
        held_from_ms = stream.order.held_from_ms
        if held_from_ms is not None:
            position = min(position, held_from_ms * SAMPLE_RATE // 1000)
        if position > stream.processed:
            stream.sink.processed(position - stream.processed)
            stream.processed = position

    # Third stage: the final text

    def _needs_punctuator(self, stream: SegmentedStream, found: Hypothesis) -> bool:
        return self.parts.punctuator is not None and needs_punctuation(found, stream.needs)

    def _hand_over(self, stream: SegmentedStream, sentence: Sentence, heard: _Heard | None) -> None:
        """A sentence is whole: on to its final text."""
        offline = self.parts.offline
        job = Refinement(
            stream.options,
            stream.log_id,
            lambda answer: self._settled(stream, sentence, job, answer),
            seconds=(sentence.fed - sentence.feed_start) / SAMPLE_RATE,
            first_needs=stream.needs,
        )
        if heard is not None:
            job.first = heard.hypothesis
            job.fallback = replace(heard.hypothesis, text=heard.shown)
        if offline is not None:
            job.samples = sentence.take_audio()
            job.second_needs = finish(stream.options, offline.capabilities)
        stream.refining.add(job)
        self.refiner.submit(job)

    def _settled(
        self,
        stream: SegmentedStream,
        sentence: Sentence,
        job: Refinement,
        answer: Hypothesis | Exception,
    ) -> None:
        stream.refining.discard(job)
        if stream.closed:
            return
        if isinstance(answer, Exception):
            self._fail(stream, answer, "second pass")
            return
        self._ended(stream, sentence, answer)
        self._advance(stream)

    @staticmethod
    def _ended(stream: SegmentedStream, sentence: Sentence, found: Hypothesis) -> None:
        assert sentence.stop is not None
        assert sentence.place is not None
        event = SentenceEnded(
            to_ms(sentence.start),
            to_ms(sentence.stop),
            found.text,
            sentence.placed(found.words),
            found.confidence,
            found.language,
            found.emotion,
            found.events,
        )
        stream.order.ended(sentence.place, event)

    def _room(self) -> None:
        """There may be room in the refiner."""
        waiting, self._wait_for_room = list(self._wait_for_room), {}
        for stream in waiting:
            self._advance(stream)

    # The end of a stream

    def _forget(self, stream: SegmentedStream) -> None:
        """Nothing more is done for a stream that has ended before its time."""
        self.listener.discard(stream)
        self.stepper.discard(stream)
        self._wait_for_slot.pop(stream, None)
        self._wait_for_room.pop(stream, None)
        for job in stream.refining:
            self.refiner.discard(job)
        stream.refining.clear()

    def _fail(self, stream: SegmentedStream, error: Exception, what: str) -> None:
        if stream not in self._stepping:  # else the step's end releases it
            self._release(stream)
        if not stream.closed:
            stream.closed = True
            self._forget(stream)
            stream.sink.failed(client_error(error, what, stream.log_id))


def _draft(stream: SegmentedStream, feed: Feed) -> _Draft:
    sentence = stream.sentences[0]
    return _Draft(
        sentence.raw, sentence.shown, stream.needs, wanted=feed.last or stream.options.partials
    )


def _check(parts: RecognizerParts) -> None:
    """Raises ValueError where the parts do not fit together: a fault of the engine's family."""
    if parts.streaming is None and parts.offline is None:
        raise ValueError("an engine needs a streaming part or an offline one")
    for part in (parts.streaming, parts.offline):
        if part is not None and part.capabilities.sample_rate != SAMPLE_RATE:
            raise ValueError("the VAD needs an engine at 16 kHz")
