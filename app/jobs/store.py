"""Jobs in the database: every method is one transaction.

    queued ─► running ─► done
        └───────┴──────► failed

Whoever accepts a job owns it, under a lease that it renews for as long as it lives. A job whose
lease has run out has failed: who worked on it is gone. Nothing that its owner says later counts.
Every method may raise :class:`app.storage.errors.StorageError`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import ColumnElement, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from app.nls.file_transcription import INTERRUPTED
from app.storage.engine import reading, writing
from app.storage.tables import jobs

State = Literal["queued", "running", "done", "failed"]

LEASE_S: Final = 60
"""Of a job whose owner is not heard of."""

KEPT_S: Final = 72 * 3600
"""How long an ended job can be asked for (nls-protocol.md 6.5)."""

INTERRUPTED_TEXT: Final = "The server was interrupted in this task; submit it again."


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A row. ``id``: 32 hex digits. ``request`` and ``result``: JSON in the kind's own form. Times
    in seconds since 1970."""

    id: str
    kind: str
    appkey: str
    request: str
    state: State = "queued"
    result: str | None = None
    error_code: int | None = None
    error_text: str | None = None
    created_at: int = 0
    started_at: int | None = None
    finished_at: int | None = None
    lease_until: int | None = None
    owner: str | None = None


class JobStore:
    """``clock``: seconds since 1970, the same for all who share the database."""

    def __init__(self, engine: AsyncEngine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock

    async def add(self, job: Job, owner: str) -> None:
        """Accept a job, which ``owner`` will run. It is saved when this returns."""
        now = self._now()
        accepted = msgspec.structs.replace(
            job, state="queued", created_at=now, lease_until=now + LEASE_S, owner=owner
        )
        async with writing(self._engine) as connection:
            await connection.execute(insert(jobs).values(**msgspec.structs.asdict(accepted)))

    async def job(self, job_id: str) -> Job | None:
        """The job, as it is now; None: there is none, or not any more."""
        found = await self._read(job_id)
        if found is None or found.lease_until is None or found.lease_until >= self._now():
            return found
        await self.fail_lapsed()
        return await self._read(job_id)

    async def start(self, job_id: str, owner: str) -> bool:
        """Whether the job is still ``owner``'s, who now works on it."""
        mine = (jobs.c.id == job_id) & (jobs.c.owner == owner) & (jobs.c.state == "queued")
        return await self._change(mine, state="running", started_at=self._now()) > 0

    async def finish(self, job_id: str, owner: str, result: str) -> bool:
        """Save the result. False: the job was not ``owner``'s any more, and nothing is changed."""
        return await self._end(_running(job_id, owner), state="done", result=result) > 0

    async def fail(self, job_id: str, owner: str, code: int, text: str) -> bool:
        """As :meth:`finish`, of a job that has failed."""
        return await self._fail(_running(job_id, owner), code, text) > 0

    async def renew(self, owner: str, job_ids: Collection[str]) -> None:
        """``owner`` lives, and these are its jobs."""
        mine = _open() & (jobs.c.owner == owner) & jobs.c.id.in_(job_ids)
        await self._change(mine, lease_until=self._now() + LEASE_S)

    async def fail_all(self, owner: str) -> int:
        """All that ``owner`` has not ended are interrupted; how many these are."""
        return await self._interrupt(_open() & (jobs.c.owner == owner))

    async def fail_lapsed(self) -> int:
        """All whose owners are not heard of any more are interrupted; how many these are."""
        return await self._interrupt(_open() & (jobs.c.lease_until < self._now()))

    async def delete_old(self) -> int:
        """Forget what nobody may ask for any more; how many jobs that is."""
        async with writing(self._engine) as connection:
            old = jobs.c.finished_at < self._now() - KEPT_S
            return (await connection.execute(delete(jobs).where(old))).rowcount

    async def _read(self, job_id: str) -> Job | None:
        async with reading(self._engine) as connection:
            query = select(jobs).where(jobs.c.id == job_id)
            row = (await connection.execute(query)).mappings().one_or_none()
            if row is None:
                return None
            # SQLAlchemy's names are a kind of str that msgspec does not take.
            return msgspec.convert({str(name): value for name, value in row.items()}, Job)

    async def _interrupt(self, which: ColumnElement[bool]) -> int:
        return await self._fail(which, INTERRUPTED.code, INTERRUPTED_TEXT)

    async def _fail(self, which: ColumnElement[bool], code: int, text: str) -> int:
        return await self._end(which, state="failed", error_code=code, error_text=text)

    async def _end(self, which: ColumnElement[bool], **values: object) -> int:
        return await self._change(
            which, **values, finished_at=self._now(), lease_until=None, owner=None
        )

    async def _change(self, which: ColumnElement[bool], **values: Any) -> int:
        async with writing(self._engine) as connection:
            return (await connection.execute(update(jobs).where(which).values(**values))).rowcount

    def _now(self) -> int:
        return int(self._clock())


def _open() -> ColumnElement[bool]:
    return jobs.c.state.in_(["queued", "running"])


def _running(job_id: str, owner: str) -> ColumnElement[bool]:
    return (jobs.c.id == job_id) & (jobs.c.owner == owner) & (jobs.c.state == "running")
