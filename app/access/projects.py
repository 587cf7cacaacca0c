"""What this process knows of the database's projects and tokens, kept up to date."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.access.snapshot import EMPTY, Snapshot
from app.access.store import Store
from app.core.regularly import RareWarning, regularly
from app.storage.errors import StorageError


class Projects:
    """Holds one snapshot, and replaces it within ``interval_s`` when the database has changed.
    While the database is away the last one holds."""

    def __init__(self, store: Store, interval_s: float = 1.0) -> None:
        self._store = store
        self._interval_s = interval_s
        self._current = EMPTY
        self._loading = asyncio.Lock()
        self._warning = RareWarning(
            "the database cannot be read; projects and tokens stay as they were"
        )

    @property
    def current(self) -> Snapshot:
        """What is known now; it never changes under those who hold it."""
        return self._current

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Inside the block :attr:`current` is kept up to date.

        Raises:
            StorageError: the database cannot be read at the start. Later failures are only logged.
        """
        await self.reload()
        async with regularly(self._follow, self._interval_s):
            yield

    async def reload(self) -> None:
        """Load everything now: for those who have just changed something.

        Raises:
            StorageError: the database cannot be read.
        """
        async with self._loading:  # else an older snapshot could replace a newer one
            self._current = await self._store.snapshot()

    async def _follow(self) -> None:
        try:
            if await self._store.revision() != self._current.revision:
                await self.reload()
        except StorageError as error:
            self._warning.warn(error)
