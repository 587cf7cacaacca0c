"""Databases for tests: SQLite's, and a PostgreSQL server of our own where one is installed.

A conftest imports the fixtures; a test that takes ``empty_database`` runs once for each kind.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import text

from app.access.store import Store
from app.core.config import Config
from app.storage.engine import database_url, open_database
from app.storage.migrate import prepare

_OTHER_USER = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
"""PostgreSQL refuses to run as root."""
_DEBIAN: Final = Path("/usr/lib/postgresql")


def url_of(setting: str) -> str:
    """The engine's URL for a value of DATABASE_URL."""
    return database_url(Config.model_validate({"database_url": setting}))


def _tool(name: str) -> str | None:
    """Where one of PostgreSQL's programs is: Debian keeps them out of the path."""
    places = [os.environ.get("PATH", os.defpath), *map(str, _DEBIAN.glob("*/bin"))]
    return shutil.which(name, path=os.pathsep.join(places))


def _why_not() -> str | None:
    """What is missing for a PostgreSQL server."""
    missing = [name for name in ("initdb", "pg_ctl", "postgres") if not _tool(name)]
    if find_spec("asyncpg") is None:
        missing.append("asyncpg")
    if os.geteuid() == 0 and not shutil.which(_OTHER_USER[0]):
        missing.append("a user other than root")
    return f"no PostgreSQL here: {', '.join(missing)}" if missing else None


@contextmanager
def _server() -> Iterator[str]:
    """A server on a Unix socket; yields a value of DATABASE_URL."""
    as_user = _OTHER_USER if os.geteuid() == 0 else ()
    # A short path: a Unix socket's may not be longer than 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    data = folder / "data"

    def call(name: str, *arguments: str) -> None:
        command = [*as_user, _tool(name) or name, *arguments]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=60)

    try:
        if as_user:
            shutil.chown(folder, "nobody", "nogroup")
        call("initdb", "-D", str(data), "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync")
        settings = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        log = str(folder / "log")
        call("pg_ctl", "-D", str(data), "-l", log, "-o", settings, "-w", "start")
        try:
            yield f"postgresql://tester@/postgres?host={folder}"
        finally:
            call("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """A value of DATABASE_URL for a server of this test run."""
    if (why := _why_not()) is not None:
        if os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail(why)
        pytest.skip(why)
    with _server() as url:
        yield url


async def _emptied(setting: str) -> str:
    engine = open_database(url_of(setting))
    async with engine.begin() as connection:
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))
    await engine.dispose()
    return setting


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A value of DATABASE_URL: a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    return asyncio.run(_emptied(request.getfixturevalue("postgresql_server")))


@pytest.fixture
async def store(empty_database: str) -> AsyncIterator[Store]:
    """A new database in its newest form."""
    engine = open_database(url_of(empty_database))
    await prepare(engine)
    yield Store(engine)
    await engine.dispose()
