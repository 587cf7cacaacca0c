"""Admission and order of synthesis in a whole server, with an engine that speaks one text at a time
and only when the test lets it. The worker's clock stands still: what it predicts is the prior, 10
ms a character, and does not depend on the machine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest

from app.client.errors import NlsTaskFailed
from app.client.nls import NlsClient
from app.client.tasks import SynthesisTask
from app.core.speech import Utterance
from app.engines.base import Piece, SynthesizerCapabilities
from app.engines.fake.options import FakeOptions
from app.engines.fake.synthesizer import FakeSynthesizer, frequency
from app.serving.worker.server import WorkerServer
from tests.support.live import Live, live_server
from tests.support.sound import main_frequency

RATE = 24_000
TOO_MANY = 40000005


class OneByOne(FakeSynthesizer):
    """The fake engine with one slot. Each piece needs ``step``; ``spoken`` are the texts in the
    order in which they were begun."""

    def __init__(self) -> None:
        super().__init__(FakeOptions(tts_delay_ms=1), sleep=self._wait)
        self.step = threading.Semaphore(0)
        self.spoken: list[str] = []

    @property
    def capabilities(self) -> SynthesizerCapabilities:
        return msgspec.structs.replace(super().capabilities, max_parallel=1, ms_per_character=10.0)

    def synthesize(self, utterance: Utterance) -> Iterator[Piece]:
        self.spoken.append(utterance.text)
        return super().synthesize(utterance)

    def go(self) -> None:
        """Nothing holds the engine from now on."""
        self.step.release(1_000_000)

    def _wait(self, seconds: float) -> None:
        assert self.step.acquire(timeout=60)


@asynccontextmanager
async def one_by_one(folder: Path) -> AsyncIterator[tuple[Live, OneByOne, WorkerServer]]:
    engine = OneByOne()
    async with live_server(folder, asr=None, tts=engine) as live:
        (worker,) = live.workers
        assert worker.synthesis is not None
        worker.synthesis._clock = lambda: 0.0
        try:
            yield live, engine, worker
        finally:
            engine.go()


async def active(worker: WorkerServer, tasks: int) -> None:
    """Wait until the worker has so many sentences."""
    while worker.active != tasks:  # noqa: ASYNC110 - it has no event for this
        await asyncio.sleep(0.001)


async def rest(live: Live, text: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=live.http, timeout=60) as http:
        return await http.get("/stream/v1/tts", params={"text": text, "sample_rate": RATE})


def is_all_of(pcm: bytes, text: str) -> bool:
    """Every sentence of ``text``, with its own tone and to the sample."""
    audio, position = np.frombuffer(pcm, dtype=np.int16), 0
    for sentence in text.split():
        part = audio[position : position + len(sentence) * RATE // 5]
        if len(part) != len(sentence) * RATE // 5:
            return False
        if abs(main_frequency(part, RATE) - frequency(sentence)) > 2:
            return False
        position += len(part)
    return position == len(audio)


async def test_what_would_come_too_late_is_refused_and_what_was_accepted_completes(
    tmp_path: Path,
) -> None:
    speaking, waiting, too_many = "a" * 190, "b" * 190, "c" * 10
    async with one_by_one(tmp_path) as (live, engine, worker), asyncio.TaskGroup() as group:
        client = NlsClient(live.ws)
        first = group.create_task(client.synthesize(speaking, sample_rate=RATE))
        await active(worker, 1)
        second = group.create_task(rest(live, waiting))  # 1.9 s to wait
        await active(worker, 2)
        with pytest.raises(NlsTaskFailed) as failed:
            await client.synthesize(too_many)
        assert failed.value.code == TOO_MANY
        for text in (too_many, "d" * 400):  # at once, and as a stream
            answer = await rest(live, text)
            assert (answer.status_code, answer.json()["status"]) == (429, TOO_MANY)
        assert not first.done()
        assert not second.done()
        engine.go()
        assert is_all_of(await first, speaking)
        assert is_all_of((await second).content, waiting)
        assert is_all_of(await client.synthesize(too_many, sample_rate=RATE), too_many)
        assert engine.spoken == [speaking, waiting, too_many]


async def test_a_caller_overtakes_a_book_and_the_book_completes(tmp_path: Path) -> None:
    sentences = [letter * 99 + "." for letter in "abcdef"]
    book, call = " ".join(sentences), "xyz"
    async with one_by_one(tmp_path) as (live, engine, worker):
        client = NlsClient(live.ws)
        async with (
            client.synthesizer(book, sample_rate=RATE) as task,
            asyncio.TaskGroup() as group,
        ):
            reading = group.create_task(_all(task))
            await active(worker, 1)
            engine.step.release()  # the first piece: the second sentence is asked for
            await active(worker, 2)
            calling = group.create_task(client.synthesize(call, sample_rate=RATE))
            await active(worker, 3)
            engine.go()
            assert is_all_of(await calling, call)
            assert is_all_of(await reading, book)
        assert engine.spoken == [sentences[0], call, *sentences[1:]]


async def test_a_client_that_leaves_while_it_waits_costs_the_engine_nothing(
    tmp_path: Path,
) -> None:
    async with one_by_one(tmp_path) as (live, engine, worker), asyncio.TaskGroup() as group:
        client = NlsClient(live.ws)
        speaking = group.create_task(client.synthesize("a" * 100, sample_rate=RATE))
        await active(worker, 1)
        async with client.synthesizer("b" * 100):
            await active(worker, 2)
        await active(worker, 1)
        last = group.create_task(client.synthesize("c" * 100, sample_rate=RATE))  # its place
        await active(worker, 2)
        engine.go()
        assert is_all_of(await speaking, "a" * 100)
        assert is_all_of(await last, "c" * 100)
        assert engine.spoken == ["a" * 100, "c" * 100]


async def test_an_accepted_text_survives_its_worker_while_the_worker_is_full(
    tmp_path: Path,
) -> None:
    """All sentences come back at once; a new text would be refused where they are not."""
    texts = [letter * 60 for letter in "abcd"]
    async with one_by_one(tmp_path) as (live, engine, worker), asyncio.TaskGroup() as group:
        client = NlsClient(live.ws)
        reading = []
        for number, text in enumerate(texts):
            reading.append(group.create_task(client.synthesize(text, sample_rate=RATE)))
            await active(worker, number + 1)
        with pytest.raises(NlsTaskFailed) as failed:
            await client.synthesize("x" * 10)
        assert failed.value.code == TOO_MANY
        live.cut(worker)
        await active(worker, 0)
        await active(worker, 4)
        engine.go()
        for task, text in zip(reading, texts, strict=True):
            assert is_all_of(await task, text)


async def _all(task: SynthesisTask) -> bytes:
    return b"".join([piece async for piece in task.audio()])
