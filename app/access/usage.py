"""What each project uses: counted in memory, added to the database every few seconds.

A process that is killed loses what it has counted since then, at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import structlog

from app.access.projects import Projects
from app.access.rows import UsageSum
from app.access.store import Store
from app.core.regularly import RareWarning, regularly
from app.core.speech import Role
from app.core.usage import Used
from app.storage.errors import StorageError

log = structlog.get_logger(__name__)

Sums = dict[tuple[str, Role], UsageSum]
"""By appkey and kind."""

_NOTHING: Final = UsageSum()


class UsageLedger:
    """Records under the project's appkey; appkeys without a project of their own count together, as
    that of the default one, else clients would choose what the database keeps. ``clock``: seconds
    since 1970. Used on one event loop."""

    def __init__(
        self,
        store: Store,
        projects: Projects,
        interval_s: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._projects = projects
        self._interval_s = interval_s
        self._clock = clock
        self._unsaved: dict[str, Sums] = {}  # by day; one sum for each project and kind
        self._saving: dict[str, Sums] = {}  # what a transaction under way adds to the database
        self._saved: Sums = {}  # of that day; by all processes where there are quotas
        self._saved_day = ""
        self._lock = asyncio.Lock()
        self._warning = RareWarning("the database is away; usage is kept until it is back")

    def record(self, appkey: str, used: Used) -> None:
        """Count one task: an :data:`app.core.usage.Account`."""
        key = (self._projects.current.project_of(appkey).appkey, used.kind)
        one = UsageSum(
            tasks=1, failed=int(used.failed), audio_ms=used.audio_ms, characters=used.characters
        )
        _add(self._unsaved.setdefault(self._today(), {}), {key: one})

    def used_today(self, appkey: str) -> tuple[int, int]:
        """Whole seconds of audio, and characters, that the project has used since midnight UTC: by
        this process until now, and by the others until a few seconds ago, which is looked at only
        where a project has a quota."""
        today = self._today()
        parts = [self._unsaved.get(today, {}), self._saving.get(today, {})]
        if self._saved_day == today:
            parts.append(self._saved)
        found = [sums for part in parts for (key, _), sums in part.items() if key == appkey]
        return sum(each.audio_ms for each in found) // 1000, sum(each.characters for each in found)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Inside the block, and at its end, what was counted is saved.

        Raises:
            StorageError: the database cannot be read at the start. Later failures are only logged.
        """
        await self._look()
        try:
            async with regularly(self._save_and_look, self._interval_s):
                yield
        finally:
            if not await self._save_all():
                log.error("usage was not saved, and is lost")

    async def flush(self) -> None:
        """Save what was counted until now.

        Raises:
            StorageError: it could not be saved, and is kept for the next time.
        """
        async with self._lock:
            for day in sorted(self._unsaved):
                self._saving[day] = self._unsaved.pop(day)
                try:
                    await self._store.add_usage(day, self._saving[day])
                except BaseException:
                    _add(self._unsaved.setdefault(day, {}), self._saving.pop(day))
                    raise
                saved = self._saving.pop(day)
                if day == self._saved_day:
                    _add(self._saved, saved)

    async def _save_and_look(self) -> None:
        if await self._save_all():
            try:
                await self._look()
            except StorageError as error:
                self._warning.warn(error)

    async def _save_all(self) -> bool:
        try:
            await self.flush()
        except StorageError as error:
            self._warning.warn(error)
            return False
        return True

    async def _look(self) -> None:
        """Learn what all processes have saved today."""
        async with self._lock:
            today = self._today()
            if self._projects.current.has_quotas:
                rows = await self._store.usage(today, today)
                self._saved = {(row.appkey, row.kind): row.used for row in rows}
            elif self._saved_day != today:
                self._saved = {}
            self._saved_day = today

    def _today(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%d")


def _add(total: Sums, more: Mapping[tuple[str, Role], UsageSum]) -> None:
    for key, sums in more.items():
        before = total.get(key, _NOTHING)
        total[key] = UsageSum(
            tasks=before.tasks + sums.tasks,
            failed=before.failed + sums.failed,
            audio_ms=before.audio_ms + sums.audio_ms,
            characters=before.characters + sums.characters,
        )
