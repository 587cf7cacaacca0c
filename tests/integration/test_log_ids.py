"""Every line of the log that belongs to a task says to which, and none says another's."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
import warnings
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from app.api import rest_asr
from app.client.errors import NlsTaskFailed
from app.client.nls import NlsClient, NlsConnection
from app.core import logs
from app.core.speech import SpeechEvent, SynthesisRequest
from app.services.recognition import RecognitionTask
from app.services.synthesis import SynthesisService
from tests.support.encoded import encoded
from tests.support.live import Live, live_server
from tests.support.rawsocket import handshake, opened, start, until
from tests.support.sound import tone

Record = dict[str, Any]

library = logging.getLogger("some.library")
"""Knows nothing of ids. Its messages name the task that they were logged for."""


@pytest.fixture
def records() -> Iterator[list[Record]]:
    """What this process logs from now on."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, warnings.showwarning)
    chatty = {name: logging.getLogger(name).level for name in logs._CHATTY}
    found: list[Record] = []
    logs.install("INFO", lambda record: found.append(dict(record)))
    yield found
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:], _, warnings.showwarning = before
    root.setLevel(before[1])
    for name, level in chatty.items():
        logging.getLogger(name).setLevel(level)


def noted(task_id: str) -> None:
    library.info("of task %s", task_id)


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both services log in all of their steps, on the event loop and in threads."""
    feed, close, events = RecognitionTask.feed, RecognitionTask.close, RecognitionTask.events
    tell, whole = SynthesisService.tell, SynthesisService.whole

    def talking_feed(task: RecognitionTask, data: bytes) -> None:
        noted(task._request.task_id)
        feed(task, data)

    async def talking_close(task: RecognitionTask) -> None:
        noted(task._request.task_id)
        await close(task)

    async def talking_events(task: RecognitionTask) -> AsyncGenerator[Any, None]:
        async for event in events(task):
            asyncio.get_running_loop().call_soon(noted, task._request.task_id)
            await asyncio.to_thread(noted, task._request.task_id)
            yield event

    async def talking_tell(
        service: SynthesisService, request: SynthesisRequest
    ) -> AsyncGenerator[bytes | SpeechEvent, None]:
        async for part in tell(service, request):
            noted(request.task_id)
            yield part

    async def talking_whole(service: SynthesisService, request: SynthesisRequest) -> bytes:
        noted(request.task_id)
        return await whole(service, request)

    monkeypatch.setattr(SynthesisService, "whole", talking_whole)
    monkeypatch.setattr(RecognitionTask, "feed", talking_feed)
    monkeypatch.setattr(RecognitionTask, "close", talking_close)
    monkeypatch.setattr(RecognitionTask, "events", talking_events)
    monkeypatch.setattr(SynthesisService, "tell", talking_tell)


async def connection(live: Live) -> set[str]:
    """Three tasks on one connection; their ids."""
    ids = set()
    async with NlsClient(live.ws).connect() as opened:
        ids.add(await transcription(opened))
        async with opened.synthesizer("ab") as speaking:
            ids.add(speaking.task_id)
            async for _ in speaking.audio():
                pass
        ids.add(await transcription(opened))
    return ids


async def transcription(opened: NlsConnection) -> str:
    async with opened.transcriber() as task:
        for _ in range(5):
            await task.send(tone(200).tobytes())
            await asyncio.sleep(0)
        await task.finish()
        return task.task_id


async def requests(live: Live) -> set[str]:
    """HTTP requests, one after the other on one TCP connection; the ids that they were told."""
    async with httpx.AsyncClient(base_url=live.http) as http:
        answers = [
            await http.post("/stream/v1/asr", content=tone(400).tobytes()),
            await http.get("/stream/v1/tts", params={"text": "ab"}),
            await http.get("/stream/v1/tts", params={"text": ""}),
            await http.post("/stream/v1/asr", content=tone(300).tobytes()),
        ]
    return {answer.headers["task_id"] for answer in answers}


async def test_under_load_each_line_names_its_own_task(
    tmp_path: Path, records: list[Record], talkative: None
) -> None:
    async with live_server(tmp_path) as live:
        by_connection = await asyncio.gather(*(connection(live) for _ in range(8)))
        by_http = await asyncio.gather(*(requests(live) for _ in range(8)))
    of_websockets, of_requests = set().union(*by_connection), set().union(*by_http)
    assert (len(of_websockets), len(of_requests)) == (24, 32)

    spoken = [record for record in records if record["logger"] == "some.library"]
    for record in spoken:
        assert record["event"] == f"of task {record.get('task_id')}"
    assert {record["task_id"] for record in spoken} >= of_websockets
    assert len({record["task_id"] for record in spoken} & of_requests) == 24  # one is refused

    connections: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.get("task_id") in of_websockets:
            assert record["namespace"] in ("SpeechTranscriber", "SpeechSynthesizer"), record
            connections[record["connection_id"]].add(record["task_id"])
        else:
            assert "connection_id" not in record, record
    assert sorted(map(sorted, connections.values())) == sorted(map(sorted, by_connection))

    completed = [record["task_id"] for record in records if record["event"] == "task completed"]
    assert sorted(completed) == sorted(of_websockets)
    asked = [record["task_id"] for record in records if record["event"] == "request"]
    assert sorted(asked) == sorted(of_requests)


async def test_between_tasks_a_connection_has_only_its_own_id(
    tmp_path: Path, records: list[Record]
) -> None:
    async with live_server(tmp_path) as live, NlsClient(live.ws).connect() as opened:
        task_id = await transcription(opened)
        (drain, _), *_ = [pair for pair in live.apis if pair[0]._connections]
        (driver,) = drain._connections
        driver._context.run(library.info, "between")  # type: ignore[attr-defined]  # looking inside
        async with opened.transcriber() as task:
            driver._context.run(library.info, "within")  # type: ignore[attr-defined]  # as above
            await task.finish()
    between, within = [record for record in records if record["logger"] == "some.library"]
    assert task_id != task.task_id
    assert between.keys() & {"connection_id", "task_id", "namespace"} == {"connection_id"}
    assert within["task_id"] == task.task_id
    assert within["namespace"] == "SpeechTranscriber"
    assert within["connection_id"] == between["connection_id"]


async def test_a_client_that_vanishes_and_one_that_fails(
    tmp_path: Path, records: list[Record]
) -> None:
    async with live_server(tmp_path) as live:
        client = await handshake(live)
        await client.text(start())
        await client.expect("TranscriptionStarted")
        client.abort(reset=True)
        await until(lambda: any(r["event"] == "client disconnected" for r in records))
        async with NlsClient(live.ws).connect() as opened:
            with pytest.raises(NlsTaskFailed):
                async with opened.transcriber(format="no such format"):
                    pass
    gone, refused = records
    assert re.fullmatch("[0-9a-f]{12}", gone["connection_id"])
    assert gone["connection_id"] != refused["connection_id"]
    assert gone["task_id"] != refused["task_id"]


async def test_a_drain_speaks_for_the_connection(tmp_path: Path, records: list[Record]) -> None:
    async with (
        live_server(tmp_path, drain_delay_seconds=0, drain_timeout_seconds=0) as live,
        opened(live) as client,
    ):
        await client.text(start())
        await client.expect("TranscriptionStarted")
        live.begin_drain()
        await until(lambda: any(r["event"] == "task refused or failed" for r in records))
    (failed,) = [r for r in records if r["event"] == "task refused or failed"]
    assert re.fullmatch("[0-9a-f]{12}", failed["connection_id"])
    assert failed["task_id"]


async def test_a_later_request_of_a_connection_does_not_inherit(
    tmp_path: Path, records: list[Record]
) -> None:
    """The loop copies the context of a request that resumed reading into the connection's
    callbacks; uvicorn logs there too."""
    async with live_server(tmp_path) as live:
        reader, writer = await asyncio.open_connection(live.host, live.port)
        body = tone(30_000).tobytes()  # so much that the server stops reading for a while
        head = f"POST /stream/v1/asr HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await reader.readuntil(b"}")
        writer.write(b"this is no request\r\n\r\n")
        await reader.read()
        writer.close()
    (line,) = [record for record in records if record["logger"] == "uvicorn.error"]
    assert line["event"] == "Invalid HTTP request received."
    assert "task_id" not in line


async def test_what_nobody_expected_in_a_request(
    tmp_path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        noted("x")
        raise RuntimeError("a bug")

    monkeypatch.setattr(rest_asr, "admit", broken)
    async with live_server(tmp_path) as live, httpx.AsyncClient(base_url=live.http) as http:
        answer = await http.post("/stream/v1/asr", content=b"")
    assert answer.status_code == 500
    assert uuid.UUID(answer.json()["task_id"])
    assert len(records) == 3
    assert {record["task_id"] for record in records} == {answer.json()["task_id"]}


@pytest.mark.parametrize(
    ("format", "sent", "audio", "audio_s"),
    [
        ("mp3", encoded("mp3-lame", tone(1_500), 16_000), "mp3", 1.5),
        ("wav", encoded("flac", tone(1_500), 16_000), "flac", 1.5),
        # What is labelled wrongly and begins like nothing known: no error, but it can be seen.
        ("wav", b"\xff\xfb" + bytes(31_998), "pcm", 1.0),
    ],
)
async def test_what_a_recognition_was_taken_for_is_seen(
    format: str, sent: bytes, audio: str, audio_s: float, tmp_path: Path, records: list[Record]
) -> None:
    async with live_server(tmp_path) as live, NlsClient(live.ws).connect() as opened:
        async with opened.transcriber(format=format) as task:
            await task.send(sent)
            await task.finish()
        async with httpx.AsyncClient(base_url=live.http) as http:
            answer = await http.post("/stream/v1/asr", params={"format": format}, content=sent)
            assert answer.status_code == 200
    lines = [each for each in records if each["event"] in ("task completed", "request")]
    assert [each["event"] for each in lines] == ["task completed", "request"]
    assert [(each["audio"], each["audio_s"]) for each in lines] == [(audio, audio_s)] * 2
