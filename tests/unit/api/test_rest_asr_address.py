"""POST /stream/v1/asr with ``audio_address``: the server fetches the audio."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.doors import FETCH_LIMITS

URL = "/stream/v1/asr"
AUDIO = bytes(range(256)) * 2


class Site:
    """A web server that gives ``body``, or nothing and for ever while ``hangs``."""

    def __init__(self) -> None:
        self.port = 0
        self.body = AUDIO
        self.hangs = False
        self.asked = asyncio.Event()
        self.left = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/a.wav"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked.set()
        if self.hangs:
            await reader.read()  # until the other end closes
            self.left.set()
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.body))
            writer.write(self.body)
            await writer.drain()
        writer.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    found = Site()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    async with server:
        yield found


def files(folder: Path) -> list[Path]:
    """What is left in the folder."""
    return list(folder.iterdir())


@pytest.fixture
def fetching(tmp_path: Path) -> dict[str, Any]:
    """Settings of doors that fetch from this machine, too."""
    limits = dataclasses.replace(FETCH_LIMITS, max_bytes=1000, allow_private=True)
    return {"fetch": limits, "fetch_folder": tmp_path}


async def test_the_file_is_recognised_and_gone(
    world: Any, site: Site, fetching: dict[str, Any], tmp_path: Path
) -> None:
    query = {"audio_address": site.url, "format": "wav", "appkey": "k"}
    async with world.client(**fetching) as client:
        answer = await client.post(URL, params=query)
    assert answer.json()["result"] == "hello world"
    assert world.recognition.audio == AUDIO
    assert world.recognition.requests[0].format == "wav"
    assert not files(tmp_path)


async def test_a_body_beside_the_address_is_not_looked_at(
    world: Any, site: Site, fetching: dict[str, Any]
) -> None:
    async with world.client(**fetching) as client:
        await client.post(URL, params={"audio_address": site.url}, content=b"other")
    assert world.recognition.audio == AUDIO


@pytest.mark.parametrize(
    ("body", "http_status", "code"), [(b"", 400, 40000009), (b"x" * 1001, 400, 41010104)]
)
async def test_files_that_are_refused(
    world: Any,
    site: Site,
    fetching: dict[str, Any],
    tmp_path: Path,
    body: bytes,
    http_status: int,
    code: int,
) -> None:
    site.body = body
    async with world.client(**fetching) as client:
        answer = await client.post(URL, params={"audio_address": site.url})
    assert (answer.status_code, answer.json()["status"]) == (http_status, code)
    assert not world.recognition.requests
    assert not files(tmp_path)


async def test_a_private_address_is_refused_unless_it_is_allowed(world: Any, site: Site) -> None:
    async with world.client() as client:
        answer = await client.post(URL, params={"audio_address": site.url})
    assert (answer.status_code, answer.json()["status"]) == (400, 40000003)
    assert not site.asked.is_set()


async def test_a_wrong_token_fetches_nothing(
    world: Any, site: Site, fetching: dict[str, Any], locked: dict[str, Any]
) -> None:
    async with world.client(**fetching, **locked) as client:
        answer = await client.post(URL, params={"audio_address": site.url})
    assert answer.status_code == 401
    assert not site.asked.is_set()


async def test_a_client_that_leaves_ends_the_fetching(
    world: Any, site: Site, fetching: dict[str, Any], live: Any, tmp_path: Path
) -> None:
    site.hangs = True
    async with live(world.app(**fetching)) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        query = httpx.QueryParams({"audio_address": site.url})
        writer.write(
            f"POST {URL}?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
        )
        await asyncio.wait_for(site.asked.wait(), 10)
        writer.close()
        await asyncio.wait_for(site.left.wait(), 10)
    assert not world.recognition.requests
    assert not files(tmp_path)


async def test_the_url_is_not_logged(
    world: Any, site: Site, fetching: dict[str, Any], logged: list[Any]
) -> None:
    address = f"{site.url}?secret=signature"
    site.body = b""
    async with world.client(**fetching) as client:
        await client.post(URL, params={"audio_address": address})
    assert logged
    assert "signature" not in str(logged)
