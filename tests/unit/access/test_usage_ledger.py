"""What is used is counted once, whatever happens to the database meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping

import pytest
from structlog.testing import capture_logs

from app.access.projects import Projects
from app.access.rows import ProjectRow, UsageSum
from app.access.store import Store
from app.access.usage import UsageLedger
from app.core.speech import Role
from app.core.usage import Account, Used
from app.storage.errors import StorageError

MIDNIGHT = 1_800_057_600.0
TODAY, YESTERDAY = "2027-01-16", "2027-01-15"
ALL = ("2000-01-01", "2100-01-01")


class Clock:
    """Seconds since 1970, set by the test."""

    def __init__(self) -> None:
        self.now = MIDNIGHT

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def projects(store: Store) -> Projects:
    for appkey in ("a", "b"):
        await store.save_project(ProjectRow(appkey=appkey, daily_audio_s=100), new=True)
    projects = Projects(store)
    await projects.reload()
    return projects


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a task in the background does."""
    while not condition():  # noqa: ASYNC110 - it has no event for this
        await asyncio.sleep(0.005)


async def _sums(store: Store) -> dict[tuple[str, str, Role], UsageSum]:
    return {(row.day, row.appkey, row.kind): row.used for row in await store.usage(*ALL)}


async def test_counts_by_day_project_and_kind(
    store: Store, projects: Projects, clock: Clock
) -> None:
    ledger = UsageLedger(store, projects, clock=clock)
    account: Account = ledger.record
    clock.now = MIDNIGHT - 0.001
    account("a", Used(kind="asr", audio_ms=1500))
    clock.now = MIDNIGHT
    account("a", Used(kind="asr", audio_ms=10, failed=True))
    account("a", Used(kind="tts", audio_ms=20, characters=5))
    account("a", Used(kind="tts", audio_ms=20, characters=5))
    for unknown in ("x", "y", "*", ""):
        account(unknown, Used(kind="asr", audio_ms=1))
    await ledger.flush()
    expected = {
        (YESTERDAY, "a", "asr"): UsageSum(tasks=1, audio_ms=1500),
        (TODAY, "a", "asr"): UsageSum(tasks=1, failed=1, audio_ms=10),
        (TODAY, "a", "tts"): UsageSum(tasks=2, audio_ms=40, characters=10),
        (TODAY, "*", "asr"): UsageSum(tasks=4, audio_ms=4),
    }
    assert await _sums(store) == expected
    await ledger.flush()
    assert await _sums(store) == expected


class Failing(Store):
    """A store that fails half of the times, before or after it has waited."""

    def __init__(self, store: Store, seed: int) -> None:
        self.__dict__ = store.__dict__
        self.random = random.Random(seed)
        self.failures = 0
        self.away = True

    async def add_usage(self, day: str, rows: Mapping[tuple[str, Role], UsageSum]) -> None:
        if self.away and self.random.random() < 0.5:
            self.failures += 1
            if self.random.random() < 0.5:
                await asyncio.sleep(0)
            raise StorageError("away")
        await super().add_usage(day, rows)


async def test_a_thousand_records_add_up_exactly_while_flushes_fail(
    store: Store, projects: Projects
) -> None:
    failing = Failing(store, seed=7)
    ledger = UsageLedger(failing, projects, interval_s=0.001)
    chance = random.Random(3)
    expected: dict[tuple[str, Role], list[int]] = {}

    async def task(number: int) -> None:
        kinds: tuple[Role, ...] = ("asr", "tts")
        appkey, kind = chance.choice(("a", "b", "c")), chance.choice(kinds)
        used = Used(kind=kind, audio_ms=number, characters=number % 7, failed=number % 3 == 0)
        sums = expected.setdefault(("*" if appkey == "c" else appkey, kind), [0, 0, 0, 0])
        for place, more in enumerate((1, int(used.failed), used.audio_ms, used.characters)):
            sums[place] += more
        for _ in range(chance.randrange(5)):
            await asyncio.sleep(0.001)
        ledger.record(appkey, used)

    with capture_logs():
        async with ledger.running():
            await asyncio.gather(*(task(number) for number in range(1000)))
            while failing.failures < 3:
                ledger.record("a", Used(kind="asr"))
                expected.setdefault(("a", "asr"), [0, 0, 0, 0])[0] += 1
                await asyncio.sleep(0.001)
            failing.away = False
    found: dict[tuple[str, Role], list[int]] = {}
    for row in await store.usage(*ALL):  # of two days, should midnight pass meanwhile
        sums = found.setdefault((row.appkey, row.kind), [0, 0, 0, 0])
        used = row.used
        for place, more in enumerate((used.tasks, used.failed, used.audio_ms, used.characters)):
            sums[place] += more
    assert found == expected


async def test_what_is_recorded_during_a_flush_is_kept(store: Store, projects: Projects) -> None:
    class Slow(Failing):
        async def add_usage(self, day: str, rows: Mapping[tuple[str, Role], UsageSum]) -> None:
            ledger.record("a", Used(kind="asr", audio_ms=2000))
            seen.append(ledger.used_today("a"))
            raise StorageError("away")

    seen: list[tuple[int, int]] = []
    ledger = UsageLedger(Slow(store, 0), projects)
    ledger.record("a", Used(kind="asr", audio_ms=1000))
    with pytest.raises(StorageError):
        await ledger.flush()
    assert seen == [(3, 0)] and ledger.used_today("a") == (3, 0)


async def test_used_today_counts_what_is_saved_and_what_is_not(
    store: Store, projects: Projects, clock: Clock
) -> None:
    await store.add_usage(TODAY, {("a", "asr"): UsageSum(audio_ms=10_000, characters=1)})
    await store.add_usage(YESTERDAY, {("a", "asr"): UsageSum(audio_ms=77_000)})
    ledger = UsageLedger(store, projects, 3600, clock)
    async with ledger.running():
        assert ledger.used_today("a") == (10, 1)
        ledger.record("a", Used(kind="asr", audio_ms=1999))
        ledger.record("a", Used(kind="tts", audio_ms=1000, characters=5))
        assert ledger.used_today("a") == (12, 6)
        await ledger.flush()
        assert ledger.used_today("a") == (12, 6)
        assert ledger.used_today("b") == (0, 0)
        clock.now += 86_400
        assert ledger.used_today("a") == (0, 0)


async def test_a_quota_sees_what_other_processes_use(store: Store, projects: Projects) -> None:
    ours, theirs = (UsageLedger(store, projects, 0.005) for _ in range(2))
    async with ours.running(), theirs.running():
        theirs.record("a", Used(kind="asr", audio_ms=5000))
        await until(lambda: ours.used_today("a") == (5, 0))
        assert theirs.used_today("a") == (5, 0)


async def test_without_quotas_nothing_is_looked_up(store: Store, clock: Clock) -> None:
    class Blind(Failing):
        async def usage(self, *_: object, **__: object) -> list[object]:  # type: ignore[override] # never returns
            raise AssertionError("asked")

    blind = Blind(store, 0)
    blind.away = False
    projects = Projects(store)
    await projects.reload()
    ledger = UsageLedger(blind, projects, 3600, clock)
    async with ledger.running():
        ledger.record("a", Used(kind="asr", audio_ms=5000))
        assert ledger.used_today("*") == (5, 0)
        await ledger.flush()
        assert ledger.used_today("*") == (5, 0)


async def test_the_end_saves_what_was_counted(store: Store, projects: Projects) -> None:
    ledger = UsageLedger(store, projects, 3600)
    with pytest.raises(KeyError):
        async with ledger.running():
            ledger.record("a", Used(kind="tts", characters=3))
            raise KeyError
    assert [row.used.characters for row in await store.usage(*ALL)] == [3]


async def test_what_cannot_be_saved_at_the_end_is_told(store: Store, projects: Projects) -> None:
    failing = Failing(store, 0)
    failing.random.random = lambda: 0.0  # type: ignore[method-assign] # always fails
    ledger = UsageLedger(failing, projects, 3600)
    with capture_logs() as logs:
        async with ledger.running():
            ledger.record("a", Used(kind="asr"))
    assert [line["log_level"] for line in logs] == ["warning", "error"]
