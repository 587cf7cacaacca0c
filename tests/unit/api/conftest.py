"""Services that do what a test tells them, and two ways to reach the doors on them: in memory, and
through a real uvicorn on a free port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI

from app.access.policy import AccessPolicy
from app.api.doors import Doors, Limits
from app.api.server import build_server
from app.core.errors import SpeechError
from app.core.speech import (
    AudioProcessed,
    RecognitionRequest,
    SentenceBegan,
    SentenceChanged,
    SentenceEnded,
    SynthesisRequest,
    Voice,
)
from app.engines.base import RecognizerCapabilities, SynthesizerCapabilities
from app.main import mount

TOKEN = "right-token-0123"


class FakeTask:
    """Answers ``texts`` as sentences once it was told that no more audio comes."""

    audio_ms = 1_500

    def __init__(self, service: FakeRecognition, channel: int | None) -> None:
        self._service = service
        self.channels = service.channels
        self._sentences = service.sentences.get(channel)
        self._finished = asyncio.Event()

    @property
    def heard_as(self) -> dict[str, object]:
        return {"audio": "pcm", "audio_s": 1.5}

    async def feed_all(self, data: bytes) -> None:
        self._service.pieces.append(data)
        self._service.fed.set()
        if self._service.feed_error is not None:
            raise self._service.feed_error

    def finish(self) -> None:
        self._finished.set()

    async def events(self) -> AsyncIterator[object]:
        await self._finished.wait()
        if self._service.hangs:
            self._service.hanging.set()
            await asyncio.Event().wait()
        if self._service.events_error is not None:
            raise self._service.events_error
        said = [SentenceEnded(0, 200, text) for text in self._service.texts]
        for sentence in said if self._sentences is None else self._sentences:
            yield SentenceBegan(0)
            yield SentenceChanged("not final", 100)
            yield sentence
            yield AudioProcessed(200)


@dataclass
class FakeRecognition:
    """``sentences``: in place of ``texts``, by the channel that is asked for."""

    texts: list[str] = field(default_factory=lambda: ["hello world"])
    sentences: dict[int | None, list[SentenceEnded]] = field(default_factory=dict)
    channels: int = 1
    open_error: Exception | None = None
    feed_error: SpeechError | None = None
    events_error: SpeechError | None = None
    hangs: bool = False
    requests: list[RecognitionRequest] = field(default_factory=list)
    max_file_bytes: int | None = None
    pieces: list[bytes] = field(default_factory=list)
    fed: asyncio.Event = field(default_factory=asyncio.Event)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def audio(self) -> bytes:
        return b"".join(self.pieces)

    @asynccontextmanager
    async def open(
        self, request: RecognitionRequest, *, max_file_bytes: int | None = None
    ) -> AsyncIterator[FakeTask]:
        self.requests.append(request)
        self.max_file_bytes = max_file_bytes
        if self.open_error is not None:
            raise self.open_error
        try:
            yield FakeTask(self, request.channel)
        finally:
            self.closed.set()


@dataclass
class FakeSynthesis:
    pieces: list[bytes] = field(default_factory=lambda: [b"head" * 11, b"a" * 100, b"b" * 100])
    check_error: Exception | None = None
    error_after: int | None = None
    error: Exception | None = None
    hangs: bool = False
    requests: list[SynthesisRequest] = field(default_factory=list)
    buffered: int = 0
    streamed: int = 0
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    def check(self, request: SynthesisRequest) -> None:
        self.requests.append(request)
        if self.check_error is not None:
            raise self.check_error

    async def speak(self, request: SynthesisRequest) -> AsyncGenerator[bytes, None]:
        self.streamed += 1
        try:
            for index, piece in enumerate(self.pieces):
                if index == self.error_after:
                    assert self.error is not None
                    raise self.error
                yield piece
            if self.hangs:
                self.hanging.set()
                await asyncio.Event().wait()
        finally:
            self.closed.set()

    tell = speak  # without any event

    async def whole(self, request: SynthesisRequest) -> bytes:
        self.buffered += 1
        try:
            if self.error is not None:
                raise self.error
            if self.hangs:
                self.hanging.set()
                await asyncio.Event().wait()
            return b"".join(self.pieces)
        finally:
            self.closed.set()


RECOGNIZER = RecognizerCapabilities(
    sample_rate=16_000,
    languages=("en-US",),
    step_ms=200,
    partials=True,
    word_times=False,
    own_endpointing=True,
    max_sessions=4,
    max_sentences=4,
    notice="English commands only.",
)
VOICES = (
    Voice(name="中文女", language="zh-CN", gender="female", description="标准中文女声"),
    Voice(name="me", language="en-US", gender="unknown", kind="clone"),
)
SYNTHESIZER = SynthesizerCapabilities(
    sample_rate=22_050, languages=("zh-CN",), voices=VOICES[:1], notice="For trying out."
)


class FakePool:
    def __init__(self) -> None:
        self.down: set[str] = set()
        self.recognizer = RECOGNIZER

    roles = ("asr", "tts")

    def ready(self, role: str) -> bool:
        return role not in self.down

    def status(self, role: str) -> list[SimpleNamespace]:
        running = self.ready(role)
        return [
            SimpleNamespace(
                name=f"{role}-{index}",
                model="",
                role=role,
                ready=running,
                engine="embedded" if running else "",
                device="cpu" if running else "",
                active=index,
                capacity=4 if running else 0,
                capabilities=self._capabilities(role) if running else None,
            )
            for index in range(2)
        ]

    def _capabilities(self, role: str) -> RecognizerCapabilities | SynthesizerCapabilities:
        return self.recognizer if role == "asr" else SYNTHESIZER


class FakeVoices:
    def __init__(self) -> None:
        self.refreshed = 0

    def list(self) -> tuple[Voice, ...]:
        return VOICES

    def refresh(self) -> None:
        self.refreshed += 1


@dataclass
class World:
    """The fakes, and the doors on them."""

    recognition: FakeRecognition = field(default_factory=FakeRecognition)
    synthesis: FakeSynthesis = field(default_factory=FakeSynthesis)
    pool: FakePool = field(default_factory=FakePool)
    voices: FakeVoices = field(default_factory=FakeVoices)

    def app(self, **settings: Any) -> FastAPI:
        settings.setdefault("access", AccessPolicy(None, None))
        services: dict[str, Any] = {
            "recognition": self.recognition,
            "synthesis": self.synthesis,
            "pool": self.pool,
            "voices": self.voices,
        }
        return mount(Doors(**services, **settings))

    def client(self, **settings: Any) -> httpx.AsyncClient:
        """A client of the doors, in memory. An exception that leaves the application fails the
        test."""
        transport = httpx.ASGITransport(self.app(**settings))
        return httpx.AsyncClient(transport=transport, base_url="http://test")


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What our own loggers were told, instead of printing it."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def locked() -> dict[str, Any]:
    """Settings of doors that want ``right-token-0123``."""
    return {"access": AccessPolicy(TOKEN, None)}


@pytest.fixture
def small() -> dict[str, Any]:
    """Settings of doors with limits that a test can reach."""
    limits = Limits(max_text_chars=400, max_audio_bytes=1000, max_json_bytes=2000)
    return {"limits": limits}


@asynccontextmanager
async def _live(app: Any, max_message_bytes: int = 100_000) -> AsyncIterator[int]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = int(listener.getsockname()[1])
    started = asyncio.Event()
    server = build_server(app, max_message_bytes=max_message_bytes, on_started=started.set)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await started.wait()
        yield port
    finally:
        server.should_exit = True
        server.force_exit = True
        await serving


@pytest.fixture
def live() -> Callable[..., AbstractAsyncContextManager[int]]:
    """Serves an application with our uvicorn on a free port, which the block gets."""
    return _live
