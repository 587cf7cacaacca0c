"""The composition root: settings reach the doors."""

from __future__ import annotations

from typing import Any

import httpx

from app.api.drain import Drain
from app.core.config import Config
from app.main import build_access, build_app


def _client(world: Any, **settings: Any) -> httpx.AsyncClient:
    config = Config(**settings)
    app = build_app(
        config,
        pool=world.pool,
        recognition=world.recognition,
        synthesis=world.synthesis,
        voices=world.voices,
        access=build_access(config),
        drain=Drain(),
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_limits(world: Any) -> None:
    async with _client(world, max_text_chars=5, max_audio_bytes=10, max_audio_seconds=7) as client:
        text = await client.get("/stream/v1/tts", params={"text": "123456"})
        large = await client.post("/stream/v1/asr", content=b"x" * 11)
        await client.post("/stream/v1/asr", content=b"x" * 10)
    assert "at most 5" in text.json()["message"]
    assert large.status_code == 413
    assert world.recognition.requests[-1].max_audio_ms == 7000


async def test_credentials(world: Any) -> None:
    async with _client(world, apptoken="right-token-0123", appkey="key") as client:
        without = await client.get("/stream/v1/tts/voices")
        right = await client.get(
            "/stream/v1/tts/voices", headers={"X-NLS-Token": "right-token-0123"}
        )
    assert (without.status_code, right.status_code) == (401, 200)


async def test_development_mode_and_origins(world: Any) -> None:
    async with _client(world, debug=True, cors_origins="https://a.example") as client:
        docs = await client.get("/docs")
        health = await client.get("/health", headers={"Origin": "https://a.example"})
    assert docs.status_code == 200
    assert health.headers["access-control-allow-origin"] == "https://a.example"
