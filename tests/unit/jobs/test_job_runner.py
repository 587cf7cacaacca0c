"""The runner on a real database: what it accepts, runs, and leaves behind."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from app.access.store import open_store
from app.core.config import Config
from app.core.errors import BadAudio, RecordingsFull
from app.jobs import runner as runner_module
from app.jobs.runner import Runner
from app.jobs.store import LEASE_S, Job, JobStore
from app.nls.file_transcription import INTERNAL_ERROR, INTERRUPTED, PARSE_FAILED
from app.storage.errors import StorageError


def new() -> Job:
    return Job(id=uuid.uuid4().hex, kind="transcription", appkey="k", request="{}")


class Work:
    """Does what each test tells it; ``go`` lets all that wait go on."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.running = 0
        self.most = 0
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, job: Job) -> str:
        self.begun.append(job.id)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.go.wait()
            if self.error is not None:
                raise self.error
            return f'{{"of":"{job.id}"}}'
        finally:
            self.running -= 1


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[JobStore]:
    async with open_store(Config(data_dir=tmp_path)) as found:
        yield JobStore(found.engine)


async def until(ready: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await ready():  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.01)


async def ended(runner: Runner, job: Job) -> Job:
    async def is_over() -> bool:
        found = await runner.find(job.id)
        return found is not None and found.state in ("done", "failed")

    await until(is_over)
    found = await runner.find(job.id)
    assert found is not None
    return found


async def test_jobs_are_done_in_order_and_a_few_at_a_time(store: JobStore, work: Work) -> None:
    runner, jobs = Runner(store, work, max_running=2), [new() for _ in range(6)]
    async with runner.running():
        for job in jobs:
            await runner.submit(job)

        async def two_run() -> bool:
            return work.running == 2

        await until(two_run)
        states = [found.state for job in jobs if (found := await runner.find(job.id))]
        assert states == ["running", "running", "queued", "queued", "queued", "queued"]
        work.go.set()
        for job in jobs:
            done = await ended(runner, job)
            assert (done.state, done.result) == ("done", f'{{"of":"{job.id}"}}')
    assert set(work.begun[:2]) == {job.id for job in jobs[:2]}
    assert len(work.begun) == 6
    assert work.most == 2


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (BadAudio("what is wrong"), PARSE_FAILED.code, "what is wrong"),
        (ValueError("/secret/path"), INTERNAL_ERROR.code, "The speech engine failed"),
    ],
)
async def test_a_failure_is_told_and_the_next_job_is_run(
    store: JobStore, work: Work, error: Exception, code: int, text: str
) -> None:
    runner, bad, good = Runner(store, work, max_running=1), new(), new()
    work.go.set()
    async with runner.running():
        work.error = error
        await runner.submit(bad)
        failed = await ended(runner, bad)
        work.error = None
        await runner.submit(good)
        assert (await ended(runner, good)).state == "done"
    assert (failed.state, failed.error_code) == ("failed", code)
    assert str(failed.error_text).startswith(text)


async def test_more_than_can_wait_is_refused(store: JobStore, work: Work) -> None:
    runner = Runner(store, work, max_running=1, max_waiting=2)
    jobs = [new() for _ in range(3)]
    async with runner.running():
        for job in jobs:
            await runner.submit(job)
        refused = new()
        with pytest.raises(RecordingsFull):
            await runner.submit(refused)
        assert await runner.find(refused.id) is None
        work.go.set()
        await ended(runner, jobs[0])
        for job in jobs:
            await ended(runner, job)
        # There is room again, as soon as the runner has let go of them.
        another = new()

        async def accepted() -> bool:
            try:
                await runner.submit(another)
            except RecordingsFull:
                return False
            return True

        await until(accepted)
        assert (await ended(runner, another)).state == "done"


@pytest.mark.parametrize("waiting", [0, 1])
async def test_the_end_interrupts_what_runs_and_what_waits(
    store: JobStore, work: Work, waiting: int
) -> None:
    runner, jobs = Runner(store, work, max_running=1), [new() for _ in range(1 + waiting)]
    async with runner.running():
        for job in jobs:
            await runner.submit(job)

        async def one_runs() -> bool:
            return work.running == 1

        await until(one_runs)
    assert work.running == 0
    assert len(work.begun) == 1
    for job in jobs:
        found = await store.job(job.id)
        assert found is not None
        assert (found.state, found.error_code) == ("failed", INTERRUPTED.code)
    with pytest.raises(RecordingsFull):
        await runner.submit(new())


async def test_the_lease_is_renewed_while_a_job_waits_and_runs(store: JobStore, work: Work) -> None:
    runner, jobs = Runner(store, work, max_running=1, heartbeat_s=0.01), [new(), new()]
    async with runner.running():
        for job in jobs:
            await runner.submit(job)
        before = [found.lease_until for job in jobs if (found := await store.job(job.id))]
        store._clock = lambda: float(before[0] or 0) - LEASE_S / 2

        async def renewed() -> bool:
            now = [found.lease_until for job in jobs if (found := await store.job(job.id))]
            return all(int(new or 0) > int(old or 0) for old, new in zip(before, now, strict=True))

        await until(renewed)


async def test_whose_lease_has_run_out_is_too_late(store: JobStore, work: Work) -> None:
    """As of a process that was stopped for minutes."""
    runner, job = Runner(store, work, max_running=1), new()
    async with runner.running():
        await runner.submit(job)

        async def runs() -> bool:
            return work.running == 1

        await until(runs)
        assert await store.fail_all(runner._owner) == 1  # as whoever looks at it would
        work.go.set()

        async def let_go() -> bool:
            return not runner._held

        await until(let_go)
        found = await store.job(job.id)
    assert found is not None
    assert (found.state, found.error_code, found.result) == ("failed", INTERRUPTED.code, None)


async def test_what_cannot_be_saved_is_not_accepted(
    store: JobStore, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, job = Runner(store, work, max_running=1, max_waiting=0), new()
    work.go.set()

    async def away(*_: object) -> None:
        raise StorageError("away")

    async with runner.running():
        with monkeypatch.context() as broken:
            broken.setattr(JobStore, "add", away)
            with pytest.raises(StorageError):
                await runner.submit(job)
        await runner.submit(job)  # and takes no room
        assert (await ended(runner, job)).state == "done"
    assert work.begun == [job.id]


async def test_a_result_outlasts_a_database_that_is_away(
    store: JobStore, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "_SAVE_AGAIN_S", (0.0, 0.0))
    failures, finish = [1, 2], JobStore.finish

    async def twice_away(self: JobStore, *arguments: Any) -> bool:
        if failures:
            raise StorageError(f"away {failures.pop()}")
        return await finish(self, *arguments)

    monkeypatch.setattr(JobStore, "finish", twice_away)
    runner, job = Runner(store, work), new()
    work.go.set()
    async with runner.running():
        await runner.submit(job)
        assert (await ended(runner, job)).state == "done"
    assert not failures
