"""The end of a server: what runs is finished, what cannot be finished is ended early, and every
client is told."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from app.api import drain as drain_module
from app.client.errors import ClientError, NlsTaskFailed
from app.client.messages import Event
from app.client.nls import NlsClient
from app.client.tasks import RecognitionTask, SynthesisTask
from app.engines.fake.options import FakeOptions
from app.engines.fake.recognizer import FakeRecognizer
from app.engines.fake.synthesizer import FakeSynthesizer
from tests.support.live import Live, live_server
from tests.support.process import serving
from tests.support.rawsocket import BINARY, RawSocket, opened, start, stop, until
from tests.support.sound import tone

pytestmark = pytest.mark.xdist_group("processes")  # real processes: one at a time

UNAVAILABLE = 50000001
PIECE_BYTES = 16_000 * 2 * 400 // 1000
"""Of the fake engine's pieces, at the rate that is synthesised unless told otherwise."""


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


class Hold:
    """Lets an engine do ``free`` steps, and the others once it is released."""

    def __init__(self, free: int) -> None:
        self._left = free
        self._released = threading.Event()

    def step(self, seconds: float) -> None:
        """The engine's sleep."""
        self._left -= 1
        if self._left < 0:
            self._released.wait(60)

    def release(self) -> None:
        self._released.set()


@asynccontextmanager
async def held_server(
    folder: Path, *, asr_steps: int = 10_000, tts_steps: int = 10_000, **settings: Any
) -> AsyncIterator[tuple[Live, Hold]]:
    """A server whose engines stop after some steps; the Hold is the synthesis'."""
    hearing, speaking = Hold(asr_steps), Hold(tts_steps)
    asr = FakeRecognizer(FakeOptions(asr_delay_ms=1), sleep=hearing.step)
    tts = FakeSynthesizer(FakeOptions(tts_delay_ms=1), sleep=speaking.step)
    async with live_server(folder, asr=asr, tts=tts, **settings) as live:
        try:
            yield live, speaking
        finally:
            hearing.release()
            speaking.release()


async def begin(live: Live) -> None:
    """Begin to drain, and wait until no new tasks are taken."""
    live.begin_drain()
    await until(lambda: all(drain.refusing for drain, _ in live.apis))


async def ended(live: Live) -> None:
    """All servers come to their end by themselves."""
    await until(lambda: all(server.should_exit for _, server in live.apis))


async def transcribing(client: RawSocket, heard_ms: int) -> None:
    """Begin a transcription, and a sentence in it, of which everything was heard."""
    await client.text(start(enable_intermediate_result=True))
    await client.expect("TranscriptionStarted")
    await client.audio(tone(heard_ms).tobytes())
    await client.expect("SentenceBegin")
    while (await client.event())["payload"]["result"] != f"heard {heard_ms} ms":
        pass


async def failed_and_gone(client: RawSocket, code: int = UNAVAILABLE) -> dict[str, Any]:
    header: dict[str, Any] = (await client.expect("TaskFailed"))["header"]
    assert header["status"] == code
    assert header["status_text"].endswith("The server is shutting down, connect again!")
    assert await client.closed() == 1001
    return header


def messages(logged: list[Any], event: str) -> list[Any]:
    return [entry for entry in logged if entry["event"] == event]


# Inside one process


async def test_idle_connections_are_closed_and_new_ones_refused(
    tmp_path: Path, logged: list[Any]
) -> None:
    async with live_server(tmp_path) as live, opened(live) as client, opened(live) as other:
        await begin(live)
        assert await client.closed() == 1001
        assert await other.closed() == 1001
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(live.host, live.port)
        await ended(live)
    assert len(messages(logged, "drained")) == len(live.apis)
    assert not messages(logged, "ending tasks early")


async def test_running_tasks_complete_exactly(tmp_path: Path, logged: list[Any]) -> None:
    async with (
        held_server(tmp_path, tts_steps=1, drain_timeout_seconds=60) as (live, speaking),
        opened(live) as hears,
        opened(live) as speaks,
    ):
        await transcribing(hears, 400)
        await speaks.text(start("SpeechSynthesizer", text="a" * 40))
        size = len((await speaks.frame()).payload)
        await begin(live)
        await hears.audio(tone(300).tobytes())
        await hears.text(stop())
        events = await hears.until("TranscriptionCompleted")
        assert events[-2]["payload"]["result"] == "heard 700 ms"
        assert await hears.closed() == 1001
        assert not all(server.should_exit for _, server in live.apis)
        speaking.release()
        while (got := await speaks.frame()).opcode == BINARY:
            size += len(got.payload)
        assert json.loads(got.payload)["header"]["name"] == "SynthesisCompleted"
        assert size == 40 * 200 * 32
        assert await speaks.closed() == 1001
        await ended(live)
    assert len(messages(logged, "task completed")) == 2
    assert not messages(logged, "client disconnected")
    assert not messages(logged, "ending tasks early")


async def test_at_the_deadline_the_open_sentence_is_delivered(
    tmp_path: Path, logged: list[Any]
) -> None:
    async with (
        live_server(tmp_path, drain_timeout_seconds=0) as live,
        opened(live) as client,
    ):
        await transcribing(client, 1000)
        await begin(live)
        assert (await client.expect("SentenceEnd"))["payload"]["result"] == "heard 1000 ms"
        await failed_and_gone(client)
        await ended(live)
    assert [entry["code"] for entry in messages(logged, "task refused or failed")] == [UNAVAILABLE]
    assert len(messages(logged, "ending tasks early")) == 1
    assert not messages(logged, "task completed")
    assert not messages(logged, "client disconnected")


async def test_at_the_deadline_a_synthesis_delivers_what_it_has(tmp_path: Path) -> None:
    async with (
        held_server(tmp_path, tts_steps=3, drain_timeout_seconds=0) as (live, _),
        opened(live) as client,
    ):
        await client.text(start("SpeechSynthesizer", text="a" * 40))
        first = await client.frame()
        assert first.opcode == BINARY
        size = len(first.payload)
        while size < 2 * PIECE_BYTES:
            size += len((await client.frame()).payload)
        await begin(live)
        while (got := await client.frame()).opcode == BINARY:
            size += len(got.payload)
        header = json.loads(got.payload)["header"]
        assert (header["name"], header["status"]) == ("TaskFailed", UNAVAILABLE)
        assert size <= 3 * PIECE_BYTES
        assert await client.closed() == 1001
        await ended(live)


async def test_an_engine_that_does_not_answer_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[Any]
) -> None:
    monkeypatch.setattr(drain_module, "EARLY_FINISH_S", 0.05)
    async with (
        held_server(tmp_path, asr_steps=0, drain_timeout_seconds=0) as (live, _),
        opened(live) as client,
    ):
        await client.text(start())
        await client.expect("TranscriptionStarted")
        await client.audio(tone(1000).tobytes())
        await begin(live)
        await failed_and_gone(client)
        await ended(live)
    assert not messages(logged, "client disconnected")


async def test_during_the_delay_everything_is_served_but_readiness(tmp_path: Path) -> None:
    async with live_server(tmp_path, drain_delay_seconds=60) as live:
        live.begin_drain()
        async with httpx.AsyncClient(base_url=live.http) as http:
            ready = await http.get("/health/ready")
            alive = await http.get("/health/live")
        assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
        assert alive.status_code == 200
        assert "connection" not in alive.headers
        async with opened(live) as client:
            await transcribing(client, 400)
            live.begin_drain()  # the second time: at once
            await failed_and_gone(client)
        await ended(live)


async def test_a_client_that_leaves_in_a_drain_is_still_one_that_left(
    tmp_path: Path, logged: list[Any]
) -> None:
    async with (
        live_server(tmp_path, drain_timeout_seconds=60) as live,
        opened(live) as client,
    ):
        await transcribing(client, 400)
        await begin(live)
        client.abort(reset=False)
        await ended(live)
    assert len(messages(logged, "client disconnected")) == 1


async def _http(live: Live) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(live.host, live.port)


async def _head(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\r\n\r\n")).decode().lower()


async def test_kept_alive_connections_are_told_to_go(tmp_path: Path) -> None:
    request = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    upgrade = (
        b"GET /ws/v1 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    async with (
        # One API server: another one, with nothing to wait for, would be gone before its clients.
        live_server(tmp_path, apis=1, drain_timeout_seconds=60) as live,
        opened(live) as holding,
    ):
        await transcribing(holding, 400)
        kept = [await _http(live) for _ in range(2)]
        for reader, writer in kept:
            writer.write(request)
            assert "connection:" not in await _head(reader)
            await reader.readexactly(len(b'{"status":"alive"}'))
        await begin(live)

        reader, writer = kept[0]
        writer.write(request)
        answer = (await reader.read()).decode().lower()  # to the end of the connection
        assert answer.startswith("http/1.1 200")
        assert "connection: close" in answer
        assert answer.endswith('{"status":"alive"}')
        writer.close()

        reader, writer = kept[1]
        writer.write(upgrade)
        assert (await _head(reader)).startswith("http/1.1 101")
        late = RawSocket(reader, writer)
        await late.text(start())
        await failed_and_gone(late, code=40000005)

        await holding.text(stop())
        await holding.until("TranscriptionCompleted")
        assert await holding.closed() == 1001
        await ended(live)


async def test_a_request_in_flight_is_answered(tmp_path: Path) -> None:
    audio = tone(500).tobytes()
    async with live_server(tmp_path, drain_timeout_seconds=60) as live:
        reader, writer = await _http(live)
        writer.write(
            b"POST /stream/v1/asr HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
            b"Content-Length: %d\r\n\r\n" % len(audio)
        )
        assert "100 continue" in await _head(reader)  # the server is waiting for the body
        await begin(live)
        assert not all(server.should_exit for _, server in live.apis)
        writer.write(audio)
        answer = (await reader.read()).decode()
        assert "connection: close" in answer.lower()
        assert "heard 500 ms" in answer
        writer.close()
        await ended(live)


# Real processes


async def _hear_until(events: AsyncIterator[Event], result: str) -> None:
    async for event in events:
        if event.payload.get("result") == result:
            return
    raise AssertionError(f"never {result}")


async def _spoken(task: SynthesisTask, begun: asyncio.Event) -> int:
    size = 0
    async for piece in task.audio():
        size += len(piece)
        begun.set()
    return size


@asynccontextmanager
async def _both(url: str) -> AsyncIterator[tuple[RecognitionTask, SynthesisTask]]:
    client = NlsClient(url)
    async with (
        client.transcriber(enable_intermediate_result=True) as hears,
        client.synthesizer("a" * 40) as speaks,
    ):
        yield hears, speaks


@pytest.mark.own_workers
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_sigterm_lets_running_tasks_complete(tmp_path: Path, workers: str) -> None:
    async with (
        serving(
            tmp_path, WORKERS=workers, DRAIN_TIMEOUT_SECONDS="60", FAKE_TTS_DELAY_MS="50"
        ) as served,
        _both(served.ws) as (hears, speaks),
    ):
        begun = asyncio.Event()
        speaking = asyncio.create_task(_spoken(speaks, begun))
        await hears.send(tone(600).tobytes())
        events = hears.events()
        await _hear_until(events, "heard 600 ms")
        await begun.wait()
        served.process.send_signal(signal.SIGTERM)
        await until(lambda: sum("draining" in line for line in served.output) == int(workers))
        for _ in range(10):
            await hears.send(tone(100).tobytes())
            await asyncio.sleep(0.1)  # real time, as a microphone
        await hears.stop()
        results = [e.payload["result"] async for e in events if e.name == "SentenceEnd"]
        assert results == ["heard 1600 ms"]
        assert await speaking == 40 * 200 * 32
        assert await asyncio.wait_for(served.process.wait(), 30) == 0
    log = served.log_file.read_text()
    assert "Traceback" not in log
    assert "client disconnected" not in log
    assert log.count("task completed") == 2


async def test_sigterm_with_a_short_timeout_delivers_the_open_sentence(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, DRAIN_TIMEOUT_SECONDS="0", FAKE_TTS_DELAY_MS="1000") as served,
        _both(served.ws) as (hears, speaks),
    ):
        begun = asyncio.Event()
        speaking = asyncio.create_task(_spoken(speaks, begun))
        await hears.send(tone(600).tobytes())
        events = hears.events()
        await _hear_until(events, "heard 600 ms")
        await begun.wait()
        served.process.send_signal(signal.SIGTERM)
        ends: list[str] = []
        with pytest.raises(NlsTaskFailed) as heard:
            async for event in events:
                assert event.name == "SentenceEnd"
                ends.append(event.payload["result"])
        assert ends == ["heard 600 ms"]
        with pytest.raises(NlsTaskFailed) as spoken:
            await speaking
        assert (heard.value.code, spoken.value.code) == (UNAVAILABLE, UNAVAILABLE)
        assert await asyncio.wait_for(served.process.wait(), 30) == 0
    log = served.log_file.read_text()
    assert "Traceback" not in log
    assert "client disconnected" not in log


@pytest.mark.own_workers
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_new_clients_are_refused_and_not_left_waiting(tmp_path: Path, workers: str) -> None:
    async with (
        serving(tmp_path, WORKERS=workers, DRAIN_TIMEOUT_SECONDS="60") as served,
        NlsClient(served.ws).transcriber() as task,
    ):
        await task.send(tone(600).tobytes())
        served.process.send_signal(signal.SIGTERM)
        await until(lambda: sum("draining" in line for line in served.output) == int(workers))
        async with asyncio.timeout(20):
            with pytest.raises(ConnectionRefusedError):
                while True:  # the listener may still be there when the log line is
                    _, writer = await asyncio.open_connection(
                        "127.0.0.1", int(served.http.rsplit(":", 1)[1])
                    )
                    writer.close()
        events = await task.finish()
        assert events[-2].payload["result"] == "heard 600 ms"
        assert await asyncio.wait_for(served.process.wait(), 30) == 0


async def test_a_second_sigterm_waits_for_nobody(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, DRAIN_TIMEOUT_SECONDS="600") as served,
        NlsClient(served.ws).transcriber() as task,
    ):
        served.process.send_signal(signal.SIGTERM)
        await until(lambda: any("draining" in line for line in served.output))
        served.process.send_signal(signal.SIGTERM)
        with pytest.raises(ClientError):
            # Without a Stop, which the server might still answer before the signal reaches it.
            async for _ in task.events():
                pass
        assert await asyncio.wait_for(served.process.wait(), 30) == 0


async def test_a_worker_that_dies_in_a_drain_is_replaced(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, DRAIN_TIMEOUT_SECONDS="60") as served,
        NlsClient(served.ws).transcriber() as task,
    ):
        served.process.send_signal(signal.SIGTERM)
        await until(lambda: any("draining" in line for line in served.output))
        for worker in served.children("app.serving.worker"):
            worker.kill()
        await until(lambda: sum("restarting it" in line for line in served.output) == 2)
        await task.cancel()
        assert await asyncio.wait_for(served.process.wait(), 30) == 0
