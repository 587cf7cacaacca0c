"""Recognition with our endpointing: a recogniser that returns the very audio it was given, and a
VAD that hears whatever is loud, so that lost, doubled or misplaced audio shows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import numpy as np
import pytest

from app.audio.pcm import Float32
from app.core.errors import EngineFailed, SpeechError
from app.core.speech import (
    RecognitionEvent,
    RecognitionOptions,
    SentenceBegan,
    SentenceChanged,
    SentenceEnded,
    Word,
)
from app.engines.base import Feed, Hypothesis, RecognizerCapabilities
from app.serving.worker.segmenting import PREROLL_SAMPLES, SegmentingRecognition
from app.serving.worker.sentences import SegmentedStream
from tests.support.loud_vad import LoudVad, parts_of
from tests.support.sound import Int16, joined, silence, tone


class Sentence:
    def __init__(self) -> None:
        self.audio: list[Float32] = []
        self.closed = False


class Recorder:
    """A SentenceRecognizer that keeps all audio; its text tells how many samples it has."""

    def __init__(self, max_sentences: int = 4, fail_on: int | None = None) -> None:
        self.capabilities = RecognizerCapabilities(
            sample_rate=16_000,
            languages=("en-US",),
            step_ms=100,
            partials=True,
            word_times=False,
            own_endpointing=False,
            max_sessions=100,
            max_sentences=max_sentences,
        )
        self.sentences: list[Sentence] = []
        self.open_now = 0
        self.most_open = 0
        self.steps = 0
        self.broken: Sentence | None = None
        self._fail_on = fail_on

    def open(self, options: RecognitionOptions) -> Sentence:
        self.sentences.append(Sentence())
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        return self.sentences[-1]

    def step(self, batch: Sequence[Feed]) -> Sequence[Hypothesis | Exception]:
        self.steps += 1
        if self.steps == self._fail_on:
            raise RuntimeError("broken")
        results: list[Hypothesis | Exception] = []
        for feed in batch:
            sentence = cast(Sentence, feed.stream)
            if sentence is self.broken:
                results.append(RuntimeError("broken"))
                continue
            assert not sentence.closed
            assert len(feed.samples) == 1600 or feed.last
            sentence.audio.append(feed.samples)
            heard = sum(map(len, sentence.audio))
            word = Word("all", 0, heard // 16)
            results.append(Hypothesis(f"{heard}", (word,)))
        return results

    def close(self, stream: object) -> None:
        sentence = cast(Sentence, stream)
        if not sentence.closed:
            sentence.closed = True
            self.open_now -= 1


class Sink:
    """Keeps what a task reports."""

    def __init__(self) -> None:
        self.events: list[RecognitionEvent] = []
        self.samples = 0
        self.error: SpeechError | None = None
        self.over = asyncio.Event()

    def recognized(self, event: RecognitionEvent) -> None:
        self.events.append(event)

    def processed(self, samples: int) -> None:
        self.samples += samples

    def done(self) -> None:
        assert not self.over.is_set()
        self.over.set()

    def failed(self, error: SpeechError) -> None:
        assert not self.over.is_set()
        self.error = error
        self.over.set()


@asynccontextmanager
async def service(
    engine: Recorder, vad: LoudVad | None = None
) -> AsyncIterator[SegmentingRecognition]:
    recognition = SegmentingRecognition(parts_of(engine), vad or LoudVad(), tick_s=0.0)
    running = asyncio.create_task(recognition.run())
    yield recognition
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def start(recognition: SegmentingRecognition, **options: float) -> tuple[SegmentedStream, Sink]:
    sink = Sink()
    return recognition.open(RecognitionOptions(**options), sink, "test"), sink  # type: ignore[arg-type]  # numbers


async def recognise(recognition: SegmentingRecognition, audio: Int16, frame: int) -> Sink:
    stream, sink = start(recognition)
    for position in range(0, len(audio), frame):
        stream.feed(audio[position : position + frame])
        if position % 5 == 0:
            await asyncio.sleep(0)
    stream.end()
    await sink.over.wait()
    return sink


def heard(engine: Recorder) -> list[Int16]:
    return [
        np.rint(np.concatenate(sentence.audio) * 32768).astype(np.int16)
        for sentence in engine.sentences
    ]


@pytest.mark.parametrize("frame", [160, 511, 1600, 50_000])
async def test_a_sentence_gets_its_audio_with_pre_roll_whatever_the_framing(frame: int) -> None:
    audio = joined(silence(1000), tone(1000), silence(1500), tone(500), silence(1000))
    engine = Recorder()
    async with service(engine) as recognition:
        sink = await recognise(recognition, audio, frame)
    began = [event for event in sink.events if isinstance(event, SentenceBegan)]
    ended = [event for event in sink.events if isinstance(event, SentenceEnded)]
    assert len(began) == len(ended) == 2
    assert sink.samples == len(audio)
    for event, given in zip(ended, heard(engine), strict=True):
        first = event.start_ms * 16 - PREROLL_SAMPLES
        assert np.array_equal(given, audio[first : first + len(given)])
        loud = np.flatnonzero(np.abs(audio) > 3000)
        inside = loud[(loud >= first) & (loud < first + len(given))]
        assert inside.size  # and nothing of the tone is outside:
        assert event.start_ms * 16 <= inside[0]
        assert inside[-1] <= event.end_ms * 16 <= first + len(given)


async def test_the_framing_does_not_change_the_events() -> None:
    audio = joined(silence(300), tone(900), silence(1200), tone(400), silence(900))
    finals = []
    for frame in (160, 3_000, 50_000):
        async with service(Recorder()) as recognition:
            sink = await recognise(recognition, audio, frame)
        finals.append([each for each in sink.events if not isinstance(each, SentenceChanged)])
    assert finals[0] == finals[1] == finals[2]


async def test_stop_ends_an_open_sentence_with_all_of_its_audio() -> None:
    audio = tone(250)
    engine = Recorder()
    async with service(engine) as recognition:
        sink = await recognise(recognition, audio, 777)
    (end,) = [event for event in sink.events if isinstance(event, SentenceEnded)]
    assert (end.start_ms, end.end_ms) == (0, 250)
    assert np.array_equal(heard(engine)[0], audio)


async def test_a_long_sentence_is_cut_without_losing_or_doubling_audio() -> None:
    audio = joined(tone(5000), silence(1000))
    engine = Recorder()
    async with service(engine) as recognition:
        stream, sink = start(recognition, max_sentence_ms=1000)
        stream.feed(audio)
        stream.end()
        await sink.over.wait()
    parts = heard(engine)
    assert len(parts) >= 5
    assert np.array_equal(np.concatenate(parts), audio[: sum(map(len, parts))])


async def test_silence_opens_nothing_and_is_all_processed() -> None:
    engine = Recorder()
    async with service(engine) as recognition:
        sink = await recognise(recognition, silence(3000), 1600)
    assert (sink.events, engine.sentences, sink.samples) == ([], [], 48_000)


class Doubtful(LoudVad):
    """Loud audio is speech with a probability of 0.6."""

    def probabilities(self, states: Sequence[object], windows: Float32) -> Float32:
        return super().probabilities(states, windows) * np.float32(0.6)


@pytest.mark.parametrize(("threshold", "sentences"), [(None, 1), (0.2, 1), (0.3, 0), (-1.0, 1)])
async def test_the_noise_threshold_of_the_task_decides(
    threshold: float | None, sentences: int
) -> None:
    engine = Recorder()
    async with service(engine, Doubtful()) as recognition:
        options = {} if threshold is None else {"noise_threshold": threshold}
        stream, sink = start(recognition, **options)
        stream.feed(tone(1_000))
        stream.end()
        await sink.over.wait()
    assert len(engine.sentences) == sentences


async def test_a_sentence_without_a_free_slot_waits_and_its_audio_is_not_processed() -> None:
    engine = Recorder(max_sentences=1)
    async with service(engine) as recognition:
        first, first_sink = start(recognition)
        first.feed(tone(1000))
        while not first_sink.events:  # noqa: ASYNC110 - the service has no event for it
            await asyncio.sleep(0.001)
        second, second_sink = start(recognition)
        third, third_sink = start(recognition)
        for stream in (second, third):
            stream.feed(joined(tone(1000), silence(1000)))
            stream.end()
        while second.heard < second.total:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)
        assert second_sink.samples < 16_000
        assert not any(isinstance(event, SentenceEnded) for event in second_sink.events)
        first.end()
        for sink in (first_sink, second_sink, third_sink):
            await sink.over.wait()
            assert isinstance(sink.events[-1], SentenceEnded)
    assert engine.most_open == 1
    assert engine.open_now == 0
    assert second_sink.samples == 32_000


async def test_cancelling_frees_the_slot_and_silences_the_sink() -> None:
    engine = Recorder(max_sentences=1)
    async with service(engine) as recognition:
        first, first_sink = start(recognition)
        first.feed(tone(1000))
        while not first_sink.events:  # noqa: ASYNC110 - the service has no event for it
            await asyncio.sleep(0.001)
        second, second_sink = start(recognition)
        second.feed(tone(1000))
        second.end()
        first.cancel()
        count = len(first_sink.events)
        await second_sink.over.wait()
        assert len(first_sink.events) == count
        assert not first_sink.over.is_set()
        while recognition.work():  # noqa: ASYNC110 - the service has no event for it
            await asyncio.sleep(0.001)
        # Nothing is due any more, without the end of the service having seen to it.
        assert engine.open_now == 0
        assert len(first_sink.events) == count


async def test_a_failing_step_fails_its_members_and_later_tasks_work() -> None:
    engine = Recorder(fail_on=1)
    async with service(engine) as recognition:
        sink = await recognise(recognition, tone(1000), 1600)
        assert isinstance(sink.error, EngineFailed)
        assert sink.error.text == EngineFailed.default_text
        again = await recognise(recognition, tone(1000), 1600)
    assert again.error is None
    assert isinstance(again.events[-1], SentenceEnded)
    assert engine.open_now == 0


async def test_a_stream_that_fails_in_a_step_fails_alone() -> None:
    engine = Recorder()
    async with service(engine) as recognition:
        (bad, bad_sink), (well, well_sink) = start(recognition), start(recognition)
        bad.feed(tone(500))
        while not engine.sentences:  # noqa: ASYNC110 - the service has no event for it
            await asyncio.sleep(0.001)
        engine.broken = engine.sentences[0]
        for stream in (well, bad):
            stream.feed(tone(1000))
            stream.end()
        await bad_sink.over.wait()
        await well_sink.over.wait()
    assert isinstance(bad_sink.error, EngineFailed)
    assert well_sink.error is None
    assert engine.open_now == 0


async def test_words_lie_inside_their_sentence() -> None:
    async with service(Recorder()) as recognition:
        sink = await recognise(recognition, joined(silence(1000), tone(500), silence(1000)), 1600)
    for event in sink.events:
        if isinstance(event, SentenceEnded):
            (word,) = event.words  # as long as the audio that the engine heard
            assert (word.start_ms, word.end_ms) == (event.start_ms, event.end_ms)


async def test_twenty_streams_share_vad_calls_and_steps() -> None:
    engine = Recorder(max_sentences=20)
    audio = joined(tone(1000), silence(1000))
    async with service(engine) as recognition:
        sinks = await asyncio.gather(*(recognise(recognition, audio, 1600) for _ in range(20)))
        windows = 20 * -(-len(audio) // 512)
        assert cast(LoudVad, recognition.vad).calls < windows / 2
    assert all(isinstance(sink.events[-1], SentenceEnded) for sink in sinks)
    assert engine.steps < 20 * 18 / 2


class Hanging(Recorder):
    """Its steps wait for ``go_on``."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def step(self, batch: Sequence[Feed]) -> Sequence[Hypothesis | Exception]:
        assert self.go_on.wait(30)
        return super().step(batch)


async def test_a_hanging_engine_shows_in_the_work_although_the_vad_goes_on() -> None:
    engine = Hanging()
    async with service(engine) as recognition:
        assert recognition.work() == {}
        stream, sink = start(recognition)
        stream.feed(tone(500))
        while "recognise" not in recognition.work():  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.001)
        listened = recognition.listener.steps
        for _ in range(5):
            stream.feed(tone(100))
            while recognition.listener.work():  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.001)
        assert recognition.listener.steps > listened
        assert recognition.work() == {"recognise": 1}
        engine.go_on.set()
        stream.end()
        await sink.over.wait()
        assert recognition.stepper.steps > 1
