"""The second pass through the whole server: what clients get of it, and what happens to a sentence
that waits for its final text when its worker dies, or is about to end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from app.client.messages import Event
from app.client.nls import NlsClient
from app.engines.base import RecognizerParts
from app.serving.worker.segmenting import SegmentingRecognition
from app.serving.worker.server import WorkerServer
from tests.support.gated import Gate
from tests.support.live import Live, live_server
from tests.support.loud_vad import LoudVad
from tests.support.sound import joined, silence, tone
from tests.support.two_passes import FirstPass, SecondPass, parts

WINDOW = 512


def engine(first: FirstPass | None, second: SecondPass) -> RecognizerParts:
    return replace(parts(first, second), detector=LoudVad())


@pytest.fixture
def gate() -> Iterator[Gate]:
    closed = Gate()
    yield closed
    closed.open()


def ends(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event.name == "SentenceEnd"]


def samples_heard(events: Sequence[Event]) -> list[int]:
    """How much audio each final text is of."""
    texts = [str(event.payload["result"]) for event in ends(events)]
    return [int(text.removeprefix("second ")) for text in texts]


async def waiting_at(gate: Gate) -> None:
    async with asyncio.timeout(10):
        while not gate.waiting:  # noqa: ASYNC110 - a thread comes there
            await asyncio.sleep(0.005)


def busy(live: Live) -> WorkerServer:
    return next(worker for worker in live.workers if worker.active)


async def heard_by(worker: WorkerServer, sentences: int) -> None:
    """Until the worker's stream has so many sentences on the way."""
    recognition = worker.recognition
    assert isinstance(recognition, SegmentingRecognition)
    (task,) = (task for each in worker._connections for task in each._tasks.values())
    stream = task.stream
    async with asyncio.timeout(10):
        while len(stream.order) < sentences:  # type: ignore[union-attr]  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.005)


async def test_clients_get_the_final_text_and_the_tags(tmp_path: Path) -> None:
    second = SecondPass()
    speech = joined(tone(1000), silence(1500)).tobytes()
    async with live_server(tmp_path, tts=None, asr=engine(FirstPass(), second)) as live:
        events = await NlsClient(live.ws).transcribe(speech)
        (end,) = ends(events)
        assert str(end.payload["result"]).startswith("second ")
        tags = {key: end.payload.get(key) for key in ("emo_tag", "language", "emotion", "events")}
        assert tags == {
            "emo_tag": "positive", "language": "zh", "emotion": "happy", "events": ["laughter"],
        }  # fmt: skip
        async with httpx.AsyncClient(base_url=live.http) as http:
            answer = (await http.post("/stream/v1/asr", content=speech)).json()
            # Longer than the credit: what is kept until it is whole counts as taken in.
            long = (await http.post("/stream/v1/asr", content=tone(12_000).tobytes())).json()
    assert answer["result"].startswith("second ")
    assert long["result"] == f"second {12 * 16_000}"
    assert set(answer) == {"task_id", "result", "status", "message"}


async def test_a_sentence_that_waits_for_its_text_survives_the_worker(
    tmp_path: Path, gate: Gate
) -> None:
    """So does the next one, of which the client has not been told yet."""
    speech = [joined(tone(1000), silence(1200)), tone(900), silence(1200)]
    second = SecondPass()
    async with live_server(tmp_path, tts=None, asr=engine(None, second)) as live:
        client = NlsClient(live.ws)
        undisturbed = await client.transcribe(joined(*speech).tobytes())
        assert len(samples_heard(undisturbed)) == 2
        second.gate = gate
        async with client.transcriber() as task:
            await task.send(joined(*speech[:2]).tobytes())
            await waiting_at(gate)
            worker = busy(live)
            await heard_by(worker, 2)
            live.cut(worker)
            gate.open()
            await task.send(speech[2].tobytes())
            events = await task.finish()
    pairs = zip(samples_heard(events), samples_heard(undisturbed), strict=True)
    assert all(abs(got - wanted) <= 2 * WINDOW for got, wanted in pairs)
    times = [[event.payload[key] for key in ("begin_time", "time")] for event in ends(events)]
    wanted_times = [
        [event.payload[key] for key in ("begin_time", "time")] for event in ends(undisturbed)
    ]
    for got, wanted in zip(times, wanted_times, strict=True):
        assert all(abs(a - b) <= 2 * WINDOW // 16 for a, b in zip(got, wanted, strict=True))


async def test_a_stream_leaves_a_draining_worker_after_the_final_text(
    tmp_path: Path, gate: Gate
) -> None:
    second = SecondPass(gate)
    async with (
        live_server(tmp_path, tts=None, asr=engine(None, second), replicas=2) as live,
        NlsClient(live.ws).transcriber() as task,
    ):
        await task.send(joined(tone(1000), silence(1200)).tobytes())
        await waiting_at(gate)
        worker = busy(live)
        worker.drain(30)
        await task.send(silence(200).tobytes())
        await heard_by(worker, 1)
        assert worker.active == 1
        gate.open()
        async with asyncio.timeout(10):
            while worker.active:
                await task.send(silence(100).tobytes())
                await asyncio.sleep(0.01)
        await task.send(joined(tone(900), silence(1200)).tobytes())
        events = await task.finish()
    assert len(samples_heard(events)) == 2
    assert [event.payload["index"] for event in ends(events)] == [1, 2]
    # The first was heard once: it did not go along.
    assert sum(map(len, second.batches)) == 2
