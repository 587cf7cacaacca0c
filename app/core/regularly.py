"""Work that is done again and again in the background."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog

log = structlog.get_logger(__name__)

_WARN_EVERY_S: Final = 60.0


@asynccontextmanager
async def regularly(work: Callable[[], Awaitable[None]], interval_s: float) -> AsyncIterator[None]:
    """Inside the block ``work`` is done every ``interval_s``. At its end, work under way is waited
    for and not cancelled: nobody could tell whether its transaction was committed."""
    ended = asyncio.Event()
    loop = asyncio.create_task(_repeat(work, interval_s, ended))
    try:
        yield
    finally:
        ended.set()
        await loop


async def _repeat(
    work: Callable[[], Awaitable[None]], interval_s: float, ended: asyncio.Event
) -> None:
    while not ended.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(interval_s):
                await ended.wait()
            return
        try:
            await work()
        except Exception:  # must not end the repetition
            log.exception("regular work failed")


class RareWarning:
    """One warning, at most once a minute for as long as its cause lasts."""

    def __init__(self, message: str) -> None:
        self._message = message
        self._again_at = 0.0

    def warn(self, error: Exception) -> None:
        """Say what has happened, if that was not said lately."""
        now = asyncio.get_running_loop().time()
        if now >= self._again_at:
            self._again_at = now + _WARN_EVERY_S
            log.warning(self._message, error=str(error))
