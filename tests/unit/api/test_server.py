"""uvicorn as we set it up, over raw sockets: handshakes as SDKs send them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import signal
import socket
import struct
from typing import Any
from unittest.mock import Mock

import pytest
from fastapi import FastAPI, WebSocket

from app.access.policy import AccessPolicy
from app.api import connections
from app.api.auth import credentials
from app.api.connections import MAX_HEAD_BYTES, single_headers
from app.api.errors import deny_handshake
from app.api.server import build_server
from app.core.errors import AccessDenied

FIRST_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
SDK_KEY = "x3JJHMbDL1EzLkh9GBhXDw=="  # the constant of the official Python and C++ SDKs
TOKEN = "right-token-0123"


def _accept(key: str) -> str:
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    return base64.b64encode(digest).decode()


def _handshake(path: str, *headers: str, key: str = FIRST_KEY) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _frame(opcode: int, payload: bytes) -> bytes:
    """A masked client frame with the mask 0, which leaves the payload as it is."""
    if len(payload) < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | len(payload))
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, len(payload))
    return head + bytes(4) + payload


async def _ask(port: int, data: bytes) -> bytes:
    """What the server sends until it closes, or the end of its head if it stays open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = await reader.readuntil(b"\r\n\r\n")
    if b" 101 " not in answer.split(b"\r\n")[0]:
        answer += await reader.read()
    writer.close()
    return answer


@pytest.fixture
def echo() -> FastAPI:
    """A WebSocket door that echoes, behind the token."""
    app = FastAPI()
    access = AccessPolicy(TOKEN, None)

    @app.websocket("/ws/v1")
    async def door(websocket: WebSocket) -> None:
        try:
            access.check_handshake(credentials(websocket).token, token_in_message=False)
        except AccessDenied as error:
            await deny_handshake(websocket, error)
            return
        await websocket.accept()
        async for data in websocket.iter_bytes():
            await websocket.send_bytes(data)

    return app


AUTH = f"X-NLS-Token: {TOKEN}"


async def _open(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket connection after its handshake."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_handshake("/ws/v1", AUTH))
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_the_python_sdks_handshake_is_answered_by_its_first_key(
    echo: FastAPI, live: Any
) -> None:
    # In this order: nls/core.py adds the constant pair after the one of its WebSocket client.
    extra = (f"Sec-WebSocket-Key: {SDK_KEY}", "Sec-WebSocket-Version: 13", AUTH)
    async with live(echo) as port:
        answer = await _ask(port, _handshake("/ws/v1", *extra))
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert f"Sec-WebSocket-Accept: {_accept(FIRST_KEY)}\r\n".encode() in answer
    assert _accept(SDK_KEY).encode() not in answer


async def test_a_handshake_whose_pairs_a_proxy_has_merged(echo: FastAPI, live: Any) -> None:
    request = _handshake("/ws/v1", AUTH, key=f"{FIRST_KEY}, {SDK_KEY}")
    request = request.replace(b"Version: 13", b"Version: 13, 13")
    async with live(echo) as port:
        answer = await _ask(port, request)
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert _accept(FIRST_KEY).encode() in answer


def test_only_the_two_handshake_headers_are_reduced() -> None:
    headers = [
        (b"sec-websocket-key", b"a"),
        (b"x-many", b"1"),
        (b"sec-websocket-key", b"b"),
        (b"x-many", b"2, 3"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-version", b"8"),
    ]
    assert single_headers(headers) == [
        (b"sec-websocket-key", b"a"),
        (b"x-many", b"1"),
        (b"x-many", b"2, 3"),
        (b"sec-websocket-version", b"13"),
    ]


async def test_the_answer_is_small_and_offers_nothing(echo: FastAPI, live: Any) -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    async with live(echo) as port:
        answer = (await _ask(port, _handshake("/ws/v1", AUTH, offer))).lower()
    assert answer.startswith(b"http/1.1 101 ")
    assert b"sec-websocket-extensions" not in answer
    assert b"sec-websocket-protocol" not in answer
    assert b"\r\nserver:" not in answer
    assert len(answer) < 8192


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/ws/v1?token=bad-token-1234", "The token 'bad-****1234' is invalid!"),
        ("/ws/v1", "Missing authorization header"),
    ],
)
async def test_refused_handshake(
    echo: FastAPI, live: Any, path: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with live(echo) as port:
        answer = await _ask(port, _handshake(path))
        assert not caplog.records
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert f"\r\nContent-Length: {len(body)}\r\n".encode() in head + b"\r\n"
    assert body.startswith(f"Meta:ACCESS_DENIED:{text}".encode())


@pytest.mark.parametrize("path", ["/ws/v1/nowhere", "/", "/health"])
async def test_unknown_websocket_path_is_no_matter_of_tokens(
    world: Any, live: Any, path: str
) -> None:
    async with live(world.app()) as port:
        answer = await _ask(port, _handshake(path))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert answer.endswith(b"RESTful url path illegal")


async def test_tokens_in_urls_are_not_logged(
    echo: FastAPI, live: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # Whatever level the owner sets for everything.
    caplog.set_level(logging.DEBUG)
    async with live(echo) as port:
        await _ask(port, _handshake(f"/ws/v1?token={TOKEN}"))
        await _ask(port, _handshake("/ws/v1?token=bad-token-1234"))
        await _ask(port, _handshake(f"/nowhere?token={TOKEN}"))
        await _ask(port, f"GET /x?token={TOKEN} HTTP/1.0\r\n\r\n".encode())
        await _ask(port, f"nonsense token={TOKEN}\r\n\r\n".encode())
    assert TOKEN not in caplog.text
    assert "bad-token" not in caplog.text


async def test_oversize_message_closes_with_1009(echo: FastAPI, live: Any) -> None:
    async with live(echo, max_message_bytes=1000) as port:
        reader, writer = await _open(port)
        writer.write(_frame(2, b"x" * 1000))
        assert await reader.readexactly(4) == bytes([0x82, 126]) + struct.pack("!H", 1000)
        assert await reader.readexactly(1000) == b"x" * 1000
        writer.write(_frame(2, b"x" * 1001))
        head = await reader.readexactly(2)
        close = await reader.readexactly(head[1])
        writer.close()
    assert head[0] == 0x88
    assert struct.unpack("!H", close[:2]) == (1009,)


async def test_ping_is_answered_with_its_payload(echo: FastAPI, live: Any) -> None:
    async with live(echo) as port:
        reader, writer = await _open(port)
        writer.write(_frame(9, b"") + _frame(9, b"abc"))
        assert await reader.readexactly(7) == b"\x8a\x00\x8a\x03abc"
        writer.close()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /ws/v1 HTTP/1.1\r\n" + b"X-Long: " + b"x" * (MAX_HEAD_BYTES + 1),
        b"GET /" + b"x" * (MAX_HEAD_BYTES + 1),
        b"GET / HTTP/1.1\r\n" + b"X-Many: 1\r\n" * (MAX_HEAD_BYTES // 11 + 1),
        _handshake("/ws/v1", "X-Long: " + "x" * 9_000),
        _handshake("/ws/v1", *["X-Many: 1"] * 200),
        _handshake("/ws/v1?token=" + "x" * 9_000),
        _handshake("/ws/v1?token=").replace(b"token=", b"token=\xe5\x8f\xa3"),
        b"\x00\x01\x02\r\n\r\n",
    ],
    ids=range(8),
)
async def test_heads_that_no_client_needs_are_refused(
    echo: FastAPI, live: Any, request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with live(echo) as port:
        answer = await _ask(port, request_bytes)
        good = await _ask(port, _handshake("/ws/v1", AUTH))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert good.startswith(b"HTTP/1.1 101 ")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_long_body_is_no_long_head(world: Any, live: Any) -> None:
    async with live(world.app()) as port:
        body = b"x" * (4 * MAX_HEAD_BYTES)
        head = b"POST /stream/v1/asr HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        answer = await _ask(port, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert world.recognition.audio == body


async def test_signals_are_left_alone(echo: FastAPI, live: Any) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    async with live(echo):
        during = {number: signal.getsignal(number) for number in before}
    assert during == before


def test_no_server_pings(echo: FastAPI) -> None:
    config = build_server(echo, max_message_bytes=1000).config
    assert config.ws_ping_interval is None
    assert config.ws_max_size == 1000


@pytest.mark.parametrize("sent", [b"", b"GET /ws/v1 HTTP/1.1\r\nHost: x\r\n", b"POST / HT"])
async def test_a_connection_without_a_whole_head_is_cut_off(
    echo: FastAPI, live: Any, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.1)
    async with live(echo) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


async def test_a_websocket_is_not_cut_off_for_its_head(
    echo: FastAPI, live: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.1)
    async with live(echo) as port:
        reader, writer = await _open(port)
        # Another one, which came later, and is cut off.
        silent, its_writer = await asyncio.open_connection("127.0.0.1", port)
        assert await silent.read() == b""
        its_writer.close()
        writer.write(_frame(0x2, b"still here"))
        assert (await reader.readexactly(12))[2:] == b"still here"
        writer.close()


def _small(port: int) -> socket.socket:
    """A connection whose system takes little on its own, so that reading shows soon."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
    client.connect(("127.0.0.1", port))
    return client


class Talker:
    """An ASGI application that sends without end, by HTTP or WebSocket."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        data = b"x" * 60_000
        try:
            if scope["type"] == "websocket":
                await send({"type": "websocket.accept"})
                while True:
                    await send({"type": "websocket.send", "bytes": data})
                    await asyncio.sleep(0)  # sending waits only for a full buffer
            await send({"type": "http.response.start", "status": 200, "headers": []})
            # Until uvicorn says that the client has gone, which it does by a message.
            gone = asyncio.ensure_future(self._gone(receive))
            while not gone.done():
                await send({"type": "http.response.body", "body": data, "more_body": True})
                await asyncio.sleep(0)
        finally:
            self.ended.set()

    async def _gone(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


@pytest.mark.parametrize("request_bytes", [_handshake("/x"), b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_a_client_that_does_not_read_is_cut_off(
    live: Any, request_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "UNREAD_TIMEOUT_S", 0.1)
    talker = Talker()
    async with live(talker) as port:
        with _small(port) as client:
            client.sendall(request_bytes)
            await asyncio.wait_for(talker.ended.wait(), 10)


def test_a_client_that_reads_slowly_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    unread = [300, 200, 199, 199]
    monkeypatch.setattr(connections, "_unread", lambda transport: unread.pop(0))
    loop, transport = Mock(), Mock()

    class Protocol(connections._Reading, asyncio.Protocol):
        pass

    protocol = Protocol()
    protocol.loop, protocol.transport = loop, transport
    protocol.pause_writing()
    for _ in range(3):
        transport.abort.assert_not_called()
        (_, look), _ = loop.call_later.call_args
        look()
    transport.abort.assert_called_once()  # the last look found nothing taken
    assert unread == []
