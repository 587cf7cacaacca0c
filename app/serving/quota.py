"""How many tasks each appkey runs, counted in one place for all API processes: the supervisor.

    API process (leases.py)                     supervisor
      ──────────────────────────────────────────►  (connects)
      ─ Take(number, key, limit) ─►      ◄─ Taken(number) | Full(number)
      ─ Give(number) ─►

The end of a connection gives back all that it held, so a killed API process leaks nothing. Messages
travel as ``link.py`` has it. A key is a digest of an appkey, 16 bytes of whatever a client
sends; the table has only the keys that run a task. How many tasks a key may have comes with each
question, from the API process, which knows the projects: a limit that was changed holds for those
who ask from then on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from app.serving.link import Link


class Take(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Ask for a place; ``number`` is chosen by the API process, unique on its connection.
    ``held``: it was granted on an earlier connection and its task still runs, so that it counts
    even beyond the limit. ``limit``: how many places the key may have."""

    number: int
    key: bytes
    held: bool = False
    limit: int = 0


class Give(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The place is free again; one that was not granted may be given back too."""

    number: int


class Taken(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """The place is granted."""

    number: int


class Full(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """The key has as many places as it may."""

    number: int


ToQuota = Take | Give
FromQuota = Taken | Full


class Quota:
    """Counts the running tasks of each key."""

    def __init__(self) -> None:
        self._running: Counter[bytes] = Counter()
        self._holders: set[_Holder] = set()

    @property
    def running(self) -> int:
        """Places that are taken, of all keys together."""
        return self._running.total()

    def accept(self) -> Link:
        """Our end of a new connection."""
        holder = _Holder(self)
        self._holders.add(holder)
        return holder.link

    def take(self, key: bytes, limit: int, *, held: bool) -> bool:
        """Take a place, if fewer than ``limit`` are taken or ``held`` says that it was granted
        before."""
        if self._running.get(key, 0) >= limit and not held:
            return False
        self._running[key] += 1
        return True

    def give(self, key: bytes) -> None:
        """A place of ``key`` is free again."""
        self._running[key] -= 1
        if not self._running[key]:
            del self._running[key]

    def forget(self, holder: _Holder) -> None:
        """``holder`` is closed and holds nothing."""
        self._holders.discard(holder)

    def close(self) -> None:
        """Close all connections."""
        for holder in list(self._holders):
            holder.link.close()


class _Holder:
    """One API process and the places that it holds."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._held: dict[int, bytes] = {}
        self._refusing: dict[int, Take] = {}
        self.link = Link(ToQuota, self._receive, self._lost)

    def _receive(self, message: ToQuota) -> None:
        match message:
            case Take(number):
                if not self._take(message):
                    # A place may have been given back on another connection before, and be read
                    # after: asked again once all that has come is read.
                    self._refusing[number] = message
                    asyncio.get_running_loop().call_soon(self._refuse, number)
            case Give(number):
                self._refusing.pop(number, None)
                if number in self._held:
                    self._quota.give(self._held.pop(number))

    def _take(self, asked: Take) -> bool:
        if not self._quota.take(asked.key, asked.limit, held=asked.held):
            return False
        self._held[asked.number] = asked.key
        self.link.send(Taken(asked.number))
        return True

    def _refuse(self, number: int) -> None:
        asked = self._refusing.pop(number, None)
        if asked is not None and not self._take(asked):
            self.link.send(Full(number))

    def _lost(self) -> None:
        self._refusing.clear()
        for key in self._held.values():
            self._quota.give(key)
        self._held.clear()
        self._quota.forget(self)


@asynccontextmanager
async def counting(path: Path) -> AsyncIterator[Quota]:
    """Count for the API processes that connect to the Unix socket ``path`` inside the block."""
    quota = Quota()
    server = await asyncio.get_running_loop().create_unix_server(quota.accept, path)
    try:
        yield quota
    finally:
        server.close()
        quota.close()
