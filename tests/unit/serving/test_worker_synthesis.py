"""The worker's synthesis queue, with an engine that speaks when the test lets it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from app.core.errors import EngineFailed, InvalidText, Overloaded, SpeechError
from app.core.speech import Mark, Utterance
from app.engines.base import Piece, SynthesizerCapabilities
from app.serving.worker import synthesis as module
from app.serving.worker.synthesis import MAX_UTTERANCE_CHARS, Synthesis

RATE = 1000


class Speaker:
    """One piece of a second per character; waits for ``go`` before each utterance, and for
    ``go_on`` after each piece."""

    def __init__(self, parallel: int = 1) -> None:
        self.capabilities = SynthesizerCapabilities(
            sample_rate=RATE, languages=("en-US",), voices=(), normalizes_text=True,
            max_parallel=parallel,
        )  # fmt: skip
        self.go = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.go_on.set()
        self.closed = threading.Event()
        self.spoken: list[str] = []

    def synthesize(self, utterance: Utterance) -> Iterator[Piece]:
        assert self.go.acquire(timeout=10)
        if utterance.text == "broken":
            raise RuntimeError("secret cause")
        self.spoken.append(utterance.text)
        try:
            for character in utterance.text:
                yield Piece(np.full(RATE, ord(character), dtype=np.int16))
                assert self.go_on.wait(10)
        finally:
            self.closed.set()


class Sink:
    def __init__(self) -> None:
        self.pcm = b""
        self.error: SpeechError | None = None
        self.over = asyncio.Event()
        self.came = asyncio.Event()

    def speech(self, pcm: bytes, marks: tuple[Mark, ...]) -> None:
        self.pcm += pcm
        self.came.set()

    def done(self) -> None:
        self.over.set()

    def failed(self, error: SpeechError) -> None:
        self.error = error
        self.over.set()

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 2 / RATE


@asynccontextmanager
async def service(engine: Speaker) -> AsyncIterator[Synthesis]:
    synthesis = Synthesis(engine)
    running = asyncio.create_task(synthesis.run())
    yield synthesis
    running.cancel()
    engine.go.release(1000)
    await asyncio.gather(running, return_exceptions=True)


def utterance(text: str) -> Utterance:
    return Utterance(text=text, voice="v")


async def test_audio_beyond_the_credit_waits_and_nothing_is_lost() -> None:
    engine = Speaker()
    async with service(engine) as synthesis:
        sink = Sink()
        task = synthesis.open(utterance("abcdef"), sink, "id")
        engine.go.release()
        while synthesis.pieces < 6:  # noqa: ASYNC110 - counted by the engine's thread
            await asyncio.sleep(0.001)
        assert sink.seconds == 2
        assert not sink.over.is_set()
        task.credit(RATE)
        assert sink.seconds == 3
        task.credit(3 * RATE)
        await sink.over.wait()
    assert sink.pcm == b"".join(np.full(RATE, ord(c), dtype=np.int16).tobytes() for c in "abcdef")


async def test_a_slow_reader_does_not_hold_up_the_next_utterance() -> None:
    engine = Speaker()
    engine.go.release(2)
    async with service(engine) as synthesis:
        slow, quick = Sink(), Sink()
        synthesis.open(utterance("aaaaaa"), slow, "1")
        synthesis.open(utterance("b"), quick, "2")
        await quick.over.wait()
        assert not slow.over.is_set()


async def test_cancelling_stops_the_engine_and_skips_what_waits() -> None:
    engine = Speaker()
    engine.go_on.clear()
    async with service(engine) as synthesis:
        first, waiting, last = Sink(), Sink(), Sink()
        running = synthesis.open(utterance("a" * 500), first, "1")
        queued = synthesis.open(utterance("b"), waiting, "2")
        synthesis.open(utterance("c"), last, "3")
        queued.cancel()
        engine.go.release()
        await first.came.wait()
        running.cancel()
        engine.go_on.set()
        engine.go.release()
        await last.over.wait()
        assert engine.closed.is_set()
        assert engine.spoken == ["a" * 500, "c"]
        assert synthesis.pieces == 2  # one of the first text, one of the last
        assert not first.over.is_set()
        assert not waiting.over.is_set()


async def test_a_failure_is_its_own_and_tells_nothing() -> None:
    engine = Speaker()
    engine.go.release(2)
    async with service(engine) as synthesis:
        broken, well = Sink(), Sink()
        synthesis.open(utterance("broken"), broken, "1")
        synthesis.open(utterance("a"), well, "2")
        await broken.over.wait()
        await well.over.wait()
    assert isinstance(broken.error, EngineFailed)
    assert broken.error.text == EngineFailed.default_text
    assert well.error is None


async def test_no_more_threads_than_the_engine_or_the_owner_allows() -> None:
    engine = Speaker(parallel=8)
    synthesis = Synthesis(engine, threads=3)
    assert synthesis.capacity == 3 + module.MAX_QUEUE


async def test_the_queue_is_bounded_and_so_is_an_utterance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_QUEUE", 2)
    engine = Speaker()
    async with service(engine) as synthesis:
        for _ in range(3):
            synthesis.open(utterance("a"), Sink(), "id")
        with pytest.raises(Overloaded):
            synthesis.open(utterance("a"), Sink(), "id")
        with pytest.raises(InvalidText):
            synthesis.open(utterance("a" * (MAX_UTTERANCE_CHARS + 1)), Sink(), "id")


async def test_each_utterance_that_is_spoken_counts_as_work_of_its_own() -> None:
    engine = Speaker(parallel=2)
    engine.go_on.clear()
    async with service(engine) as synthesis:
        sinks = [Sink() for _ in range(3)]
        assert synthesis.work() == {}
        tasks = [synthesis.open(utterance("ab"), sink, "log-id") for sink in sinks]
        assert synthesis.work() == {tasks[0]: 0, tasks[1]: 0}  # the third waits its turn
        engine.go.release()
        while sum(synthesis.work().values()) < 1:  # noqa: ASYNC110 - counted by the engine's thread
            await asyncio.sleep(0.001)
        assert sorted(synthesis.work().values()) == [0, 1]
        engine.go_on.set()
        engine.go.release(2)
        for sink in sinks:
            await sink.over.wait()
        assert synthesis.work() == {}
