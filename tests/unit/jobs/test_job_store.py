"""Jobs in both databases: their states, and what becomes of them when nobody renews their lease."""

from __future__ import annotations

import pytest

from app.access.store import Store
from app.jobs.store import KEPT_S, LEASE_S, Job, JobStore
from app.nls.file_transcription import INTERRUPTED

OWNER, OTHER = "a" * 32, "b" * 32
NOW = 1_800_000_000


def new(number: int = 1) -> Job:
    return Job(id=f"{number:032x}", kind="transcription", appkey="k", request='{"a":"\\u0000中"}')


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(store: Store, clock: Clock) -> JobStore:
    return JobStore(store.engine, clock)


async def state(jobs: JobStore, job: Job) -> str | None:
    found = await jobs.job(job.id)
    return None if found is None else found.state


async def test_a_whole_life(jobs: JobStore, clock: Clock) -> None:
    job = new()
    assert await jobs.job(job.id) is None
    await jobs.add(job, OWNER)
    queued = await jobs.job(job.id)
    assert queued is not None
    assert (queued.request, queued.appkey, queued.kind) == (job.request, "k", "transcription")
    assert (queued.state, queued.created_at, queued.owner) == ("queued", NOW, OWNER)
    assert queued.lease_until == NOW + LEASE_S
    clock.now += 5
    assert await jobs.start(job.id, OWNER)
    assert await state(jobs, job) == "running"
    clock.now += 5
    assert await jobs.finish(job.id, OWNER, "{}")
    done = await jobs.job(job.id)
    assert done is not None
    assert (done.state, done.result, done.error_code) == ("done", "{}", None)
    assert (done.started_at, done.finished_at) == (NOW + 5, NOW + 10)
    assert (done.lease_until, done.owner) == (None, None)


async def test_one_that_fails(jobs: JobStore) -> None:
    job = new()
    await jobs.add(job, OWNER)
    await jobs.start(job.id, OWNER)
    assert await jobs.fail(job.id, OWNER, 41050002, "why")
    failed = await jobs.job(job.id)
    assert failed is not None
    assert (failed.state, failed.error_code, failed.error_text) == ("failed", 41050002, "why")
    assert failed.result is None and failed.finished_at == NOW


async def test_no_step_is_left_out_and_none_is_done_twice(jobs: JobStore) -> None:
    job = new()
    await jobs.add(job, OWNER)
    assert not await jobs.finish(job.id, OWNER, "{}")
    assert not await jobs.fail(job.id, OWNER, 1, "")
    assert not await jobs.start(job.id, OTHER)
    assert await jobs.start(job.id, OWNER)
    assert not await jobs.start(job.id, OWNER)
    assert not await jobs.finish(job.id, OTHER, "{}")
    assert await jobs.finish(job.id, OWNER, "first")
    assert not await jobs.finish(job.id, OWNER, "second")
    assert not await jobs.fail(job.id, OWNER, 1, "")
    found = await jobs.job(job.id)
    assert found is not None and found.result == "first"


@pytest.mark.parametrize("started", [False, True])
async def test_whoever_is_not_heard_of_has_failed(
    jobs: JobStore, clock: Clock, started: bool
) -> None:
    job = new()
    await jobs.add(job, OWNER)
    if started:
        await jobs.start(job.id, OWNER)
    clock.now += LEASE_S
    assert await state(jobs, job) == ("running" if started else "queued")
    clock.now += 1
    lapsed = await jobs.job(job.id)
    assert lapsed is not None
    assert (lapsed.state, lapsed.error_code) == ("failed", INTERRUPTED.code)
    assert "submit it again" in str(lapsed.error_text)
    # It wakes up again: too late.
    await jobs.renew(OWNER, [job.id])
    assert not await jobs.start(job.id, OWNER)
    assert not await jobs.finish(job.id, OWNER, "{}")
    assert await jobs.job(job.id) == lapsed


async def test_a_lease_holds_for_as_long_as_it_is_renewed(jobs: JobStore, clock: Clock) -> None:
    kept, forgotten, others = new(1), new(2), new(3)
    await jobs.add(kept, OWNER)
    await jobs.add(forgotten, OWNER)
    await jobs.add(others, OTHER)
    for _ in range(3):
        clock.now += LEASE_S - 1
        await jobs.renew(OWNER, [kept.id, others.id])
    assert await state(jobs, kept) == "queued"
    assert await state(jobs, forgotten) == "failed"
    assert await state(jobs, others) == "failed"


async def test_an_owner_ends_with_all_that_it_has(jobs: JobStore) -> None:
    waiting, running, done, others = (new(number) for number in range(1, 5))
    for job in (waiting, running, done):
        await jobs.add(job, OWNER)
    await jobs.add(others, OTHER)
    for job in (running, done):
        await jobs.start(job.id, OWNER)
    await jobs.finish(done.id, OWNER, "{}")
    assert await jobs.fail_all(OWNER) == 2
    states = [await state(jobs, job) for job in (waiting, running, done, others)]
    assert states == ["failed", "failed", "done", "queued"]


async def test_ended_jobs_are_kept_for_three_days(jobs: JobStore, clock: Clock) -> None:
    old, open_, young = (new(number) for number in range(1, 4))
    for job in (old, open_, young):
        await jobs.add(job, OWNER)
        await jobs.start(job.id, OWNER)
    await jobs.finish(old.id, OWNER, "{}")
    clock.now += 1
    await jobs.finish(young.id, OWNER, "{}")
    clock.now += KEPT_S - 1
    assert await jobs.delete_old() == 0
    clock.now += 1
    await jobs.renew(OWNER, [open_.id])
    assert await jobs.delete_old() == 1
    assert [await state(jobs, job) for job in (old, open_, young)] == [None, "running", "done"]
