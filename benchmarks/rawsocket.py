"""A socket without manners: no library that reads, answers or waits on its own.

Frames are masked with zeros (RFC 6455 5.3 lets a client choose any mask), so that a payload is
sent as it is, and can be encoded once for all connections.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final, Self

TEXT: Final = 1
BINARY: Final = 2

_HEAD_LIMIT: Final = 4096


class RawSocket:
    """A TCP connection to this machine; ``with`` closes it. Every method raises OSError when the
    connection is broken.

    ``receive_bytes``: how much the kernel takes for a client that does not read (at least; the
    system rounds it up); None for its own choice.
    """

    def __init__(self, receive_bytes: int | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket()
        self._socket.setblocking(False)
        if receive_bytes is not None:  # before connecting: it limits the window that is offered
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    async def connect(self, port: int) -> None:
        """Connect to ``port`` of 127.0.0.1."""
        await self._loop.sock_connect(self._socket, ("127.0.0.1", port))

    async def send(self, data: bytes) -> None:
        """Send all of it; waits while the server does not take it."""
        await self._loop.sock_sendall(self._socket, data)

    async def upgrade(self, path: str) -> None:
        """Shake hands as a WebSocket client.

        Raises:
            ConnectionRefusedError: the server answered something else.
        """
        await self.send(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head and len(head) < _HEAD_LIMIT:
            received = await self._loop.sock_recv(self._socket, _HEAD_LIMIT)
            if not received:
                break
            head += received
        if not head.startswith(b"HTTP/1.1 101 "):
            raise ConnectionRefusedError("no WebSocket")

    async def discard(self) -> None:
        """Read and forget what comes, until the server closes."""
        while await self._loop.sock_recv(self._socket, 65536):
            pass


def frame(opcode: int, payload: bytes) -> bytes:
    """A whole WebSocket message of a client, in one frame (RFC 6455 5.2)."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return bytes([0x80 | opcode]) + length + bytes(4) + payload
