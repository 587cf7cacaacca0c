"""One end of a Unix socket between two processes of the server.

A message is a 4-byte little-endian length and a msgpack array whose first item is the message's
number: the ``tag`` of an ``array_like`` struct (``protocol.py``, ``quota.py``).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, cast

import msgspec
import structlog

log = structlog.get_logger(__name__)

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
_LENGTH: Final = struct.Struct("<I")
_RECONNECT_S: Final = (0.02, 0.05, 0.1, 0.2, 0.5)


class Link(asyncio.Protocol):
    """One end of the socket: messages out, coalesced into few writes; messages in, by callback.

    ``on_message`` gets each decoded message, ``on_lost`` is called once, both on the event loop.
    Writes never block: what is outstanding is bounded by the credits. ``before_flush`` may add
    messages to the write that is about to happen; ``on_open`` is called once the link can send, by
    whoever has to greet.
    """

    def __init__(
        self,
        incoming: Any,
        on_message: Callable[[Any], None],
        on_lost: Callable[[], None],
        before_flush: Callable[[], msgspec.Struct | None] = lambda: None,
        on_open: Callable[[], None] = lambda: None,
    ) -> None:
        self._decoder = msgspec.msgpack.Decoder(incoming)
        self._encoder = msgspec.msgpack.Encoder()
        self._on_message = on_message
        self._on_lost = on_lost
        self._before_flush = before_flush
        self._on_open = on_open
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._in = bytearray()
        self._out: list[bytes] = []
        self._flush_at: asyncio.Handle | None = None
        self._flush_is_soon = False
        self._taken = asyncio.Event()  # nothing that was written is still in this process
        self._taken.set()

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, message: msgspec.Struct, *, within_s: float = 0.0) -> None:
        """Send with the next write, which happens within ``within_s`` seconds, or, if 0, at the
        end of this round of the event loop. On a closed link the message is dropped."""
        if not self.is_open:
            return
        self._encode(message)
        if within_s <= 0.0:
            if not self._flush_is_soon:
                if self._flush_at is not None:
                    self._flush_at.cancel()
                self._flush_at = self._loop.call_soon(self._flush)
                self._flush_is_soon = True
        elif self._flush_at is None:
            self._flush_at = self._loop.call_later(within_s, self._flush)

    def flush(self) -> None:
        """Write what is waiting now. A Unix socket takes it at once unless it is full."""
        if self._flush_at is not None or self._out:
            self._flush()

    async def flushed(self) -> None:
        """Write what is waiting, and wait until the socket has taken all of it: then it arrives
        even if this process dies. On a closed link nothing is waited for."""
        self.flush()
        await self._taken.wait()

    def close(self) -> None:
        """Write what is waiting and close."""
        if self._transport is not None and not self._transport.is_closing():
            self._flush()
            self._transport.close()

    def _encode(self, message: msgspec.Struct) -> None:
        body = self._encoder.encode(message)
        self._out += (_LENGTH.pack(len(body)), body)

    def _flush(self) -> None:
        if self._flush_at is not None:
            self._flush_at.cancel()
            self._flush_at = None
        self._flush_is_soon = False
        extra = self._before_flush()
        if extra is not None:
            self._encode(extra)
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._transport.set_write_buffer_limits(high=0)  # every byte that waits is told
        self._on_open()

    def pause_writing(self) -> None:
        self._taken.clear()

    def resume_writing(self) -> None:
        self._taken.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._taken.set()
        if self._flush_at is not None:
            self._flush_at.cancel()
        self._on_lost()

    def data_received(self, data: bytes) -> None:
        self._in += data
        position, available = 0, len(self._in)
        with memoryview(self._in) as view:
            while available - position >= 4:
                (length,) = _LENGTH.unpack_from(view, position)
                if length > MAX_MESSAGE_BYTES:
                    self._fail()
                    break
                if available - position - 4 < length:
                    break
                with view[position + 4 : position + 4 + length] as body:
                    try:
                        message = self._decoder.decode(body)
                    except msgspec.MsgspecError:
                        self._fail()
                        break
                position += 4 + length
                self._on_message(message)
        del self._in[:position]

    def _fail(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def stay_connected(connect_once: Callable[[], Awaitable[bool]], peer: str) -> NoReturn:
    """Connect, and connect again, until cancelled: soon after a good connection, ever later while
    there is none. ``connect_once`` holds one connection until it is lost, and returns whether it
    was good for anything; ``peer`` names the other process in the log."""
    attempt = 0
    while True:
        try:
            if await connect_once():
                attempt = 0
        except OSError as error:
            log.debug("process not reachable", peer=peer, error=str(error))
        await asyncio.sleep(_RECONNECT_S[min(attempt, len(_RECONNECT_S) - 1)])
        attempt += 1
