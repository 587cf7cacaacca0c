"""The API process's end of ``quota.py``: a task runs under a lease of its appkey's quota.

Granted or refused at once. What cannot be counted is refused too: a limit that is sometimes none
would be none. An appkey without a limit is not asked about, and not counted.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Final

import msgspec
import structlog

from app.core.errors import AppkeyBusy, EngineUnavailable
from app.serving.link import Link, stay_connected
from app.serving.quota import FromQuota, Give, Take, Taken

log = structlog.get_logger(__name__)

ANSWER_TIMEOUT_S: Final = 5.0
"""For the answer, and for a connection that has just broken to come back."""

_KEY_BYTES: Final = 16
_NOT_COUNTED: Final = "The tasks of this appkey cannot be counted now; try again later."

TaskLease = Callable[[str], AbstractAsyncContextManager[None]]
"""Called with a task's appkey ("" for none); the task runs inside the block. Entering it raises
:class:`app.core.errors.AppkeyBusy` where the appkey runs as many tasks as it may, and
:class:`app.core.errors.EngineUnavailable` where nobody can tell."""


def unlimited(appkey: str) -> AbstractAsyncContextManager[None]:
    """A lease that everybody gets."""
    return nullcontext()


@asynccontextmanager
async def leasing(
    socket_path: str, limit_of: Callable[[str], int], answer_s: float | None = None
) -> AsyncIterator[TaskLease]:
    """Leases inside the block, from the quota at ``socket_path``. ``limit_of``: how many tasks an
    appkey may run now, 0 for as many as it likes. ``answer_s``: in place of
    ``ANSWER_TIMEOUT_S``."""
    leases = _Leases(socket_path, limit_of, ANSWER_TIMEOUT_S if answer_s is None else answer_s)
    async with asyncio.TaskGroup() as group:
        connection = group.create_task(leases.stay_connected())
        try:
            yield leases.hold
        finally:
            connection.cancel()


class _Leases:
    """All leases of this process, over one connection that comes back."""

    def __init__(self, socket_path: str, limit_of: Callable[[str], int], answer_s: float) -> None:
        self._socket_path = socket_path
        self._limit_of = limit_of
        self._answer_s = answer_s
        self._link: Link | None = None
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[bool]] = {}
        self._held: dict[int, Take] = {}

    def hold(self, appkey: str) -> AbstractAsyncContextManager[None]:
        """A lease for a task of ``appkey``: a :data:`TaskLease`."""
        limit = self._limit_of(appkey)
        return self._counted(appkey, limit) if limit else unlimited(appkey)

    @asynccontextmanager
    async def _counted(self, appkey: str, limit: int) -> AsyncIterator[None]:
        number = next(self._numbers)
        try:
            if not await self._take(Take(number, _key(appkey), limit=limit)):
                raise AppkeyBusy(_full_text(limit))
            yield
        finally:
            # Also one that was not granted: the answer may still be on its way.
            self._held.pop(number, None)
            if self._link is not None:
                self._link.send(Give(number))

    async def _take(self, asked: Take) -> bool:
        number = asked.number
        granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._answer_s):
                await self._connected.wait()
                assert self._link is not None
                self._asked[number] = granted
                # Before the answer, so that a connection that comes back knows of it.
                self._held[number] = asked
                self._link.send(asked)
                return await granted
        except TimeoutError:
            log.error("the quota does not answer")
            raise EngineUnavailable(_NOT_COUNTED) from None
        finally:
            self._asked.pop(number, None)

    async def stay_connected(self) -> None:
        """Connect, and connect again, until cancelled."""
        try:
            await stay_connected(self._connect_once, "quota")
        finally:
            if self._link is not None:
                self._link.close()

    async def _connect_once(self) -> bool:
        """Hold one connection until it is lost. Any was good: nobody has to greet."""
        self._lost = asyncio.Event()
        self._link = link = Link(FromQuota, self._receive, self._on_lost)
        await asyncio.get_running_loop().create_unix_connection(lambda: link, self._socket_path)
        # The tasks of before still run: with the old connection their places were given back.
        for held in self._held.values():
            link.send(msgspec.structs.replace(held, held=True))
        if not self._lost.is_set():
            self._connected.set()
        await self._lost.wait()
        log.warning("connection to the quota lost")
        return True

    def _on_lost(self) -> None:
        self._connected.clear()
        asked, self._asked = self._asked, {}
        for granted in asked.values():
            if not granted.done():
                granted.set_exception(EngineUnavailable(_NOT_COUNTED))
        self._lost.set()

    def _receive(self, message: FromQuota) -> None:
        granted = self._asked.get(message.number)
        if granted is not None and not granted.done():
            granted.set_result(isinstance(message, Taken))


def _full_text(limit: int) -> str:
    tasks = "1 task" if limit == 1 else f"{limit} tasks"
    return f"This appkey runs {tasks} already, as many as it may; try again when one ends."


def _key(appkey: str) -> bytes:
    """A text of any length and content (JSON carries lone surrogates too) as a short key."""
    data = appkey.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=_KEY_BYTES).digest()
