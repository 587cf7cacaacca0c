"""The composition root: settings reach the doors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.access.running import running_access
from app.api.drain import Drain
from app.core.config import Config
from app.main import build_app

Clients = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def serving(world: Any, tmp_path: Path) -> Clients:
    """A client of the doors, as the composition root builds them from these settings."""

    @asynccontextmanager
    async def client(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        config = Config.model_validate({"data_dir": tmp_path / "data", **settings})
        async with running_access(config) as access:
            app = build_app(
                config,
                pool=world.pool,
                recognition=world.recognition,
                synthesis=world.synthesis,
                voices=world.voices,
                access=access,
                drain=Drain(),
                fetch_folder=tmp_path,
            )
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                yield client

    return client


async def test_limits(world: Any, serving: Clients) -> None:
    async with serving(max_text_chars=5, max_audio_bytes=10, max_audio_seconds=7) as client:
        text = await client.get("/stream/v1/tts", params={"text": "123456"})
        large = await client.post("/stream/v1/asr", content=b"x" * 11)
        await client.post("/stream/v1/asr", content=b"x" * 10)
    assert "at most 5" in text.json()["message"]
    assert large.status_code == 413
    assert world.recognition.requests[-1].max_audio_ms == 7000


async def test_credentials(serving: Clients) -> None:
    async with serving(apptoken="right-token-0123", appkey="key") as client:
        without = await client.get("/stream/v1/tts/voices")
        right = await client.get(
            "/stream/v1/tts/voices", headers={"X-NLS-Token": "right-token-0123"}
        )
    assert (without.status_code, right.status_code) == (401, 200)


async def test_development_mode_and_origins(serving: Clients) -> None:
    async with serving(debug=True, cors_origins="https://a.example") as client:
        docs = await client.get("/docs")
        health = await client.get("/health", headers={"Origin": "https://a.example"})
    assert docs.status_code == 200
    assert health.headers["access-control-allow-origin"] == "https://a.example"


async def test_private_urls_are_refused_unless_they_are_allowed(serving: Clients) -> None:
    query = {"audio_address": "http://127.0.0.1:1/a.wav"}
    async with serving() as client:
        strict = await client.post("/stream/v1/asr", params=query)
    async with serving(allow_private_urls=True) as client:
        open_ = await client.post("/stream/v1/asr", params=query)
    assert "not on the public internet" in strict.json()["message"]
    assert "does not answer" in open_.json()["message"]
