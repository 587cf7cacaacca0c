"""The connection to the database, SQLite or PostgreSQL, and transactions on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.core.config import Config
from app.core.paths import expanded
from app.storage.errors import StorageError

DATABASE_FILE: Final = "funspeech.db"

_BUSY_TIMEOUT_MS: Final = 5000
"""A writer waits so long for another one. No transaction of ours takes more than milliseconds."""

_TIMEOUT_S: Final = 10
"""For a connection to PostgreSQL, and for one statement: a server that is gone without a word."""

_WRITES: Final = "funspeech_writes"
_SQLITE: Final = frozenset({"sqlite", "sqlite+aiosqlite"})
_POSTGRESQL: Final = frozenset({"postgres", "postgresql", "postgresql+asyncpg"})


def database_url(config: Config) -> str:
    """Where the database is: DATABASE_URL, or the file in DATA_DIR. The result may hold a password:
    it must not be shown; :func:`database_name` may.

    Raises:
        StorageError: DATABASE_URL is malformed, or names a database that is not supported.
    """
    if config.database_url is None or not config.database_url.get_secret_value():
        return _sqlite(config.data_dir / DATABASE_FILE)
    try:
        url = make_url(config.database_url.get_secret_value())
    except (ArgumentError, ValueError):
        raise StorageError(_ACCEPTED) from None
    if url.drivername in _SQLITE and url.database and url.database != ":memory:":
        return _sqlite(_expanded(url.database))
    if url.drivername in _POSTGRESQL and url.database and (url.port or 1) < 65_536:
        return _postgresql(url)
    raise StorageError(_ACCEPTED)


_ACCEPTED: Final = (
    "DATABASE_URL must be sqlite:///path or postgresql://user:password@host/name, or empty."
)


def database_name(url: str) -> str:
    """The database in a form that may be shown: the file, or the server and the database's name."""
    parts = make_url(url)
    if parts.drivername in _SQLITE:
        return str(parts.database)
    host = parts.host or parts.query.get("host") or "localhost"
    port = f":{parts.port}" if parts.port else ""
    return f"postgresql://{host}{port}/{parts.database}"


def open_database(url: str) -> AsyncEngine:
    """The engine of a ``url`` of :func:`database_url`. Nothing is connected yet; whoever opens it
    has to ``dispose`` of it.

    Raises:
        StorageError: the driver is not installed.
    """
    if make_url(url).drivername in _SQLITE:
        engine = create_async_engine(url, hide_parameters=True, pool_size=2, max_overflow=3)
        event.listen(engine.sync_engine, "connect", _set_up)
        event.listen(engine.sync_engine, "begin", _begin)
        return engine
    if find_spec("asyncpg") is None:
        raise StorageError(
            "PostgreSQL needs a driver; in the checkout: .venv/bin/pip install "
            "-c constraints.txt -e '.[postgres]'"
        )
    return create_async_engine(
        url,
        hide_parameters=True,
        pool_size=2,
        max_overflow=3,
        pool_pre_ping=True,
        connect_args={"timeout": _TIMEOUT_S, "command_timeout": _TIMEOUT_S},
    )


def database_file(engine: AsyncEngine) -> Path | None:
    """SQLite's file; None for PostgreSQL."""
    name = engine.url.database
    return Path(name) if name and engine.dialect.name == "sqlite" else None


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that changes nothing.

    Raises:
        StorageError: in place of whatever the drivers raise.
    """
    with _own_errors(engine):
        async with engine.connect() as connection, connection.begin():
            yield connection


@asynccontextmanager
async def writing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction, committed at the end of the block. With SQLite it holds the write lock from
    its first moment: one that asked for it later could not wait for it.

    Raises:
        StorageError: in place of whatever the drivers raise.
    """
    with _own_errors(engine):
        async with engine.execution_options(**{_WRITES: True}).begin() as connection:
            yield connection


@contextmanager
def _own_errors(engine: AsyncEngine) -> Generator[None]:
    try:
        yield
    except Exception as error:
        if not _is_drivers(error):
            raise
        raise unusable(engine, _line(error)) from error


def unusable(engine: AsyncEngine, why: str) -> StorageError:
    """The error that names the database and the reason, ``why``."""
    name = database_name(engine.url.render_as_string())
    return StorageError(f"The database {name} cannot be used: {why}")


def _is_drivers(error: Exception) -> bool:
    """asyncpg's own errors and those of sockets come through SQLAlchemy as they are, when a
    connection is made. MsgspecError: a row holds what is not ours."""
    if isinstance(error, SQLAlchemyError | OSError | msgspec.MsgspecError):
        return True
    return type(error).__module__.partition(".")[0] == "asyncpg"


def _line(error: Exception) -> str:
    """What the driver says, in one line, without the statement."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return " ".join(str(cause).split()) or type(cause).__name__


def _sqlite(path: Path) -> str:
    return URL.create("sqlite+aiosqlite", database=str(path)).render_as_string()


def _expanded(text: str) -> Path:
    try:
        return expanded(text)
    except ValueError as error:
        raise StorageError(f"DATABASE_URL {error}") from None


def _postgresql(url: URL) -> str:
    query = dict(url.query)
    if "sslmode" in query:  # libpq's name, which people know; asyncpg's is another
        query["ssl"] = query.pop("sslmode")
    url = url.set(drivername="postgresql+asyncpg", query=query)
    return url.render_as_string(hide_password=False)


def _set_up(connection: Any, _record: object) -> None:
    # The driver's own way of opening transactions cannot take the write lock at once.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
