"""Many raw clients of a few kinds, kept at what they do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

import msgspec

from benchmarks.measure import percentile
from benchmarks.rawsocket import RawSocket

AT_ONCE: Final = 50
"""Connections that are being opened at a time."""


class Tally(msgspec.Struct):
    """What all clients together did: the connections that they opened, and what they sent after
    entering. ``late_ms``: how late the process itself was where it waited
    for a moment, 99th percentile."""

    opened: int
    sent_bytes: int
    late_ms: float


@dataclass
class Watch:
    """Counts, and waits."""

    opened: int = 0
    sent_bytes: int = 0
    late: list[float] = field(default_factory=list)

    async def send(self, raw: RawSocket, data: bytes) -> None:
        """Send, and count what was sent."""
        await raw.send(data)
        self.sent_bytes += len(data)

    async def until(self, due: float) -> None:
        """Wait for a moment (``perf_counter``), if it is not over."""
        if (wait := due - perf_counter()) > 0:
            await asyncio.sleep(wait)
            self.late.append((perf_counter() - due) * 1000)


Disturb = Callable[[RawSocket, Watch], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Group:
    """``count`` clients of a kind. ``enter`` brings a connection to where it disturbs; ``disturb``
    ends when the connection is of no more use. ``again_s``: how long until it opens the next."""

    count: int
    enter: Callable[[RawSocket], Awaitable[None]]
    disturb: Disturb
    receive_bytes: int | None = None
    again_s: float = 1.0


class Crowd:
    """All clients of a kind."""

    def __init__(self, groups: tuple[Group, ...], port: int) -> None:
        self._groups = groups
        self._port = port
        self._opening = asyncio.Semaphore(AT_ONCE)
        self._watch = Watch()
        self._size = sum(group.count for group in groups)
        self._entered = 0
        self.ready = asyncio.Event()

    @asynccontextmanager
    async def at_it(self) -> AsyncIterator[None]:
        """They disturb while the block runs."""
        clients = [
            asyncio.create_task(self._client(group))
            for group in self._groups
            for _ in range(group.count)
        ]
        try:
            yield
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)

    def tally(self) -> Tally:
        """What was done."""
        watch = self._watch
        late = percentile(watch.late, 99) if watch.late else 0.0
        return Tally(watch.opened, watch.sent_bytes, late)

    async def _client(self, group: Group) -> None:
        is_new = True
        while True:
            # An error is one of the server's answers to all this.
            with contextlib.suppress(OSError), RawSocket(group.receive_bytes) as raw:
                async with self._opening:
                    await raw.connect(self._port)
                    await group.enter(raw)
                self._watch.opened += 1
                if is_new:
                    is_new = False
                    self._note_entered()
                await group.disturb(raw, self._watch)
            await asyncio.sleep(group.again_s)

    def _note_entered(self) -> None:
        self._entered += 1
        if self._entered == self._size:
            self.ready.set()
