"""Every HTTP route without a token, with a wrong one and with the right one, however it is sent;
and that nobody logs one."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from app.access.policy import AccessPolicy

TOKEN = "right-token-0123"
KEY = "right-appkey-0123"
WRONG = "wrong-and-secret-token-wrong"

LOCKED: dict[str, dict[str, Any]] = {
    "POST /stream/v1/asr": {"content": b"audio"},
    "POST /stream/v1/FlashRecognizer": {"params": {"format": "pcm"}, "content": b"audio"},
    "GET /stream/v1/tts": {"params": {"text": "hi"}},
    "POST /stream/v1/tts": {"json": {"text": "hi"}},
    "GET /metrics": {},
    "GET /stream/v1/asr/models": {},
    "GET /stream/v1/tts/voices": {},
    "GET /stream/v1/tts/voices/info": {},
    "POST /stream/v1/tts/voices/refresh": {},
}
OPEN = [
    "GET /",
    "GET /health",
    "GET /health/live",
    "GET /health/ready",
    "GET /stream/v1/asr/health",
    "GET /stream/v1/tts/health",
]
SIGNED = ["POST /"]
"""With keys of its own: see test_pop_door.py."""


async def _ask(client: httpx.AsyncClient, route: str, **given: Any) -> httpx.Response:
    method, path = route.split()
    options: dict[str, Any] = {**LOCKED.get(route, {})}
    for name, value in given.items():
        options[name] = {**options.get(name, {}), **value}
    return await client.request(method, path, **options)


def test_no_route_is_forgotten(world: Any) -> None:
    paths = world.app(debug=True).openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert routes == {*LOCKED, *OPEN, *SIGNED}


@pytest.mark.parametrize("route", LOCKED)
async def test_locked_routes(world: Any, locked: dict[str, Any], route: str) -> None:
    async with world.client(**locked) as client:
        without = await _ask(client, route)
        wrong = await _ask(client, route, headers={"X-NLS-Token": WRONG})
        short = await _ask(client, route, headers={"X-NLS-Token": "abc"})
        touched = len(world.recognition.requests) + len(world.synthesis.requests)
        right = [
            await _ask(client, route, headers={"X-NLS-Token": TOKEN}),
            await _ask(client, route, headers={"x-nls-token": TOKEN}),
            await _ask(client, route, headers={"Authorization": f"Bearer {TOKEN}"}),
            await _ask(client, route, params={"token": TOKEN}),
        ]
    for refused in (without, wrong, short):
        body = refused.json()
        assert (refused.status_code, body["status"], body["result"]) == (401, 40000001, "")
        assert refused.headers["task_id"] == body["task_id"] != ""
    start = "Gateway:ACCESS_DENIED:"
    assert without.json()["message"].startswith(f"{start}Missing authorization header")
    assert wrong.json()["message"] == f"{start}The token 'wron****rong' is invalid!"
    assert short.json()["message"] == f"{start}The token '****' is invalid!"
    assert touched == 0
    assert [answer.status_code for answer in right] == [200] * 4


@pytest.mark.parametrize("route", OPEN)
async def test_open_routes(world: Any, locked: dict[str, Any], route: str) -> None:
    async with world.client(**locked) as client:
        without = await _ask(client, route)
        wrong = await _ask(client, route, headers={"X-NLS-Token": WRONG})
    assert without.status_code == wrong.status_code == 200
    assert TOKEN not in without.text


@pytest.mark.parametrize("route", LOCKED)
async def test_appkey_is_the_credential_where_it_is_the_only_one(world: Any, route: str) -> None:
    async with world.client(access=AccessPolicy(None, KEY)) as client:
        refused = [
            await _ask(client, route),
            await _ask(client, route, params={"appkey": "wrong"}),
            await _ask(client, route, headers={"X-NLS-Token": KEY}),
        ]
        right = await _ask(client, route, params={"appkey": KEY})
    assert [answer.status_code for answer in refused] == [401] * 3
    assert right.status_code == 200


async def test_header_wins_over_query(world: Any, locked: dict[str, Any]) -> None:
    async with world.client(**locked) as client:
        answer = await client.get(
            "/stream/v1/tts/voices", headers={"X-NLS-Token": WRONG}, params={"token": TOKEN}
        )
    assert answer.status_code == 401


async def test_token_and_appkey_in_the_body(world: Any) -> None:
    async with world.client(access=AccessPolicy(TOKEN, None)) as client:
        right = await client.post("/stream/v1/tts", json={"text": "hi", "token": TOKEN})
        wrong = await client.post("/stream/v1/tts", json={"text": "hi", "token": WRONG})
        odd = await client.post("/stream/v1/tts", json={"text": "hi", "token": [TOKEN]})
        unread = await client.post("/stream/v1/tts", content=b"{")
    assert [a.status_code for a in (right, wrong, odd, unread)] == [200, 401, 401, 401]
    async with world.client(access=AccessPolicy(None, KEY)) as client:
        right = await client.post("/stream/v1/tts", json={"text": "hi", "appkey": KEY})
        wrong = await client.post("/stream/v1/tts", json={"text": "hi", "appkey": "k"})
    assert [a.status_code for a in (right, wrong)] == [200, 401]


async def test_token_that_is_not_ascii(world: Any) -> None:
    token = "口令" * 8
    async with world.client(access=AccessPolicy(token, None)) as client:
        answer = await client.get("/stream/v1/tts/voices", headers={"X-NLS-Token": token.encode()})
    assert answer.status_code == 200


async def test_no_log_line_has_a_token_or_a_text(
    world: Any, live: Any, logged: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        live(world.app(access=AccessPolicy(TOKEN, None))) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        for token in (TOKEN, WRONG):
            query = {"token": token, "text": "my private words"}
            await client.get("/stream/v1/tts", params=query)
            await client.post("/stream/v1/tts", json=query)
            await client.post("/nowhere", params=query)
    ours = [record for record in caplog.records if not record.name.startswith("http")]
    lines = str(logged) + "".join(record.getMessage() for record in ours)
    assert "'path': '/stream/v1/tts'" in lines
    for secret in (TOKEN, WRONG, "private"):
        assert secret not in lines
