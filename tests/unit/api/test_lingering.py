"""Uploads that are refused before they were read: the client must still get to see the refusal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.api import lingering
from app.api.connections import NlsHttpProtocol

MIB = 1024 * 1024
LARGE = 8 * MIB
"""More than two kernels take for a connection that nobody reads."""

REFUSAL = b"no"


class Refuser:
    """Answers at once, whatever comes. ``/read`` reads first; ``/close`` ends the connection."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.paths.append(scope["path"])
        if scope["path"] == "/read":
            while (await receive()).get("more_body"):
                pass
        headers = [(b"content-length", b"%d" % len(REFUSAL))]
        if scope["path"] == "/close":
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": REFUSAL})


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(20):
            yield reader, writer
    finally:
        writer.transport.abort()


async def upload(writer: asyncio.StreamWriter, head: bytes, size: int, piece: int = MIB) -> None:
    """All of a request, as a client sends it that does not look for an answer before its end."""
    writer.write(head)
    for start in range(0, size, piece):
        writer.write(bytes(min(piece, size - start)))
        await writer.drain()


def post(path: str, size: int, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {size}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(len(REFUSAL)) == REFUSAL
    return head


@pytest.mark.parametrize(
    ("path", "headers"), [("/x", ["Connection: close"]), ("/close", []), ("/x", [])]
)
async def test_a_refusal_reaches_a_client_that_first_sends_everything(
    live: Any, path: str, headers: list[str]
) -> None:
    async with live(Refuser()) as port, connected(port) as (reader, writer):
        await upload(writer, post(path, LARGE, *headers), LARGE)
        assert (await answer(reader)).startswith(b"HTTP/1.1 401 ")
        if headers or path == "/close":
            assert await reader.read() == b""  # ended, and not reset


async def test_a_chunked_upload_too(live: Any) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with live(Refuser()) as port, connected(port) as (reader, writer):
        writer.write(head)
        for _ in range(LARGE // MIB):
            writer.write(b"%x\r\n" % MIB + bytes(MIB) + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        assert (await answer(reader)).startswith(b"HTTP/1.1 401 ")
        assert await reader.read() == b""


async def test_the_next_request_of_a_connection_is_served_after_the_rest_of_a_body(
    live: Any,
) -> None:
    app = Refuser()
    async with live(app) as port, connected(port) as (reader, writer):
        for _ in range(2):
            await upload(writer, post("/x", LARGE), LARGE)
            await answer(reader)
        await upload(writer, post("/read", 10) + bytes(10) + post("/last", 10), 10)
        await answer(reader)
        await answer(reader)
    assert app.paths == ["/x", "/x", "/read", "/last"]


async def test_a_request_behind_the_last_one_is_not_served(live: Any) -> None:
    app = Refuser()
    async with live(app) as port, connected(port) as (reader, writer):
        writer.write(post("/close", 10) + b"12345")
        await answer(reader)
        writer.write(b"67890" + post("/behind", 0))
        assert await reader.read() == b""
    assert app.paths == ["/close"]


async def test_what_is_dropped_takes_no_memory(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []

    class Watched(NlsHttpProtocol):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            held.append(len(self.cycle.body) if self.cycle is not None else 0)

    monkeypatch.setattr("app.api.server.NlsHttpProtocol", Watched)
    async with live(Refuser()) as port, connected(port) as (reader, writer):
        await upload(writer, post("/close", LARGE), LARGE)
        await answer(reader)
    assert sum(size > 0 for size in held) <= 2  # what came before the answer
    assert max(held) < MIB


@pytest.mark.parametrize("path", ["/x", "/close"])
async def test_a_client_that_stalls_is_cut_off(
    live: Any, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lingering, "LINGER_IDLE_S", 0.05)
    async with live(Refuser()) as port, connected(port) as (reader, writer):
        writer.write(post(path, LARGE) + b"some")
        await answer(reader)
        assert await reader.read() == b""


@pytest.mark.parametrize("name", ["LINGER_S", "LINGER_BYTES"])
async def test_a_client_that_never_ends_is_cut_off(
    live: Any, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lingering, "LINGER_IDLE_S", 0.05)
    monkeypatch.setattr(lingering, name, 0)
    if name == "LINGER_S":
        monkeypatch.setattr(lingering, "LINGER_BYTES", 1 << 62)
    async with live(Refuser()) as port, connected(port) as (reader, writer):
        writer.write(post("/x", 1 << 60))
        await answer(reader)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(MIB))
                await writer.drain()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_broken_body_ends_the_connection(live: Any) -> None:
    head = b"POST /close HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with live(Refuser()) as port, connected(port) as (reader, writer):
        writer.write(head)
        await answer(reader)
        writer.write(b"no size\r\n")
        assert await reader.read() == b""  # no second answer behind the first


async def test_a_connection_at_rest_ends_some_time_after_the_rest_of_a_body(
    live: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Impatient(NlsHttpProtocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.timeout_keep_alive = 0.05  # type: ignore[assignment]  # whole seconds there

    monkeypatch.setattr("app.api.server.NlsHttpProtocol", Impatient)
    async with live(Refuser()) as port, connected(port) as (reader, writer):
        writer.write(post("/x", 10) + b"12345")
        await answer(reader)
        writer.write(b"67890")
        assert await reader.read() == b""


@pytest.mark.parametrize("rest", [b"67890", b""])
async def test_a_server_that_stops_waits_a_moment(
    live: Any, rest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocols: list[NlsHttpProtocol] = []

    class Watched(NlsHttpProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's too
            protocols.append(self)
            super().connection_made(transport)

    monkeypatch.setattr("app.api.server.NlsHttpProtocol", Watched)
    monkeypatch.setattr(lingering, "_LAST_LINGER_S", 0.2)
    async with live(Refuser()) as port, connected(port) as (reader, writer):
        writer.write(post("/x", 10) + b"12345")
        await answer(reader)
        protocols[0].shutdown()
        assert not protocols[0].transport.is_closing()
        writer.write(rest)
        assert await reader.read() == b""


async def test_the_doors_refusals_reach_their_clients(
    world: Any, live: Any, locked: dict[str, Any], small: dict[str, Any]
) -> None:
    for settings, status, code in ((locked, 401, 40000001), (small, 413, 40000000)):
        async with live(world.app(**settings)) as port, connected(port) as (reader, writer):
            await upload(writer, post("/stream/v1/asr", LARGE, "Connection: close"), LARGE)
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert json.loads(body)["status"] == code
