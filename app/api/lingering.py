"""The rest of a request's body after its answer: read and dropped.

A refusal is often sent while the body is still on its way. If the socket were closed then, as
uvicorn does where the answer is the last of the connection, the client's next bytes would meet no
reader, its system would be told so by a reset, and would throw the unread refusal away. So the
connection goes on reading for a while, as nginx and Apache do ("lingering close"). Where it is to
stay open, the same bounds hold for what uvicorn would otherwise drop for ever.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_IDLE_S: Final = 2.0
"""A client that sends nothing for so long has seen the answer, or never will."""

LINGER_S: Final = 30.0
LINGER_BYTES: Final = 64 * 1024 * 1024
"""The most that is waited for, and dropped: some times the largest body that any door takes."""

_LAST_LINGER_S: Final = 0.5
"""When the server stops: less than it gives its last requests."""


class LingeringHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with an end of requests that loses no answer."""

    _body_open = False
    """Whether more of the latest request's body is to come."""
    _lingering = False
    _then_close = False
    _dropped = 0
    _dropped_before = 0
    _linger_until = 0.0
    _linger_timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._stop_lingering()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._lingering:
            self._dropped += len(data)
            if self._dropped > LINGER_BYTES:
                self.transport.close()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """See httptools."""
        # It may begin in the same bytes that the last one ended in.
        self._unset_keepalive_if_required()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See httptools."""
        if self.transport.is_closing():
            return  # a request behind the last one
        self._body_open = True
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            # It begins to run only after this.
            self.cycle.transport = cast(asyncio.Transport, _Answering(self))

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        if not self._lingering:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        super().on_message_complete()
        self._body_open = False
        if not self._lingering:
            return
        self._stop_lingering()
        if self._then_close:
            self.transport.close()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """See uvicorn."""
        if self._lingering:
            self.server_state.total_requests += 1
            return
        super().on_response_complete()
        # With pipelining, the open body may be that of a request which has yet to be answered.
        if self._body_open and self.cycle.response_complete and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._linger(then_close=False)

    def close_after_body(self) -> None:
        """Close the connection once the client has sent what it is sending, or some time later."""
        if self._body_open and not self.transport.is_closing():
            self._linger(then_close=True)
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """See uvicorn."""
        if self._lingering:
            self.transport.close()  # the request has its answer
        else:
            super().send_400_response(msg)

    def shutdown(self) -> None:
        """See uvicorn."""
        if self._lingering:
            self._then_close = True
            self._look_after(_LAST_LINGER_S)
            self._linger_until = 0.0
        else:
            super().shutdown()

    def _linger(self, *, then_close: bool) -> None:
        self._lingering, self._then_close = True, then_close
        self._dropped = self._dropped_before = 0
        self.cycle.body.clear()
        self._linger_until = self.loop.time() + LINGER_S
        self._look_after(LINGER_IDLE_S)
        self.flow.resume_reading()

    def _look_after(self, wait_s: float) -> None:
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self._linger_timer = self.loop.call_later(wait_s, self._look_lingering)

    def _look_lingering(self) -> None:
        if self._dropped > self._dropped_before and self.loop.time() < self._linger_until:
            self._dropped_before = self._dropped
            self._look_after(LINGER_IDLE_S)
        else:
            self.transport.close()

    def _stop_lingering(self) -> None:
        self._lingering = False
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None


class _Answering:
    """The connection as a request's answer sees it: all that uvicorn uses of a transport there.
    The rest of the request is waited for before it is closed."""

    def __init__(self, protocol: LingeringHttpProtocol) -> None:
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        """See asyncio.WriteTransport."""
        self._protocol.transport.write(data)

    def is_closing(self) -> bool:
        """See asyncio.BaseTransport."""
        return self._protocol.transport.is_closing()

    def close(self) -> None:
        """See asyncio.BaseTransport."""
        self._protocol.close_after_body()
