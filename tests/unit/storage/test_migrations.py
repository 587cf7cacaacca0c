"""From nothing to the newest form, by one process or by several at once."""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
import stat
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, select, text, update

from app.storage.engine import open_database, reading, writing
from app.storage.errors import StorageError
from app.storage.migrate import HEAD, MIGRATIONS, prepare
from app.storage.tables import meta, metadata, projects
from tests.support.databases import url_of


def _differences(connection: Connection) -> Any:
    return compare_metadata(MigrationContext.configure(connection), metadata)


async def test_leads_from_nothing_to_the_tables(empty_database: str) -> None:
    engine = open_database(url_of(empty_database))
    await prepare(engine)
    async with reading(engine) as connection:
        assert await connection.run_sync(_differences) == []
        values = {row.key: row.value for row in await connection.execute(select(meta))}
        assert list(await connection.scalars(select(projects.c.appkey))) == ["*"]
    assert values["revision"] == "1" and len(bytes.fromhex(values["token_key"])) == 32
    await engine.dispose()


async def test_changes_nothing_the_second_time(empty_database: str) -> None:
    for revision in ("1", "2"):
        engine = open_database(url_of(empty_database))
        await prepare(engine)
        async with writing(engine) as connection:
            which = meta.c.key == "revision"
            assert await connection.scalar(select(meta.c.value).where(which)) == revision
            await connection.execute(update(meta).where(which).values(value="2"))
        await engine.dispose()


def test_the_newest_migration_is_the_head() -> None:
    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


_PREPARE = """
import asyncio, sys
from app.storage.engine import open_database
from app.storage.migrate import prepare

async def main():
    engine = open_database(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.read()
    await prepare(engine)
    await engine.dispose()

asyncio.run(main())
"""


@pytest.mark.slow
async def test_four_processes_may_start_at_once(empty_database: str) -> None:
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-c", _PREPARE, url_of(empty_database)]
    processes = [
        await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    for _, errors in await asyncio.gather(*(process.communicate(b"") for process in processes)):
        assert not errors, errors.decode()
    await test_changes_nothing_the_second_time(empty_database)


async def test_waits_for_another_process_that_migrates_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that change the file's journal at once may both be refused, without any waiting."""
    path, asked, flock = tmp_path / "x.db", threading.Event(), fcntl.flock

    def noted(file: int, operation: int) -> None:
        asked.set()
        flock(file, operation)

    with Path(f"{path}.lock").open("w") as lock:  # noqa: ASYNC230 - an empty file
        flock(lock, fcntl.LOCK_EX)
        monkeypatch.setattr(fcntl, "flock", noted)
        engine = open_database(url_of(f"sqlite:///{path}"))
        preparing = asyncio.create_task(prepare(engine))
        assert await asyncio.to_thread(asked.wait, 60)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert not preparing.done()
    await preparing
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    await engine.dispose()


async def test_a_newer_database_is_left_alone(empty_database: str) -> None:
    engine = open_database(url_of(empty_database))
    await prepare(engine)
    async with writing(engine) as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StorageError, match=r"9999.*newer FunSpeech"):
        await prepare(engine)
    await engine.dispose()


async def test_a_failed_migration_leaves_nothing(empty_database: str) -> None:
    engine = open_database(url_of(empty_database))
    async with writing(engine) as connection:
        await connection.execute(text("CREATE TABLE usage (x INTEGER)"))  # is in the way
    with pytest.raises(StorageError, match="usage"):
        await prepare(engine)
    async with writing(engine) as connection:
        await connection.execute(text("DROP TABLE usage"))
    await prepare(engine)
    async with reading(engine) as connection:
        assert await connection.run_sync(_differences) == []
    await engine.dispose()


async def test_the_file_is_its_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.db"
    engine = open_database(url_of(f"sqlite:///{path}"))
    await prepare(engine)
    async with writing(engine) as connection:
        await connection.execute(update(meta).values(value="7"))
        files = list(path.parent.iterdir())
        assert {file.name for file in files} == {"x.db", "x.db.lock", "x.db-wal", "x.db-shm"}
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    await engine.dispose()


async def test_what_cannot_be_a_database_is_one_line(tmp_path: Path) -> None:
    wrong = tmp_path / "text.db"
    wrong.write_text("nothing of a database\n" * 100)
    for path in (wrong, tmp_path, wrong / "inside"):
        engine = open_database(url_of(f"sqlite:///{path}"))
        with pytest.raises(StorageError, match=r"^The database .* cannot be used: .+") as refusal:
            await prepare(engine)
        assert "\n" not in str(refusal.value)
        await engine.dispose()


async def test_a_server_that_is_away_is_one_line_without_the_password(
    postgresql_server: str,
) -> None:
    folder = postgresql_server.partition("host=")[2]
    for setting in (
        "postgresql://user:secret@/x?host=/nowhere",
        f"postgresql://tester:secret@/missing?host={folder}",
        f"postgresql://missing:secret@/postgres?host={folder}",
    ):
        engine = open_database(url_of(setting))
        with pytest.raises(StorageError, match="cannot be used") as refusal:
            await prepare(engine)
        assert "secret" not in str(refusal.value) and "\n" not in str(refusal.value)
        await engine.dispose()


async def test_writers_wait_for_each_other(empty_database: str) -> None:
    """Each reads and then writes: without the lock from the first moment, SQLite would refuse all
    but one, and additions would be lost."""
    engines = [open_database(url_of(empty_database)) for _ in range(3)]
    await prepare(engines[0])
    async with writing(engines[0]) as connection:
        await connection.execute(insert(meta).values(key="count", value="0"))
    which = meta.c.key == "count"

    async def add(number: int) -> None:
        async with writing(engines[number % 3]) as connection:
            query = select(meta.c.value).where(which).with_for_update()
            before = int(await connection.scalar(query) or 0)
            await connection.execute(update(meta).where(which).values(value=str(before + 1)))

    await asyncio.gather(*(add(number) for number in range(30)))
    async with reading(engines[1]) as connection:
        assert await connection.scalar(select(meta.c.value).where(which)) == "30"
    for engine in engines:
        await engine.dispose()


async def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    engine = open_database(url_of(f"sqlite:///{tmp_path}/x.db"))
    await prepare(engine)
    async with writing(engine) as writer:
        await writer.execute(update(meta).where(meta.c.key == "revision").values(value="5"))
        async with reading(engine) as reader:
            found = await reader.scalar(select(meta.c.value).where(meta.c.key == "revision"))
    assert found == "1"
    await engine.dispose()


async def test_errors_show_no_values(empty_database: str) -> None:
    engine = open_database(url_of(empty_database))
    await prepare(engine)
    with pytest.raises(StorageError) as refusal:
        async with writing(engine) as connection:
            await connection.execute(insert(meta).values(key="revision", value="hidden-value"))
    assert "hidden-value" not in str(refusal.value) and "\n" not in str(refusal.value)
    await engine.dispose()
