"""One WebSocket to an NLS server: whole messages in and out, and errors in our own terms."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from ssl import SSLContext
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
)

from app.client.credentials import token_header, with_token
from app.client.errors import (
    AccessRefused,
    AnswerTimeout,
    ClientError,
    ConnectionLost,
    RequestRefused,
    ServerUnreachable,
)
from app.client.unreachable import unreachable

MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""Largest message that is taken. Servers keep to 64 KiB (nls-protocol.md 1.8); a larger one is
still read, so that a person sees it, but not one that would fill the memory."""

MAX_QUEUED_FRAMES: Final = 64
"""Frames that are kept for a task that does not read. Above, the socket is no longer read, so that
the server sees a slow client as it should."""

MAX_SHOWN_CHARS: Final = 200
"""Of a server's refusal, which may be a whole web page of a proxy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long the client waits, in seconds.

    ``connect_s``: for the connection with its handshake. ``started_s``: for the Started event (10
    in the SDKs, nls-protocol.md 1.10). ``idle_s``: for the next event or audio when it is the
    server's turn: after a Stop, and in a synthesis. ``close_s``: for the server's close frame.
    """

    connect_s: float = 10.0
    started_s: float = 10.0
    idle_s: float = 60.0
    close_s: float = 3.0


class Wire:
    """An open WebSocket. One coroutine may send while another receives."""

    def __init__(self, socket: ClientConnection, fragment_bytes: int | None) -> None:
        self._socket = socket
        self._fragment_bytes = fragment_bytes
        self._wait: asyncio.Timeout | None = None

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        token: str | None,
        timeouts: Timeouts,
        ssl: SSLContext | None,
        ping_interval_s: float | None,
        fragment_bytes: int | None,
    ) -> Wire:
        """Connect and shake hands.

        ``url`` is a ws or wss address. ``fragment_bytes``: messages are cut into frames of at
        most this size, as the PHP SDK does at 4,096; None sends each in one frame.

        Raises:
            ServerUnreachable, AccessRefused, RequestRefused: as their classes say.
        """
        try:
            socket = await connect(
                with_token(url, token),
                ssl=ssl,
                additional_headers=token_header(token),
                compression=None,
                proxy=None,  # a proxy of the environment is for the web, not for one's own server
                open_timeout=timeouts.connect_s,
                close_timeout=timeouts.close_s,
                # Pings keep the way through routers open. No deadline for the answer, as in the
                # SDKs: a task that does not read for a while must not lose its connection.
                ping_interval=ping_interval_s,
                ping_timeout=None,
                max_size=MAX_MESSAGE_BYTES,
                max_queue=MAX_QUEUED_FRAMES,
            )
        except InvalidStatus as error:
            body = bytes(error.response.body or b"").decode(errors="replace").strip()
            raise refusal(error.response.status_code, body) from error
        except (TimeoutError, OSError, EOFError) as error:
            raise unreachable(url, error) from error
        except (InvalidHandshake, InvalidURI) as error:
            # Without the library's text, which may repeat a header or the address, token and all.
            where = url.partition("?")[0]
            raise ServerUnreachable(f"no WebSocket server answers at {where}") from error
        return cls(socket, fragment_bytes)

    async def send(self, message: str | bytes) -> None:
        """Send one message; waits while the server does not take it.

        Raises:
            ConnectionLost: the connection is closed.
        """
        size = self._fragment_bytes
        try:
            if size is None or len(message) <= size:
                await self._socket.send(message)
            elif isinstance(message, str):
                # Cut between bytes, not characters, as SDKs do.
                await self._socket.send(_cut(message.encode(), size), text=True)
            else:
                await self._socket.send(_cut(message, size))
        except ConnectionClosed as error:
            raise _lost(error) from error

    async def receive(self, wait_s: float | None) -> str | bytes:
        """The next message, text or binary. ``wait_s`` as in :meth:`limit_wait`.

        Raises:
            AnswerTimeout: nothing came in time.
            ConnectionLost: the connection is closed and everything before has been received.
        """
        try:
            async with asyncio.timeout(wait_s) as self._wait:
                return await self._socket.recv()
        except TimeoutError as error:
            raise AnswerTimeout("the server does not answer") from error
        except ConnectionClosed as error:
            raise _lost(error) from error
        except ConcurrencyError as error:
            raise ClientError("two coroutines read the same task") from error
        finally:
            self._wait = None

    def limit_wait(self, wait_s: float) -> None:
        """From now on, let a :meth:`receive` that is under way wait no longer than this."""
        if self._wait is not None:
            self._wait.reschedule(asyncio.get_running_loop().time() + wait_s)

    async def close(self) -> None:
        """Send a close frame and wait for the server's. Closing twice does nothing."""
        await self._socket.close()


def refusal(status: int, text: str) -> ClientError:
    """The error for an HTTP answer that is not the one asked for."""
    text = text[:MAX_SHOWN_CHARS]
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return AccessRefused(text or "the token is missing or invalid")
    return RequestRefused(f"the server answered HTTP {status}: {text}".rstrip(": "), status)


def _cut(message: bytes, size: int) -> Iterator[bytes]:
    return (message[start : start + size] for start in range(0, len(message), size))


def _lost(error: ConnectionClosed) -> ConnectionLost:
    code = error.rcvd.code if error.rcvd is not None else 1006
    how = str(error.rcvd) if error.rcvd is not None else "without a close frame"
    return ConnectionLost(f"the connection ended before the task was complete ({how})", code)
