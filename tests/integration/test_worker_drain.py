"""A worker that ends in good order, and streams that go from a heavy worker to a light one: nobody
notices."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.client.nls import NlsClient
from app.core import metrics
from app.serving.worker.server import WorkerServer
from tests.support.live import Live, live_server
from tests.support.sound import joined, silence, tone

SENTENCES = (700, 460, 1230)
SPEECH = joined(*(part for ms in SENTENCES for part in (tone(ms), silence(1_000))))


async def _frames(proceed: dict[int, asyncio.Event]) -> AsyncIterator[bytes]:
    """The speech in frames of 100 ms; the frames in ``proceed`` wait for their event."""
    pcm = SPEECH.tobytes()
    for number, start in enumerate(range(0, len(pcm), 3_200)):
        if number in proceed:
            await proceed[number].wait()
        yield pcm[start : start + 3_200]
        await asyncio.sleep(0.002)


def _busy(live: Live) -> WorkerServer:
    return next(worker for worker in live.workers if worker.active)


async def _until(live: Live, **active: int) -> None:
    """Until the workers have so many tasks."""
    async with asyncio.timeout(10):
        while {worker.hello.name.replace("-", "_"): worker.active for worker in live.workers} != {  # noqa: ASYNC110 - no event
            **active
        }:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("pause_at", [2, 12, 20, 30])
async def test_a_stream_leaves_a_draining_worker_without_a_trace(
    tmp_path: Path, pause_at: int
) -> None:
    async with live_server(tmp_path, tts=None, replicas=2) as live:
        client = NlsClient(live.ws)
        undisturbed = await client.transcribe(SPEECH.tobytes())
        moved = metrics.MOVED._value.get()
        go_on = asyncio.Event()
        stream = asyncio.create_task(client.transcribe(_frames({pause_at: go_on})))
        async with asyncio.timeout(10):
            while sum(worker.active for worker in live.workers) == 0:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.005)
        first = _busy(live)
        first.drain(30)
        go_on.set()
        events = await stream
        assert metrics.MOVED._value.get() == moved + 1
    assert [(each.name, each.payload) for each in events if each.name == "SentenceEnd"] == [
        (each.name, each.payload) for each in undisturbed if each.name == "SentenceEnd"
    ]
    begun = [each.payload["index"] for each in events if each.name == "SentenceBegin"]
    assert begun == [1, 2, 3]


async def test_a_drained_worker_ends_once_it_is_empty_and_takes_nothing(tmp_path: Path) -> None:
    async with live_server(tmp_path, tts=None, replicas=2) as live:
        client = NlsClient(live.ws)
        async with client.transcriber():
            first = _busy(live)
            other = next(worker for worker in live.workers if worker is not first)
            first.drain(30)
            async with asyncio.timeout(10):
                while first._connections:  # noqa: ASYNC110 - it closes them at its end
                    await asyncio.sleep(0.005)
            assert (first.active, other.active) == (0, 1)
            async with client.transcriber():
                assert (first.active, other.active) == (0, 2)


async def test_what_cannot_leave_in_time_is_repeated(tmp_path: Path) -> None:
    """A sentence that is open when the time is over goes on elsewhere."""
    async with live_server(tmp_path, tts=None, replicas=2) as live:
        client = NlsClient(live.ws)
        async with client.transcriber() as task:
            await task.send(tone(1_500).tobytes())
            first = _busy(live)
            first.drain(0)
            await _until(live, **_counts(live, first))
            await task.send(tone(500).tobytes())
            events = await task.finish()
    assert [each.payload["result"] for each in events if each.name == "SentenceEnd"] == [
        "heard 2000 ms"
    ]


def _counts(live: Live, drained: WorkerServer) -> dict[str, int]:
    return {
        worker.hello.name.replace("-", "_"): int(worker is not drained) for worker in live.workers
    }


async def test_streams_spread_over_a_worker_that_came_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All streams are on one worker; between their sentences half of them go to the other one."""
    monkeypatch.setattr("app.serving.pool.SLOW_START_S", 0.1)
    monkeypatch.setattr("app.serving.pool.MOVE_INTERVAL_S", 0.0)
    # One API server: two that see the same light worker move a stream each.
    async with live_server(tmp_path, tts=None, replicas=2, apis=1, max_streams=20) as live:
        client = NlsClient(live.ws)
        go_on = asyncio.Event()
        away = live.workers[1]
        capacity, away.capacity = away.capacity, 0  # as good as not there
        streams = [asyncio.create_task(client.transcribe(_frames({10: go_on}))) for _ in range(10)]
        await _until(live, asr_0=10, asr_1=0)
        away.capacity = capacity
        go_on.set()
        most = 0
        while not all(stream.done() for stream in streams):
            most = max(most, away.active)
            await asyncio.sleep(0.005)
        for stream in streams:
            texts = [each.payload["result"] for each in await stream if each.name == "SentenceEnd"]
            assert [int(re.findall(r"\d+", text)[0]) for text in texts] == list(SENTENCES)
        assert 3 <= most <= 7
