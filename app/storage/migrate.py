"""The way from nothing, or from an older form, to the newest one.

Every process that uses the database calls :func:`prepare` first. Several may do so at the same
time: one migrates, the others wait for it.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.storage.engine import database_file, reading, writing
from app.storage.errors import StorageError

log = structlog.get_logger(__name__)

HEAD: Final = "0002"
"""The newest migration; a test compares it with the files."""

MIGRATIONS: Final = Path(__file__).parent / "migrations"

_ADVISORY_LOCK: Final = 0x46756E53  # "FunS"
_VERSION: Final = Table("alembic_version", MetaData(), Column("version_num", String(32)))


async def prepare(engine: AsyncEngine) -> None:
    """Bring the database to its newest form; a file of SQLite's is created, readable by its owner
    only, as it holds secrets.

    Raises:
        StorageError: it cannot be had, or belongs to a newer version of the server.
    """
    path = database_file(engine)
    if path is not None:
        await asyncio.to_thread(_create, path)
    if await _version(engine) == HEAD:
        return
    if path is None:
        await _migrate(engine)
        return
    async with _alone(path):
        if await _version(engine) != HEAD:
            await asyncio.to_thread(_use_wal, path)
            await _migrate(engine)


async def _version(engine: AsyncEngine) -> str | None:
    async with reading(engine) as connection:
        return await connection.run_sync(_read_version)


def _read_version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSION.name):
        return None
    return connection.scalar(select(_VERSION.c.version_num))


async def _migrate(engine: AsyncEngine) -> None:
    async with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            await connection.execute(
                text("SELECT pg_advisory_xact_lock(:n)"), {"n": _ADVISORY_LOCK}
            )
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    """All migrations that are due, inside the caller's transaction."""
    version = _read_version(connection)
    if version == HEAD:
        return
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it writes while it is imported
    # Takes a tenth of a second, and is needed once in the life of a database.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise StorageError(
            f"The database is in a form that this version does not know ({version}): it belongs to "
            "a newer FunSpeech."
        ) from None
    if version is not None:  # a new one is nobody's news
        log.info("database is in its newest form", before=version, now=HEAD)


def _create(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StorageError(f"The database {path} cannot be used: {error.strerror}") from None


def _use_wal(path: Path) -> None:
    """From now on readers and the writer do not wait for each other; the file remembers it. It
    cannot be done inside a transaction."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.Error as error:
        raise StorageError(f"The database {path} cannot be used: {error}") from None


@asynccontextmanager
async def _alone(path: Path) -> AsyncIterator[None]:
    """Inside the block no other process migrates this file: SQLite refuses two that change its
    journal at once, without letting either wait."""
    lock = await asyncio.to_thread(_open_lock, path)
    try:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _open_lock(path: Path) -> int:
    try:
        return os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise StorageError(f"The database {path} cannot be used: {error.strerror}") from None
