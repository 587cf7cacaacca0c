"""The worker's synthesis queue, with an engine that speaks when the test lets it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from app.core.errors import EngineFailed, EngineUnavailable, InvalidText, Overloaded, SpeechError
from app.core.speech import Mark, Utterance
from app.engines.base import Piece, SynthesizerCapabilities
from app.serving.worker import synthesis as module
from app.serving.worker.speaking_queue import RUN_AHEAD_S
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
async def service(
    engine: Speaker, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[Synthesis]:
    synthesis = Synthesis(engine, clock=clock)
    running = asyncio.create_task(synthesis.run())
    await asyncio.sleep(0)  # it serves
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
        queued = synthesis.open(utterance("b"), waiting, "2", lead_s=0.0)
        synthesis.open(utterance("c"), last, "3", lead_s=0.0)
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


async def test_who_needs_it_first_is_spoken_first() -> None:
    engine = Speaker()
    async with service(engine) as synthesis:
        sinks = [Sink() for _ in range(4)]
        texts = [("running", 0.0), ("far", 9.0), ("soon", 1.0), ("now", 0.0)]
        for (text, lead_s), sink in zip(texts, sinks, strict=True):
            synthesis.open(utterance(text[:1]), sink, text, lead_s)
        engine.go.release(4)
        for sink in sinks:
            await sink.over.wait()
    assert engine.spoken == ["r", "n", "s", "f"]


async def test_what_is_far_ahead_starts_when_it_is_not_any_more() -> None:
    """Nothing else happens then that could start it."""
    engine = Speaker(parallel=2)
    engine.go_on.clear()
    async with service(engine) as synthesis:
        running, far = Sink(), Sink()
        synthesis.open(utterance("r"), running, "1")
        task = synthesis.open(utterance("f"), far, "2", RUN_AHEAD_S + 0.05)
        assert task not in synthesis.work()
        engine.go.release(2)
        await far.came.wait()
        assert task in synthesis.work()
        assert not running.over.is_set()
        engine.go_on.set()
        await far.over.wait()


async def test_nothing_starts_after_the_end() -> None:
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
    engine = Speaker(parallel=2)
    async with service(engine) as synthesis:
        synthesis.open(utterance("a"), Sink(), "1")
        synthesis.open(utterance("f"), Sink(), "2", RUN_AHEAD_S + 0.01)
    with pytest.raises(EngineUnavailable):
        synthesis.open(utterance("b"), Sink(), "3")
    while synthesis.work():  # noqa: ASYNC110 - ended by the engine's thread
        await asyncio.sleep(0.001)
    assert errors == []
    assert "f" not in engine.spoken


async def test_it_measures_the_engine() -> None:
    now = 0.0
    engine = Speaker()
    async with service(engine, lambda: now) as synthesis:
        slow = Sink()
        task = synthesis.open(utterance("a" * 10), slow, "1")
        now = 1.8
        task.credit(10 * RATE)
        engine.go.release()
        await slow.over.wait()
        synthesis.open(utterance("b" * 10), Sink(), "2")
        with pytest.raises(Overloaded):  # after 0.6 s, and then the first piece takes 1.8 s
            synthesis.open(utterance("c" * 10), Sink(), "3")
        now = 2.3
        synthesis.open(utterance("c" * 10), Sink(), "3")


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
