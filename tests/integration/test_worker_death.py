"""A worker's death is a delay for its clients: nothing is lost, cut or doubled. On the fake engine,
whose answers show every missing or repeated 10 ms."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from app.client.errors import NlsTaskFailed
from app.client.messages import Event
from app.client.nls import NlsClient
from app.services import replay, spoken
from tests.support.live import Live, live_server
from tests.support.process import counted, serving
from tests.support.sound import Int16, joined, silence, tone

pytestmark = pytest.mark.xdist_group("processes")  # real processes: one at a time

SENTENCES = (700, 1230, 460, 2040)


def speech() -> Int16:
    parts = [part for ms in SENTENCES for part in (silence(330), tone(ms), silence(1100))]
    return joined(*parts)


def finals(events: list[Event]) -> list[tuple[int, int, int, str]]:
    """Index, times and text of each sentence."""
    return [
        (each["index"], each["begin_time"], each["time"], each["result"])
        for each in (event.payload for event in events if event.name == "SentenceEnd")
    ]


async def expected(live: Live) -> list[tuple[int, int, int, str]]:
    undisturbed = finals(await NlsClient(live.ws).transcribe(speech().tobytes()))
    assert [text for *_, text in undisturbed] == [f"heard {ms} ms" for ms in SENTENCES]
    return undisturbed


def orderly(events: list[Event]) -> bool:
    """Begin, changes and end of each sentence, in order and once."""
    open_index, last = 0, 0
    for event in events:
        match event.name:
            case "SentenceBegin":
                if open_index or event.payload["index"] != last + 1:
                    return False
                open_index = last + 1
            case "TranscriptionResultChanged":
                if event.payload["index"] != open_index:
                    return False
            case "SentenceEnd":
                if event.payload["index"] != open_index:
                    return False
                open_index, last = 0, open_index
    return open_index == 0


async def stream(live: Live, frame_bytes: int, at: Callable[[int], None]) -> list[Event]:
    """Transcribe in frames; ``at`` is called with each frame's number."""
    pcm = speech().tobytes()

    async def frames() -> AsyncIterator[bytes]:
        for number, start in enumerate(range(0, len(pcm), frame_bytes)):
            at(number)
            yield pcm[start : start + frame_bytes]
            await asyncio.sleep(0.004)

    return await NlsClient(live.ws).transcribe(frames(), enable_intermediate_result=True)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("replicas", [1, 2])
async def test_a_stream_goes_on_at_another_replica(
    tmp_path: Path, seed: int, replicas: int
) -> None:
    chance = random.Random(seed)
    deaths = 0

    def maybe_die(number: int) -> None:
        nonlocal deaths
        if chance.random() < 0.05:
            busy = [worker for worker in live.workers if worker.active]
            for worker in busy:
                live.cut(worker)
                deaths += 1

    async with live_server(tmp_path, tts=None, replicas=replicas) as live:
        undisturbed = await expected(live)
        events = await stream(live, chance.choice([3200, 1920, 1111]), maybe_die)
        assert finals(events) == undisturbed
        assert orderly(events)
    assert deaths


async def test_a_death_after_stop_loses_nothing(tmp_path: Path) -> None:
    slow = {"FAKE_ASR_DELAY_MS": 60}
    async with (
        live_server(tmp_path, tts=None, replicas=2, engine_settings=slow) as live,
        NlsClient(live.ws).transcriber() as task,
    ):
        await task.send(tone(1500).tobytes())
        busy = next(worker for worker in live.workers if worker.active)
        await task.stop()
        live.cut(busy)
        events = [event async for event in task.events()]
    assert [text for *_, text in finals(events)] == ["heard 1500 ms"]


async def test_a_recogniser_and_a_posted_file_go_on_too(tmp_path: Path) -> None:
    slow = {"FAKE_ASR_DELAY_MS": 30}
    async with live_server(tmp_path, tts=None, replicas=2, engine_settings=slow) as live:

        async def kill_once() -> None:
            while not any(worker.active for worker in live.workers):  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.005)
            for worker in live.workers:
                live.cut(worker)

        async with (
            httpx.AsyncClient(base_url=live.http) as http,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(kill_once())
            answer = await http.post("/stream/v1/asr", content=tone(2500).tobytes())
        assert answer.json()["result"] == "heard 2500 ms"
        async with NlsClient(live.ws).recognizer() as task:
            await task.send(tone(2500).tobytes())
            await kill_once()
            (*_, completed) = await task.finish()
        assert completed.payload["result"] == "heard 2500 ms"


@pytest.mark.parametrize("seed", range(3))
async def test_a_cut_sentence_of_synthesis_is_continued_to_the_sample(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    text = "aaaaaaaaaaaaaaa. bbbbbbbbbbbbbbbbbbbb. cccccccccc."
    slow = {"FAKE_TTS_DELAY_MS": 5}
    async with live_server(tmp_path, asr=None, replicas=2, engine_settings=slow) as live:
        client = NlsClient(live.ws)
        whole = await client.synthesize(text, sample_rate=24_000)
        deaths = 0

        async def one() -> bytes:
            nonlocal deaths
            audio = b""
            async with client.synthesizer(text, sample_rate=24_000) as task:
                async for piece in task.audio():
                    audio += piece
                    if chance.random() < 0.04:
                        deaths += 1
                        live.cut(chance.choice(live.workers))
            return audio

        results = await asyncio.gather(*(one() for _ in range(8)))
    assert deaths
    for audio in results:
        assert np.array_equal(np.frombuffer(audio, np.int16), np.frombuffer(whole, np.int16))


async def test_without_any_worker_the_task_fails_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MOVE_TIMEOUT_S", 0.2)
    monkeypatch.setattr("app.serving.pool.READY_TIMEOUT_S", 0.1)
    monkeypatch.setattr(spoken, "ACCEPTED_TIMEOUT_S", 0.2)
    async with live_server(tmp_path) as live, NlsClient(live.ws).transcriber() as task:
        await task.send(tone(300).tobytes())
        for worker in live.workers:
            monkeypatch.setattr(worker, "_accept", _refuse)
            worker.hello = None  # type: ignore[assignment]  # whoever connects learns nothing
            live.cut(worker)
        with pytest.raises(NlsTaskFailed) as failed:
            await task.finish()
    assert failed.value.code in (50000000, 50000001)


def _refuse() -> asyncio.Protocol:
    return asyncio.Protocol()


@pytest.mark.own_workers
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_killed_processes_cost_nothing_but_time(tmp_path: Path, workers: str) -> None:
    """SIGKILL of real workers, one after the other, under streams and syntheses."""
    settings = {"ASR_GPUS": "cpu,cpu", "TTS_GPUS": "cpu,cpu", "FAKE_TTS_DELAY_MS": "30"}
    async with serving(tmp_path, WORKERS=workers, **settings) as served:
        client = NlsClient(served.ws)
        text = "a" * 60 + ". " + "b" * 60 + "."
        began = time.monotonic()

        async def hear() -> list[tuple[int, int, int, str]]:
            pcm = speech().tobytes()

            async def frames() -> AsyncIterator[bytes]:
                for start in range(0, len(pcm), 3200):
                    yield pcm[start : start + 3200]
                    await asyncio.sleep(0.05)

            return finals(await client.transcribe(frames()))

        async def kill() -> int:
            killed = 0
            for _ in range(4):
                await asyncio.sleep(0.8)
                for child in served.children("app.serving.worker")[killed % 2 :: 2]:
                    _kill(child)
                    killed += 1
                print(f"{killed} killed at {time.monotonic() - began:.2f} s")  # shown on failure
            return killed

        heard, spoken, killed = await asyncio.gather(
            asyncio.gather(*(hear() for _ in range(6))),
            asyncio.gather(*(client.synthesize(text) for _ in range(6))),
            kill(),
        )
        repeated = await counted(served, "tasks_repeated_total")
    assert killed >= 6
    assert repeated > 0  # they met running tasks
    for sentences in heard:
        assert [each for *_, each in sentences] == [f"heard {ms} ms" for ms in SENTENCES]
    for audio in spoken:
        assert len(audio) == len(spoken[0]) == 2 * 16_000 * 122 // 5


def _kill(process: psutil.Process) -> None:
    process.kill()
