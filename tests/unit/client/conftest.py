"""A server to talk to: it plays NLS by a script that each test writes."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

CERTIFICATE = Path(__file__).parents[2] / "support" / "self_signed.pem"


class Talk:
    """The server's side of one connection, in NLS terms."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.audio = b""
        self.header: dict[str, Any] = {}

    async def directive(self) -> dict[str, Any]:
        """The next directive; audio before it goes to ``self.audio``."""
        while True:
            message = await self.socket.recv()
            if isinstance(message, str):
                directive: dict[str, Any] = json.loads(message)
                self.header = directive["header"]
                return directive
            self.audio += message

    async def event(self, name: str, payload: object = ..., **header: object) -> None:
        """Send an event of the running task; ``header`` replaces fields."""
        message: dict[str, object] = {
            "header": {
                "namespace": self.header["namespace"],
                "name": name,
                "status": 20_000_000,
                "task_id": self.header["task_id"],
                "message_id": "0" * 32,
                "status_text": "Gateway:SUCCESS:Success.",
                **header,
            }
        }
        if payload is not ...:
            message["payload"] = payload
        await self.socket.send(json.dumps(message))

    async def fail(self, status: int, text: str) -> None:
        """TaskFailed, then close, as nls-protocol.md 1.7 has it."""
        await self.event("TaskFailed", namespace="Default", status=status, status_text=text)
        await self.socket.close()


Script = Callable[[Talk], Awaitable[None]]
Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def nls() -> AsyncIterator[Serve]:
    """``await nls(script)`` starts a server and returns its ws:// address.

    ``refuse=(status, body)`` answers every handshake with that instead.
    """
    async with AsyncExitStack() as stack:

        async def start(script: Script, refuse: tuple[int, str] | None = None) -> str:
            async def handler(socket: ServerConnection) -> None:
                await script(Talk(socket))

            def process(socket: ServerConnection, request: Request) -> Response | None:
                return socket.respond(*refuse) if refuse else None

            server = await stack.enter_async_context(
                serve(handler, "127.0.0.1", 0, process_request=process, ping_interval=None)
            )
            host, port = next(iter(server.sockets)).getsockname()[:2]
            return f"ws://{host}:{port}/ws/v1"

        yield start


@pytest.fixture
def unused_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
async def tls_port() -> AsyncIterator[int]:
    """A port behind which TLS begins, with a certificate that signs itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
