"""Inverse text normalisation in the worker: for engines that lack it, when the task asks for it,
and never on the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest

from app.core.errors import SpeechError
from app.core.speech import (
    RecognitionEvent,
    RecognitionOptions,
    SentenceBegan,
    SentenceChanged,
    SentenceEnded,
    Word,
)
from app.engines.base import Feed, Hypothesis, RecognizerCapabilities
from app.serving.worker import writing
from app.serving.worker.endpointing import EndpointingRecognition
from app.serving.worker.segmenting import SegmentingRecognition
from tests.support.loud_vad import LoudVad, parts_of
from tests.support.sound import tone

SPOKEN = "下午三点半，三点一四元"
WRITTEN = "下午3:30，3.14元"
WORDS = (Word("三点半", 0, 100),)
ASKED = RecognitionOptions(inverse_text_normalization=True)
CAPABILITIES = RecognizerCapabilities(
    sample_rate=16_000,
    languages=("zh-CN",),
    step_ms=100,
    partials=True,
    word_times=True,
    own_endpointing=False,
    max_sessions=10,
    max_sentences=10,
)


class Sentences:
    """A SentenceRecognizer that hears the same in everything."""

    def __init__(self, capabilities: RecognizerCapabilities = CAPABILITIES) -> None:
        self.capabilities = capabilities
        self.broken: object = None

    def open(self, options: RecognitionOptions) -> object:
        return object()

    def step(self, batch: Sequence[Feed]) -> Sequence[Hypothesis | Exception]:
        return [
            RuntimeError("broken") if feed.stream is self.broken else Hypothesis(SPOKEN, WORDS)
            for feed in batch
        ]

    def close(self, stream: object) -> None:
        pass


class Events:
    """An EndpointingRecognizer, likewise."""

    def __init__(self, capabilities: RecognizerCapabilities = CAPABILITIES) -> None:
        self.capabilities = msgspec.structs.replace(capabilities, own_endpointing=True)

    def open(self, options: RecognitionOptions) -> object:
        return object()

    def step(self, batch: Sequence[Feed]) -> Sequence[Sequence[RecognitionEvent] | Exception]:
        return [
            [SentenceEnded(0, 100, SPOKEN, WORDS)]
            if feed.last
            else [SentenceBegan(0), SentenceChanged(SPOKEN, 100, WORDS)]
            for feed in batch
        ]

    def configure(self, stream: object, max_sentence_silence_ms: int) -> None:
        pass

    def close(self, stream: object) -> None:
        pass


class Sink:
    """Keeps what a task reports."""

    def __init__(self) -> None:
        self.events: list[RecognitionEvent] = []
        self.error: SpeechError | None = None
        self.over = asyncio.Event()

    def recognized(self, event: RecognitionEvent) -> None:
        self.events.append(event)

    def processed(self, samples: int) -> None:
        pass

    def done(self) -> None:
        self.over.set()

    def failed(self, error: SpeechError) -> None:
        self.error = error
        self.over.set()


Recognition = SegmentingRecognition | EndpointingRecognition


@asynccontextmanager
async def serving(engine: Sentences | Events) -> AsyncIterator[Recognition]:
    recognition: Recognition = (
        SegmentingRecognition(parts_of(engine), LoudVad(), tick_s=0.0)
        if isinstance(engine, Sentences)
        else EndpointingRecognition(engine, tick_s=0.0)
    )
    running = asyncio.create_task(recognition.run())
    yield recognition
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def heard(recognition: Recognition, options: RecognitionOptions) -> list[RecognitionEvent]:
    """What is said about half a second of sound."""
    sink = Sink()
    stream = recognition.open(options, sink, "test")
    stream.feed(tone(500))
    stream.end()
    await sink.over.wait()
    assert sink.error is None
    return sink.events


def texts(events: list[RecognitionEvent]) -> tuple[set[str], list[str]]:
    """The interim texts and the final ones."""
    return (
        {event.text for event in events if isinstance(event, SentenceChanged)},
        [event.text for event in events if isinstance(event, SentenceEnded)],
    )


both = pytest.mark.parametrize("engine", [Sentences(), Events()], ids=["segmenting", "endpointing"])


@both
async def test_interim_and_final_results_are_written(engine: Sentences | Events) -> None:
    async with serving(engine) as recognition:
        events = await heard(recognition, ASKED)
    assert texts(events) == ({WRITTEN}, [WRITTEN])


@both
async def test_words_stay_as_they_were_spoken(engine: Sentences | Events) -> None:
    async with serving(engine) as recognition:
        events = await heard(recognition, ASKED)
    for event in events:
        if not isinstance(event, SentenceBegan):
            assert [word.text for word in event.words] == ["三点半"]


@both
async def test_each_stream_of_a_step_gets_what_it_asked_for(engine: Sentences | Events) -> None:
    english = RecognitionOptions(inverse_text_normalization=True, language="en-US")
    async with serving(engine) as recognition:
        asked, not_asked, other = await asyncio.gather(
            heard(recognition, ASKED),
            heard(recognition, RecognitionOptions()),
            heard(recognition, english),
        )
    assert texts(asked) == ({WRITTEN}, [WRITTEN])
    assert texts(not_asked) == texts(other) == ({SPOKEN}, [SPOKEN])


@pytest.mark.parametrize("kind", [Sentences, Events])
async def test_an_engine_that_writes_figures_itself_has_the_last_word(
    kind: type[Sentences | Events],
) -> None:
    engine = kind(msgspec.structs.replace(CAPABILITIES, inverse_text_normalization=True))
    async with serving(engine) as recognition:
        assert texts(await heard(recognition, ASKED)) == ({SPOKEN}, [SPOKEN])


@both
async def test_the_event_loop_goes_on_meanwhile(
    engine: Sentences | Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rewriting waits for the loop; on the loop it would wait for itself."""
    began, go_on = threading.Event(), threading.Event()

    def slow(text: str, language: str | None) -> str:
        began.set()
        assert go_on.wait(30)
        return "slow"

    monkeypatch.setattr(writing, "inverse_normalize", slow)
    async with serving(engine) as recognition:
        waiting = asyncio.create_task(heard(recognition, ASKED))
        while not began.is_set():  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.001)
        go_on.set()
        assert texts(await waiting) == ({"slow"}, ["slow"])


async def test_a_stream_that_fails_in_a_step_fails_alone() -> None:
    engine = Sentences()
    async with serving(engine) as recognition:
        sink = Sink()
        stream = recognition.open(ASKED, sink, "test")
        engine.open = lambda options: engine  # type: ignore[method-assign]  # to tell it apart
        engine.broken = engine
        stream.feed(tone(500))
        stream.end()
        await sink.over.wait()
        assert sink.error is not None
        del engine.open
        assert texts(await heard(recognition, ASKED)) == ({WRITTEN}, [WRITTEN])
