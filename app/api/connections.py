"""uvicorn's two protocols, taught what NLS clients and hostile ones need.

HTTP: duplicate handshake headers are reduced to the first, and a request head is bounded in size
and time (``lingering.py`` has the end of requests). WebSocket: a client's mistakes are not logged
as ours. Both: a client that stops reading is cut off (nls-protocol.md 1.2, 1.8).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import struct
import termios
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app.api.lingering import LingeringHttpProtocol

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

_SINGLE_HEADERS: Final = frozenset({b"sec-websocket-key", b"sec-websocket-version"})

MAX_HEAD_BYTES: Final = 64 * 1024
"""Request line and headers together. httptools itself has no limit. A text of 1,000 characters in
the query of a GET takes up to 12 KiB, percent-encoded."""

MAX_HANDSHAKE_LINE_BYTES: Final = 8_000
MAX_HANDSHAKE_HEADERS: Final = 120
"""The limits of the websockets library (8,192 and 128), a little lower: beyond its own it breaks
the connection off without an answer."""


HEAD_TIMEOUT_S: Final = 10.0
"""A connection on which no request head has come whole by then is cut off."""

UNREAD_TIMEOUT_S: Final = 60.0
"""A client that takes nothing of what waits for it for so long is cut off. To close would not do:
a close waits until everything is written."""


PINGED: Final = "nls_pinged"
"""In the state of a WebSocket's scope: what to call, without arguments, at each ping of the client.
The state is the connection's own."""

_INT: Final = struct.Struct("i")


class _Deadline:
    """Aborts a connection that does not send its head in time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def start(self, transport: asyncio.Transport, after_s: float) -> None:
        """Set the deadline, unless one is set."""
        if self._timer is None:
            self._timer = self._loop.call_later(after_s, transport.abort)

    def stop(self) -> None:
        """Forget it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Reading:
    """Mixin for a protocol: aborts a connection whose client has stopped reading."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _unread_bytes = 0
    _unread_timer: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._watch_reading(_unread(self.transport))
        super().pause_writing()  # type: ignore[misc]  # of the protocol that this is mixed into

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._forget_reading()
        super().resume_writing()  # type: ignore[misc]  # as above

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._forget_reading()
        super().connection_lost(exc)  # type: ignore[misc]  # as above

    def _watch_reading(self, unread: int) -> None:
        self._unread_bytes = unread
        self._unread_timer = self.loop.call_later(UNREAD_TIMEOUT_S, self._look)

    def _look(self) -> None:
        unread = _unread(self.transport)
        if unread < self._unread_bytes:
            self._watch_reading(unread)  # slow, but reading
        else:
            self.transport.abort()

    def _forget_reading(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None


def _unread(transport: asyncio.Transport) -> int:
    """Bytes that the client's system has not confirmed: ours, and those in the kernel, which takes
    megabytes before it takes more of ours, so that a slow reader would look like none."""
    waiting = transport.get_write_buffer_size()
    with contextlib.suppress(OSError, AttributeError):
        descriptor = transport.get_extra_info("socket").fileno()
        waiting += _INT.unpack(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(_INT.size)))[0]
    return waiting


class NlsHttpProtocol(_Reading, LingeringHttpProtocol):
    """HTTP as uvicorn speaks it, with a forgiving handshake, a bounded head, and an end to clients
    that neither speak nor read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_open = False
        self._head_bytes = 0
        self._silent = _Deadline(self.loop)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's too
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._silent.start(transport, HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._silent.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        super().data_received(data)
        # Counted per read, so a body's first bytes may be counted with the head that they came
        # with: the limit is on heads that do not end.
        if self._head_open and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("Request head too large.")

    def on_message_begin(self) -> None:
        """See httptools."""
        super().on_message_begin()
        self._head_open = True
        self._head_bytes = 0
        self._silent.start(self.transport, HEAD_TIMEOUT_S)

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._head_open = False
        self._silent.stop()
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to the WebSocket protocol, which parses the head again from
        ``scope["headers"]``.

        The official Python SDK sends two keys and two versions, and checks the answer against its
        first key (nls-protocol.md 1.2). A proxy may have merged such pairs into ``first, second``.
        """
        headers = single_headers(self.scope["headers"])
        if not _fits(self.url, headers):
            self.send_400_response("Invalid WebSocket handshake.")
            return
        self.scope["headers"] = headers
        # From here on the connection belongs to the WebSocket protocol.
        self._silent.stop()
        self._forget_reading()
        super().handle_websocket_upgrade()


class NlsWebSocketProtocol(_Reading, WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, which takes a refused handshake for a finished one, and leaves
    it to the client to be wrong quietly: without this every wrong token and every text that is not
    UTF-8 is logged as an error, the latter with a traceback. It also tells of pings, of which ASGI
    knows nothing: the application leaves a function under :data:`PINGED` in the scope's state."""

    async def send(self, message: ASGISendEvent) -> None:
        """See ASGI."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True

    def handle_ping(self) -> None:
        """A ping has come. The answer, which is ready, goes first."""
        super().handle_ping()
        pinged = self.scope["state"].get(PINGED)
        if pinged is not None:
            pinged()

    def send_receive_event_to_app(self) -> None:
        """A whole message has come."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.conn.send_close(1007)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()


def single_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """``headers`` (names in lower case) with only the first key and version of a handshake."""
    kept: list[tuple[bytes, bytes]] = []
    seen: set[bytes] = set()
    for name, value in headers:
        if name in _SINGLE_HEADERS:
            if name in seen:
                continue
            seen.add(name)
            value = value.split(b",", 1)[0].strip()
        kept.append((name, value))
    return kept


def _fits(url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether the WebSocket parser will take this head, so that it need not fail on it."""
    lines = [url, *(name + value for name, value in headers)]
    return (
        url.isascii()
        and len(headers) <= MAX_HANDSHAKE_HEADERS
        and all(len(line) <= MAX_HANDSHAKE_LINE_BYTES for line in lines)
    )
