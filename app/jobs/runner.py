"""Runs the jobs that this process has accepted, a few at a time, in the order in which they came.

They end with the process: what is not done then is marked as interrupted, by this process or, if it
was killed, by whoever looks at the job when its lease has run out.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog

from app.core import metrics
from app.core.errors import EngineFailed, RecordingsFull, SpeechError
from app.core.regularly import RareWarning, regularly
from app.jobs.store import LEASE_S, Job, JobStore
from app.nls.file_transcription import INTERNAL_ERROR, SUCCESS, status_of
from app.storage.errors import StorageError

log = structlog.get_logger(__name__)

MAX_RUNNING: Final = 2
"""Jobs that one API process works on at the same time; each takes a stream of an engine."""

MAX_WAITING: Final = 100
"""Jobs that wait in one API process; one more is refused."""

HEARTBEAT_S: Final = LEASE_S / 4
CLEAN_UP_S: Final = 600.0

_SAVE_AGAIN_S: Final = (1.0, 5.0, 15.0)
"""Pauses before what a job has come to is saved again, when the database is away."""

Work = Callable[[Job], Coroutine[Any, Any, str]]
"""Does a job and returns its result as JSON. Raises SpeechError."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """``result``: None where the job has failed; ``text`` then says why."""

    code: int
    result: str | None = None
    text: str = ""


class Runner:
    """Accepts jobs, runs them, and tells how they are. Used on one event loop."""

    def __init__(
        self,
        store: JobStore,
        work: Work,
        *,
        max_running: int = MAX_RUNNING,
        max_waiting: int = MAX_WAITING,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._store = store
        self._work = work
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._heartbeat_s = heartbeat_s
        self._owner = uuid.uuid4().hex
        self._held: set[str] = set()  # ids of jobs that are accepted and not ended
        self._queue: asyncio.Queue[Job | None] = asyncio.Queue()  # None: the end
        self._working: set[asyncio.Task[str]] = set()
        self._end = asyncio.Event()
        self._warning = RareWarning("the database is away; the states of jobs are not saved")

    async def submit(self, job: Job) -> None:
        """Accept a job: it is saved when this returns.

        Raises:
            RecordingsFull: too many wait.
            StorageError: it could not be saved.
        """
        if self._end.is_set() or len(self._held) >= self._max_running + self._max_waiting:
            raise RecordingsFull
        self._held.add(job.id)
        try:
            await self._store.add(job, self._owner)
        except BaseException:
            # If it was saved nevertheless, its lease runs out.
            self._held.discard(job.id)
            raise
        self._queue.put_nowait(job)

    async def find(self, job_id: str) -> Job | None:
        """See :meth:`JobStore.job`: of all processes' jobs."""
        return await self._store.job(job_id)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Inside the block jobs are run."""
        loops = [asyncio.create_task(self._loop()) for _ in range(self._max_running)]
        try:
            async with (
                regularly(self._beat, self._heartbeat_s),
                regularly(self._clean_up, CLEAN_UP_S),
            ):
                yield
        finally:
            self._end.set()
            for working in self._working:
                working.cancel()
            for _ in loops:
                self._queue.put_nowait(None)
            await asyncio.gather(*loops)
            await self._interrupt()

    async def _loop(self) -> None:
        while (job := await self._queue.get()) is not None and not self._end.is_set():
            try:
                await self._run(job)
            except StorageError as error:
                log.error("a job's state was not saved", task_id=job.id, error=str(error))
            except Exception:  # must not end the loop
                log.exception("a job failed unexpectedly", task_id=job.id)
            finally:
                self._held.discard(job.id)

    async def _run(self, job: Job) -> None:
        mine = await self._saved(lambda: self._store.start(job.id, self._owner))
        if not mine or self._end.is_set():
            return
        began = time.monotonic()
        outcome = await self._outcome(job)
        if outcome is None:
            return  # all that are left are marked together
        in_time = await self._saved(lambda: self._save(job, outcome))
        metrics.TASKS.labels(job.kind, outcome.code).inc()
        log.info(
            "job ended" if in_time else "job ended after its lease",
            task_id=job.id,
            code=outcome.code,
            ms=round((time.monotonic() - began) * 1000),
        )

    async def _outcome(self, job: Job) -> _Outcome | None:
        """What has come of the work; None: the runner ends."""
        working = asyncio.create_task(self._work(job))
        self._working.add(working)
        try:
            return _Outcome(SUCCESS.code, result=await working)
        except asyncio.CancelledError:
            if not self._end.is_set():
                raise
            return None
        except SpeechError as error:
            return _Outcome(status_of(error).code, text=error.text)
        except Exception:
            log.exception("a job failed unexpectedly", task_id=job.id)
            return _Outcome(INTERNAL_ERROR.code, text=EngineFailed.default_text)
        finally:
            self._working.discard(working)

    async def _save(self, job: Job, outcome: _Outcome) -> bool:
        if outcome.result is not None:
            return await self._store.finish(job.id, self._owner, outcome.result)
        return await self._store.fail(job.id, self._owner, outcome.code, outcome.text)

    async def _saved(self, write: Callable[[], Awaitable[bool]]) -> bool:
        """What ``write`` returns, which is tried a few times."""
        for pause_s in _SAVE_AGAIN_S:
            try:
                return await write()
            except StorageError as error:
                self._warning.warn(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._end.wait()
        return await write()

    async def _beat(self) -> None:
        if self._held:
            try:
                await self._store.renew(self._owner, sorted(self._held))
            except StorageError as error:
                self._warning.warn(error)

    async def _clean_up(self) -> None:
        try:
            await self._store.fail_lapsed()
            await self._store.delete_old()
        except StorageError as error:
            self._warning.warn(error)

    async def _interrupt(self) -> None:
        try:
            if count := await self._store.fail_all(self._owner):
                log.warning("jobs were interrupted", count=count)
        except StorageError as error:
            log.error("interrupted jobs were not marked; they will be", error=str(error))
