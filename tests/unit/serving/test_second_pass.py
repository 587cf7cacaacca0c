"""The second pass in the worker: whose text goes out, in which order, and what nobody waits for.

Deadlines: a budget of an hour is never reached, and one of nothing is reached after a tenth of the
sentence's length; a test waits for what must happen, never for time to pass.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs

from app.audio.vad import SileroVad
from app.core import metrics
from app.core.errors import EngineFailed, SpeechError
from app.core.speech import (
    RecognitionEvent,
    RecognitionOptions,
    SentenceBegan,
    SentenceChanged,
    SentenceEnded,
    Word,
)
from app.engines.base import Hypothesis, RecognizerParts
from app.serving.worker.refining import Refinement, Refiner
from app.serving.worker.segmenting import PREROLL_SAMPLES, SegmentingRecognition
from app.serving.worker.sentences import SegmentedStream
from app.serving.worker.server import WorkerServer
from tests.support.gated import Gate
from tests.support.loud_vad import LoudVad
from tests.support.sound import Int16, joined, silence, tone
from tests.support.two_passes import CAPABILITIES, OFFLINE, FirstPass, Marks, SecondPass, parts

NEVER_S = 3600.0
LIVE = RecognitionOptions()
BULK = RecognitionOptions(partials=False, live=False)
SPOKEN, WRITTEN = "三点一四元", "3.14元"


class Sink:
    """Keeps what a task reports; ``until`` waits for something to hold."""

    def __init__(self) -> None:
        self.events: list[RecognitionEvent] = []
        self.samples = 0
        self.error: SpeechError | None = None
        self.over = asyncio.Event()
        self._news = asyncio.Event()

    def recognized(self, event: RecognitionEvent) -> None:
        assert not self.over.is_set()
        self.events.append(event)
        self._news.set()

    def processed(self, samples: int) -> None:
        self.samples += samples
        self._news.set()

    def done(self) -> None:
        assert not self.over.is_set()
        self.over.set()
        self._news.set()

    def failed(self, error: SpeechError) -> None:
        assert not self.over.is_set()
        self.error = error
        self.over.set()
        self._news.set()

    async def until(self, holds: Callable[[Sink], bool]) -> None:
        while not holds(self):
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), 30)

    @property
    def finals(self) -> list[SentenceEnded]:
        return [event for event in self.events if isinstance(event, SentenceEnded)]

    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.finals]

    @property
    def interims(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, SentenceChanged)]


@asynccontextmanager
async def serving(
    engine: RecognizerParts, budget_s: float = NEVER_S
) -> AsyncIterator[SegmentingRecognition]:
    recognition = SegmentingRecognition(
        engine, engine.detector or LoudVad(), tick_s=0.0, second_pass_budget_s=budget_s
    )
    running = asyncio.create_task(recognition.run())
    yield recognition
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def start(
    recognition: SegmentingRecognition, options: RecognitionOptions = LIVE
) -> tuple[SegmentedStream, Sink]:
    sink = Sink()
    return recognition.open(options, sink, "test"), sink


async def heard(
    recognition: SegmentingRecognition, audio: Int16, options: RecognitionOptions = LIVE
) -> Sink:
    """What is said about the whole of ``audio``, which comes in frames."""
    stream, sink = start(recognition, options)
    for position in range(0, len(audio), 1600):
        stream.feed(audio[position : position + 1600])
        await asyncio.sleep(0)
    stream.end()
    await asyncio.wait_for(sink.over.wait(), 30)
    if sink.error is None:
        check_order(sink.events)
    return sink


def check_order(events: list[RecognitionEvent]) -> None:
    """``(Began Changed* Ended)*``"""
    is_open = False
    for event in events:
        assert is_open is not isinstance(event, SentenceBegan)
        is_open = not isinstance(event, SentenceEnded)
    assert not is_open


@pytest.fixture
def gate() -> Iterator[Gate]:
    closed = Gate()
    yield closed
    closed.open()  # no thread is left behind


async def waiting_at(gate: Gate) -> None:
    while not gate.waiting:  # noqa: ASYNC110 - a thread comes there
        await asyncio.sleep(0.001)


def skipped() -> float:
    return float(metrics.SECOND_PASS_SKIPPED._value.get())


# Whose text


async def test_the_second_pass_has_the_last_word_with_its_words_and_tags() -> None:
    second = SecondPass()
    async with serving(parts(FirstPass(), second)) as recognition:
        sink = await heard(recognition, joined(silence(1000), tone(600), silence(1500)))
    ((segment,),) = second.batches
    (final,) = sink.finals
    assert final.text == f"second {len(segment.samples)}"
    assert all(text.startswith("first ") for text in sink.interims)
    assert sink.interims
    assert [word.text for word in final.words] == ["second"]
    assert (final.words[0].start_ms, final.words[0].end_ms) == (final.start_ms, final.end_ms)
    assert (final.language, final.emotion, final.events) == ("zh", "happy", ("laughter",))


async def test_it_hears_what_the_first_pass_heard_pre_roll_included() -> None:
    audio = joined(silence(1000), tone(600), silence(1500), tone(400))
    first, second = FirstPass(), SecondPass()
    async with serving(parts(first, second)) as recognition:
        sink = await heard(recognition, audio)
    given = [np.rint(each.samples * 32768) for batch in second.batches for each in batch]
    assert len(given) == 2
    for final, samples in zip(sink.finals, given, strict=True):
        begin = final.start_ms * 16 - PREROLL_SAMPLES
        assert np.array_equal(samples, audio[begin : begin + len(samples)])


async def test_the_rate_of_the_source_goes_along_with_each_sentence(gate: Gate) -> None:
    second = SecondPass(gate)
    async with serving(parts(FirstPass(), second)) as recognition:
        stream, sink = start(recognition)
        stream.feed(joined(tone(500), silence(1000)))
        await waiting_at(gate)
        stream.tell_source_rate(8_000)
        stream.feed(joined(tone(500), silence(1000)))
        stream.end()
        gate.open()
        await asyncio.wait_for(sink.over.wait(), 30)
    heard = [segment.options.source_rate for batch in second.batches for segment in batch]
    assert heard == [16_000, 8_000]


async def test_words_of_the_first_pass_stay_where_the_second_has_none() -> None:
    second = SecondPass()
    second.answer = Hypothesis("without words")
    async with serving(parts(FirstPass(), second)) as recognition:
        sink = await heard(recognition, tone(500))
    (final,) = sink.finals
    assert (final.text, final.words) == ("without words", (Word("first", 0, 500),))


@pytest.mark.parametrize("first_text", ["heard", ""])
async def test_a_second_pass_that_hears_nothing_takes_nothing_away(first_text: str) -> None:
    second = SecondPass()
    second.answer = Hypothesis("")
    async with serving(parts(FirstPass(first_text), second)) as recognition:
        sink = await heard(recognition, tone(500))
    assert sink.texts == [first_text]


@pytest.mark.parametrize("whole_batch", [True, False])
async def test_where_it_fails_the_first_pass_stands_and_the_log_says_why(
    whole_batch: bool,
) -> None:
    second = SecondPass()
    if whole_batch:
        second.raises = RuntimeError("broken")
    else:
        second.answer = RuntimeError("broken")
    with capture_logs() as logs:
        async with serving(parts(FirstPass("heard"), second)) as recognition:
            sink = await heard(recognition, tone(500))
            second.raises = second.answer = None
            again = await heard(recognition, tone(500))
    assert (sink.error, sink.texts) == (None, ["heard"])
    assert [entry["task_id"] for entry in logs if entry["log_level"] == "error"] == ["test"]
    assert again.texts == ["second 8000"]


async def test_a_file_has_no_first_pass_and_fails_with_the_second() -> None:
    first, second = FirstPass(), SecondPass()
    async with serving(parts(first, second)) as recognition:
        sink = await heard(recognition, tone(500), BULK)
        assert (sink.texts, sink.interims, first.opened) == (["second 8000"], [], 0)
        second.answer = RuntimeError("broken")
        failed = await heard(recognition, tone(500), BULK)
    assert isinstance(failed.error, EngineFailed)
    assert failed.error.text == EngineFailed.default_text


# Modes


async def test_without_an_offline_part_the_steps_give_the_final_text() -> None:
    async with serving(parts(FirstPass())) as recognition:
        live = await heard(recognition, tone(500))
        file = await heard(recognition, tone(500), BULK)
        assert recognition.refiner.batches == 0
    assert live.texts == file.texts == ["first 8000"]
    assert live.interims
    assert file.interims == []


async def test_without_a_streaming_part_there_are_only_final_texts(gate: Gate) -> None:
    second = SecondPass(gate)
    async with serving(parts(None, second), budget_s=0.0) as recognition:
        stream, sink = start(recognition)
        stream.feed(joined(tone(2000), silence(1500), tone(300)))
        stream.end()
        await waiting_at(gate)
        assert recognition.refiner._timer is None  # there is no other text to give up for
        assert sink.texts == []
        gate.open()
        await asyncio.wait_for(sink.over.wait(), 30)
        assert sink.interims == []
        assert [text.split()[0] for text in sink.texts] == ["second", "second"]
        assert sink.samples == stream.total
        second.answer = RuntimeError("broken")
        failed = await heard(recognition, tone(500))
    assert isinstance(failed.error, EngineFailed)


async def test_an_engine_without_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a streaming part"):
        SegmentingRecognition(RecognizerParts(CAPABILITIES, None), LoudVad(), tick_s=0.0)
    other_rate = SecondPass(capabilities=msgspec.structs.replace(OFFLINE, sample_rate=8_000))
    with pytest.raises(ValueError, match="16 kHz"):
        SegmentingRecognition(parts(FirstPass(), other_rate), LoudVad(), tick_s=0.0)


# Order, slots, and the audio that is kept


async def test_the_next_sentence_steps_on_while_one_is_refined_and_is_told_of_afterwards(
    gate: Gate,
) -> None:
    first = FirstPass(capabilities=msgspec.structs.replace(CAPABILITIES, max_sentences=1))
    async with serving(parts(first, SecondPass(gate))) as recognition:
        stream, sink = start(recognition)
        stream.feed(joined(tone(500), silence(1000)))
        await waiting_at(gate)
        assert first.open_now == 0  # its only slot is free before the second pass
        told = list(sink.events)
        assert len([event for event in told if isinstance(event, SentenceBegan)]) == 1
        stream.feed(tone(2000))
        while stream.heard < stream.total - 512 or recognition.stepper.work():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert first.open_now == 1
        assert sink.events == told
        # Whoever repeats the stream elsewhere must have the held sentence's audio.
        assert sink.samples <= 1_500 * 16
        gate.open()
        await sink.until(lambda sink: len(sink.events) >= len(told) + 3)
        assert isinstance(sink.events[len(told)], SentenceEnded)
        assert isinstance(sink.events[len(told) + 1], SentenceBegan)
        newest = sink.events[len(told) + 2]
        assert isinstance(newest, SentenceChanged)  # the others of it are forgotten
        assert int(newest.text.removeprefix("first ")) > 1_500 * 16
        stream.end()
        await asyncio.wait_for(sink.over.wait(), 30)
        assert sink.samples == stream.total
    check_order(sink.events)


async def test_a_stream_has_few_sentences_on_the_way_and_then_waits(gate: Gate) -> None:
    second = SecondPass(gate)
    audio = joined(*[joined(tone(300), silence(900)) for _ in range(8)])
    async with serving(parts(FirstPass(), second)) as recognition:
        stream, sink = start(recognition, BULK)
        stream.feed(audio)
        stream.end()
        await waiting_at(gate)
        while not stream.flushed or len(stream.refining) < 4:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.001)
        assert len(stream.refining) == 4
        gate.open()
        await asyncio.wait_for(sink.over.wait(), 30)
    assert len(sink.finals) == 8
    check_order(sink.events)
    assert [event.start_ms for event in sink.finals] == sorted(
        event.start_ms for event in sink.finals
    )


async def test_sentences_without_a_first_pass_wait_for_room(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.serving.worker.refine_queue.MAX_WAITING", 1)
    capabilities = msgspec.structs.replace(OFFLINE, max_batch_s=0.1)  # one at a time
    second = SecondPass(gate, capabilities)
    async with serving(parts(FirstPass(), second)) as recognition:
        tasks = [
            asyncio.create_task(heard(recognition, tone(500), options))
            for options in (BULK, BULK, BULK, BULK)
        ]
        await waiting_at(gate)
        while not recognition._wait_for_room:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.001)
        gate.open()
        sinks = await asyncio.gather(*tasks)
    assert [sink.texts for sink in sinks] == [["second 8000"]] * 4


async def test_where_there_is_no_room_the_first_pass_goes_out(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.serving.worker.refine_queue.MAX_WAITING", 1)
    before = skipped()
    async with serving(parts(FirstPass(), SecondPass(gate))) as recognition:
        held = [asyncio.create_task(heard(recognition, tone(500)))]
        await waiting_at(gate)  # it runs; the next one waits
        held.append(asyncio.create_task(heard(recognition, tone(500))))
        while not len(recognition.refiner._queue):  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.001)
        sink = await heard(recognition, tone(500))
        assert sink.texts == ["first 8000"]
        assert skipped() == before + 1
        gate.open()
        for task in held:
            assert (await task).texts == ["second 8000"]


async def test_a_sentence_is_no_longer_than_the_model_is_good_for() -> None:
    second = SecondPass(capabilities=msgspec.structs.replace(OFFLINE, max_segment_s=1.0))
    async with serving(parts(FirstPass(), second)) as recognition:
        sink = await heard(recognition, joined(silence(1000), tone(2500), silence(1000)))
    lengths = [len(each.samples) for batch in second.batches for each in batch]
    assert max(lengths) == 16_000
    assert len(sink.finals) >= 3
    final = sink.finals[0]
    (word,) = final.words
    # The pre-roll was left out, and the time of the word accounts for it.
    assert word.start_ms >= final.end_ms - 1_000
    assert word.end_ms == final.end_ms


# Deadlines


async def test_interim_results_go_on_while_the_second_pass_hangs(gate: Gate) -> None:
    """All streams have their interim results, and at the deadline their final texts."""
    before = skipped()
    async with serving(parts(FirstPass(), SecondPass(gate)), budget_s=0.0) as recognition:
        tasks = [start(recognition) for _ in range(5)]
        for stream, _ in tasks:
            stream.feed(joined(tone(500), silence(1000)))
        await waiting_at(gate)
        for _, sink in tasks:
            await sink.until(lambda sink: len(sink.finals) == 1)
            assert sink.texts[0].startswith("first ")
        for stream, _ in tasks:
            stream.feed(tone(700))
        for _, sink in tasks:
            await sink.until(lambda sink: isinstance(sink.events[-1], SentenceChanged))
        assert gate.waiting == 1
        for stream, _ in tasks:
            stream.end()
        for _, sink in tasks:
            await asyncio.wait_for(sink.over.wait(), 30)
            check_order(sink.events)
            assert all(text.startswith("first ") for text in sink.texts)
        assert skipped() == before + 10
        assert recognition.work() == {"refine": 1}  # and the heartbeat knows that it hangs
        gate.open()
        while recognition.work():  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.001)
    assert [len(sink.finals) for _, sink in tasks] == [2] * 5  # late results are dropped


@pytest.mark.parametrize("has_room", [True, False])
async def test_a_sentence_is_settled_once(gate: Gate, has_room: bool) -> None:
    """At its deadline, or at once where it may not wait; what comes later is for nobody."""
    second, settled = SecondPass(gate), asyncio.Queue[Hypothesis | Exception]()
    refiner = Refiner(second, None, budget_s=0.0, on_room=lambda: None, yields=False)
    if not has_room:
        refiner.has_room = lambda seconds, *, live: False  # type: ignore[method-assign]  # full
    running = asyncio.create_task(refiner.run())
    fallback = Hypothesis("fallback")
    refiner.submit(
        Refinement(
            LIVE, "test", settled.put_nowait, 0.5, np.zeros(8_000, np.int16), fallback, fallback
        )
    )
    assert await asyncio.wait_for(settled.get(), 30) == fallback
    gate.open()
    while refiner.work():  # noqa: ASYNC110 - no event for it
        await asyncio.sleep(0.001)
    assert len(second.batches) == has_room
    assert settled.empty()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_deadlines_that_have_come_already_are_kept_one_by_one(gate: Gate) -> None:
    """Where the loop is late. uvloop has a kind of timer of its own for these."""
    settled = asyncio.Queue[Hypothesis | Exception]()
    refiner = Refiner(SecondPass(gate), None, budget_s=0.0, on_room=lambda: None, yields=False)
    running = asyncio.create_task(refiner.run())
    texts = [Hypothesis(str(number)) for number in range(3)]
    for text in texts:
        samples = np.zeros(160, np.int16)
        refiner.submit(Refinement(LIVE, "test", settled.put_nowait, 0.0, samples, text, text))
    assert [await asyncio.wait_for(settled.get(), 30) for _ in texts] == texts
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_the_text_of_the_first_pass_goes_out_finished_as_far_as_can_be(gate: Gate) -> None:
    options = msgspec.structs.replace(LIVE, punctuation=True, inverse_text_normalization=True)
    engine = parts(
        FirstPass(SPOKEN), SecondPass(gate), punctuator=Marks("！"), partial_punctuator=Marks("？")
    )
    async with serving(engine, budget_s=0.0) as recognition:
        sink = await heard(recognition, tone(500), options)
        gate.open()
    assert sink.texts == [WRITTEN + "？"]


async def test_a_cancelled_stream_takes_its_sentences_along(gate: Gate) -> None:
    second = SecondPass(gate)
    async with serving(parts(FirstPass(), second)) as recognition:
        runs, runs_sink = start(recognition, BULK)
        runs.feed(tone(500))
        runs.end()
        await waiting_at(gate)
        waits, waits_sink = start(recognition, BULK)
        waits.feed(tone(500))
        waits.end()
        while not waits.refining:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.001)
        runs.cancel()
        waits.cancel()
        gate.open()
        sink = await heard(recognition, tone(500), BULK)
    assert sink.texts == ["second 8000"]
    assert runs_sink.finals == waits_sink.finals == []
    assert sum(map(len, second.batches)) == 2  # the one that waited was never heard


@pytest.mark.skipif(sys.platform != "linux", reason="a thread's priority is Linux's own")
async def test_the_thread_yields_to_the_others() -> None:
    second = SecondPass()
    async with serving(parts(FirstPass(), second)) as recognition:
        await heard(recognition, tone(500))
    assert second.niceness == 10


# Punctuation and figures

ASKED = msgspec.structs.replace(LIVE, punctuation=True, inverse_text_normalization=True)


async def test_a_final_text_has_punctuation_then_figures() -> None:
    marks = Marks()
    async with serving(parts(FirstPass(SPOKEN), punctuator=marks)) as recognition:
        asked = await heard(recognition, tone(500), ASKED)
        assert recognition.refiner.batches == 1
        plain = await heard(recognition, tone(500))
        assert recognition.refiner.batches == 1  # nothing is left to do
    assert asked.texts == [WRITTEN + "。"]
    assert set(asked.interims) == {WRITTEN}
    assert marks.calls == [[SPOKEN]]
    assert plain.texts == [SPOKEN]
    assert set(plain.interims) == {SPOKEN}


async def test_punctuation_that_is_late_is_left_out(gate: Gate) -> None:
    engine = parts(FirstPass(SPOKEN), punctuator=Marks(gate=gate))
    async with serving(engine, budget_s=0.0) as recognition:
        sink = await heard(recognition, tone(500), ASKED)
        gate.open()
    assert sink.texts == [WRITTEN]


async def test_interim_texts_are_punctuated_once_each_and_together() -> None:
    marks = Marks("，")
    first = FirstPass(SPOKEN)
    async with serving(parts(first, partial_punctuator=marks)) as recognition:
        sink = await heard(recognition, tone(800), ASKED)
        not_asked = await heard(recognition, tone(800))
    assert set(sink.interims) == {WRITTEN + "，"}
    assert len(sink.interims) == 1
    assert marks.calls == [[SPOKEN]]  # of eight steps
    assert set(not_asked.interims) == {SPOKEN}


async def test_a_part_that_finishes_its_texts_itself_has_the_last_word() -> None:
    marks, partial_marks = Marks(), Marks()
    first, second = FirstPass(SPOKEN), SecondPass()
    first.finished = True
    second.answer = Hypothesis(SPOKEN, finished=True)
    engine = parts(first, second, punctuator=marks, partial_punctuator=partial_marks)
    async with serving(engine) as recognition:
        sink = await heard(recognition, tone(500), ASKED)
    assert (sink.texts, set(sink.interims)) == ([SPOKEN], {SPOKEN})
    assert marks.calls == partial_marks.calls == []


async def test_what_a_text_needs_depends_on_the_part_that_made_it() -> None:
    """The second pass punctuates by itself; where it hears nothing, the first one's text does
    not go without."""
    marks = Marks()
    second = SecondPass(capabilities=msgspec.structs.replace(OFFLINE, punctuation=True))
    async with serving(parts(FirstPass("first"), second, punctuator=marks)) as recognition:
        second.answer = Hypothesis("second,")
        assert (await heard(recognition, tone(500), ASKED)).texts == ["second,"]
        second.answer = Hypothesis("")
        assert (await heard(recognition, tone(500), ASKED)).texts == ["first。"]


async def test_a_punctuator_that_fails_costs_only_the_punctuation() -> None:
    marks, partial_marks = Marks(), Marks()
    marks.broken = partial_marks.broken = True
    engine = parts(FirstPass(SPOKEN), punctuator=marks, partial_punctuator=partial_marks)
    async with serving(engine) as recognition:
        with capture_logs():
            sink = await heard(recognition, tone(500), ASKED)
    assert (sink.error, sink.texts, set(sink.interims)) == (None, [WRITTEN], {WRITTEN})


# The detector


@pytest.mark.parametrize("window", [160, 512, 960])
async def test_the_window_is_the_detectors(window: int) -> None:
    first, second, detector = FirstPass(), SecondPass(), LoudVad(window)
    engine = RecognizerParts(CAPABILITIES, first, second, detector=detector)
    async with serving(engine) as recognition:
        sink = await heard(recognition, joined(silence(700), tone(900), silence(1500)))
    (final,) = sink.finals
    assert detector.calls > 10
    slack_ms = -(-window // 16)
    assert 700 - slack_ms <= final.start_ms <= 700
    assert 1_600 <= final.end_ms <= 1_600 + slack_ms


# The whole


async def test_a_worker_serves_an_engine_in_parts_by_its_owners_budget() -> None:
    engine = parts(FirstPass(), SecondPass())
    worker = WorkerServer("asr-x", "test", "cpu", recognizer=engine, second_pass_budget_ms=1_500)
    assert isinstance(worker.recognition, SegmentingRecognition)
    assert worker.recognition.parts is engine
    assert isinstance(worker.recognition.vad, SileroVad)
    assert worker.recognition.refiner._budget_s == 1.5
