"""From a URL to what was said, with a recogniser that does as each test tells it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from app.audio.loudness import LoudnessMeter
from app.core.errors import (
    AudioTooLong,
    BadAudio,
    DeadlineExceeded,
    EngineUnavailable,
    FileNotFound,
    SpeechError,
    StreamsFull,
)
from app.core.speech import RecognitionRequest, SentenceEnded, Word
from app.jobs.store import Job
from app.jobs.transcription import Transcriber
from app.nls.file_transcription import TranscribedSentence, Transcription, TranscriptionOrder
from app.services.fetch import FetchLimits
from app.services.files import Recogniser
from app.services.spool import Spool

LIMITS = FetchLimits(max_bytes=1_000, timeout_s=10.0, allow_private=True)
WORDS = (Word("你好", 0, 200), Word("世界", 250, 500))


class Task:
    """A tone of 500 ms, in each channel."""

    meter: LoudnessMeter | None = None

    def __init__(self, service: Service) -> None:
        self.audio_ms = service.audio_ms
        self.channels = 2
        self.heard_as: dict[str, object] = {}
        self._finished = asyncio.Event()

    async def feed_all(self, data: bytes) -> None:
        assert data == b"RIFF"

    def finish(self) -> None:
        if self.meter is not None:
            self.meter.feed(np.full(8_000, 1_000, np.int16), 16_000)
        self._finished.set()

    async def events(self) -> AsyncIterator[SentenceEnded]:
        await self._finished.wait()
        yield SentenceEnded(0, 500, "你好，世界。", WORDS)
        yield SentenceEnded(600, 700, " ")


class Service:
    """``refusals`` come before the first task that is granted."""

    def __init__(self) -> None:
        self.audio_ms = 700
        self.refusals: list[SpeechError] = []
        self.requests: list[RecognitionRequest] = []
        self.max_file_bytes: list[int | None] = []
        self.closed = 0

    @asynccontextmanager
    async def open(
        self, request: RecognitionRequest, *, max_file_bytes: int | None = None
    ) -> AsyncIterator[Task]:
        if self.refusals:
            raise self.refusals.pop(0)
        self.requests.append(request)
        self.max_file_bytes.append(max_file_bytes)
        try:
            yield Task(self)
        finally:
            self.closed += 1


@asynccontextmanager
async def site(answer: bytes) -> AsyncIterator[str]:
    """A web server that answers everything with ``answer``."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.wav"


def answer(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def transcribed(
    service: Service, folder: Path, answered: bytes, max_wait_s: float = 60.0, **order: Any
) -> Transcription:
    spool = Spool(folder, LIMITS.max_bytes)
    work = Transcriber(cast(Recogniser, service), spool, LIMITS, max_wait_s)
    try:
        async with site(answered) as url:
            wanted = TranscriptionOrder(url=url, request=RecognitionRequest(task_id="t"), **order)
            request = msgspec.json.encode(wanted).decode()
            found = await work(Job(id="t", kind="transcription", appkey="k", request=request))
        return msgspec.json.decode(found, type=Transcription)
    finally:
        assert (spool.used, os.listdir(folder)) == (0, [])
        assert service.closed == len(service.requests)


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each pause would have been."""
    paused: list[float] = []
    sleep = asyncio.sleep

    async def noted(pause_s: float) -> None:
        if pause_s:
            paused.append(pause_s)
        await sleep(0)

    monkeypatch.setattr("app.jobs.transcription.asyncio.sleep", noted)
    return paused


async def test_what_was_said_and_how_loud(tmp_path: Path) -> None:
    service = Service()
    found = await transcribed(service, tmp_path, answer(b"RIFF"))
    assert found == Transcription(700, (TranscribedSentence(0, 0, 500, "你好，世界。", 60.0),))
    assert service.max_file_bytes == [LIMITS.max_bytes]


async def test_each_channel_with_words(tmp_path: Path) -> None:
    found = await transcribed(Service(), tmp_path, answer(b"RIFF"), channels="each", words=True)
    assert [each.channel for each in found.sentences] == [0, 1]
    assert [each.words for each in found.sentences] == [WORDS, WORDS]


async def test_sentences_are_cut_as_they_are_asked_for(tmp_path: Path) -> None:
    found = await transcribed(Service(), tmp_path, answer(b"RIFF"), marks="，")
    assert [(each.text, each.start_ms, each.end_ms, each.words) for each in found.sentences] == [
        ("你好，", 0, 200, ()),
        ("世界。", 250, 500, ()),
    ]


async def test_it_waits_for_an_engine(tmp_path: Path, no_pause: list[float]) -> None:
    service = Service()
    service.refusals = [StreamsFull(), EngineUnavailable(), *(StreamsFull() for _ in range(4))]
    found = await transcribed(service, tmp_path, answer(b"RIFF"))
    assert len(found.sentences) == 1
    assert no_pause == [1, 2, 4, 8, 15, 15]


async def test_it_does_not_wait_for_ever(tmp_path: Path, no_pause: list[float]) -> None:
    service = Service()
    service.refusals = [StreamsFull() for _ in range(100)]
    with pytest.raises(DeadlineExceeded):
        await transcribed(service, tmp_path, answer(b"RIFF"), max_wait_s=60)
    assert sum(no_pause) >= 60 > sum(no_pause[:-1])


async def test_a_file_without_audio(tmp_path: Path) -> None:
    service = Service()
    service.audio_ms = 0
    with pytest.raises(BadAudio):
        await transcribed(service, tmp_path, answer(b""))


@pytest.mark.parametrize(
    ("answered", "error"),
    [(answer(b"x", "404 Not Found"), FileNotFound), (answer(b"x" * 1_001), AudioTooLong)],
)
async def test_a_url_that_gives_nothing_usable(
    tmp_path: Path, answered: bytes, error: type[SpeechError]
) -> None:
    with pytest.raises(error):
        await transcribed(Service(), tmp_path, answered)
