"""Who may decode now: everybody at the same time, or one suspect alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Like a lock for readers and a writer; the writers are the suspects and go first, since they
    are clients that have waited for a new process already."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._together = 0  # steps that run now, none of them of a suspect
        self._alone = False  # a suspect's step runs
        self._suspects = 0  # that wait

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """A step among others, inside the block."""
        if self._alone or self._suspects:
            async with self._changed:
                await self._changed.wait_for(lambda: not self._alone and not self._suspects)
        self._together += 1
        try:
            yield
        finally:
            self._together -= 1
            await self._tell()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """A step during which no other runs, inside the block."""
        self._suspects += 1
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: not self._alone and not self._together)
                self._alone = True
        except BaseException:
            # It may have been woken in place of another, and does not wait for its turn any more.
            self._suspects -= 1
            await self._tell()
            raise
        self._suspects -= 1
        try:
            yield
        finally:
            self._alone = False
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
