"""Snapshots follow the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.access.projects import Projects
from app.access.rows import ProjectRow
from app.access.snapshot import EMPTY, Snapshot
from app.access.store import Store
from app.storage.engine import open_database
from app.storage.errors import StorageError
from app.storage.migrate import prepare
from tests.support.databases import url_of


@pytest.fixture
def empty_database(tmp_path: Path) -> str:
    """SQLite will do: that both databases keep the same is tested with the store."""
    return f"sqlite:///{tmp_path}/test.db"


class Away(Store):
    """A store whose database can be away, and which counts what is read."""

    away = False
    asked = 0
    snapshots = 0

    async def revision(self) -> int:
        self.asked += 1
        if self.away:
            raise StorageError("away")
        return await super().revision()

    async def snapshot(self) -> Snapshot:
        self.snapshots += 1
        if self.away:
            raise StorageError("away")
        return await super().snapshot()


@pytest.fixture
async def other(empty_database: str) -> AsyncIterator[Away]:
    """As another process has it: with an engine of its own."""
    engine = open_database(url_of(empty_database))
    await prepare(engine)
    yield Away(engine)
    await engine.dispose()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a task in the background does."""
    while not condition():  # noqa: ASYNC110 - it has no event for this
        await asyncio.sleep(0.005)


async def _until_asked(store: Away, times: int) -> None:
    wanted = store.asked + times
    await until(lambda: store.asked >= wanted)


def _has(projects: Projects, appkey: str) -> bool:
    return appkey in projects.current.projects


async def test_two_see_each_others_changes(store: Store, other: Away) -> None:
    ours, theirs = Projects(store, 0.01), Projects(other, 0.01)
    async with ours.running(), theirs.running():
        for writer, reader in ((store, theirs), (other, ours)):
            name = str(id(writer))
            await writer.save_project(ProjectRow(appkey=name), new=True)
            await until(partial(_has, reader, name))
    assert ours.current.revision == theirs.current.revision == await store.revision()


async def test_nothing_is_known_before_the_first_load(store: Store) -> None:
    projects = Projects(store)
    assert projects.current is EMPTY
    async with projects.running():
        assert "*" in projects.current.projects


async def test_the_writer_reloads_at_once(store: Store) -> None:
    projects = Projects(store, 3600)
    async with projects.running():
        await store.save_project(ProjectRow(appkey="a"), new=True)
        assert "a" not in projects.current.projects
        await projects.reload()
        assert "a" in projects.current.projects


async def test_everything_is_loaded_only_when_it_has_changed(other: Away) -> None:
    projects = Projects(other, 0.001)
    async with projects.running():
        await _until_asked(other, 5)
    assert other.snapshots == 1


async def test_the_last_snapshot_holds_while_the_database_is_away(
    store: Store, other: Away
) -> None:
    projects = Projects(other, 0.001)
    async with projects.running():
        held = projects.current
        with capture_logs() as logs:
            other.away = True
            await _until_asked(other, 5)
        assert [(line["log_level"], line["error"]) for line in logs] == [("warning", "away")]
        assert projects.current is held
        await store.save_project(ProjectRow(appkey="a"), new=True)
        other.away = False
        await until(partial(_has, projects, "a"))
    assert "a" not in held.projects


async def test_a_database_that_is_away_at_the_start_is_an_error(other: Away) -> None:
    other.away = True
    with pytest.raises(StorageError):
        async with Projects(other).running():
            pass


async def test_an_older_snapshot_never_replaces_a_newer_one(store: Store) -> None:
    projects = Projects(store, 0.001)
    async with projects.running():
        for number in range(20):
            await store.save_project(ProjectRow(appkey=str(number)), new=True)
            await asyncio.gather(projects.reload(), projects.reload())
            assert str(number) in projects.current.projects
