"""Projects, vocabularies, access keys, tokens and usage in the database: every method is one
transaction.

A change that a snapshot shows raises the database's revision, so that every process loads it within
a second (:class:`app.access.projects.Projects`). Every method may raise
:class:`app.storage.errors.StorageError`.
"""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    RowMapping,
    String,
    Table,
    cast,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.access import tokens as token_format
from app.access.columns import (
    USAGE_SUMS,
    columns_of,
    hotwords,
    key_row,
    project_of,
    project_row,
    token_row,
    usage_row,
    vocabulary_row,
)
from app.access.rows import KeyRow, ProjectRow, TokenRow, UsageRow, UsageSum, VocabularyRow
from app.access.snapshot import Snapshot
from app.core.config import Config
from app.core.project import DEFAULT_APPKEY, Hotwords, Project
from app.core.speech import Role
from app.storage.engine import database_name, database_url, open_database, reading, writing
from app.storage.errors import AlreadyThere, NotThere, StorageError
from app.storage.migrate import prepare
from app.storage.tables import access_keys, meta, projects, tokens, usage, vocabularies

log = structlog.get_logger(__name__)

_LETTERS: Final = string.ascii_letters + string.digits
_KEY_ID_CHARS: Final = 24
_SECRET_CHARS: Final = 40
_TOKEN_ID_BYTES: Final = 8

KEPT_AFTER_EXPIRY_S: Final = 7 * 86_400
"""The rows of tokens are deleted so long after their expiry."""


@asynccontextmanager
async def open_store(config: Config) -> AsyncIterator[Store]:
    """The database that the settings name, in its newest form, inside the block.

    Raises:
        StorageError: it cannot be had; the text is one line for the owner of the server.
    """
    engine = open_database(database_url(config))
    try:
        await prepare(engine)
        yield Store(engine)
    finally:
        await engine.dispose()


class Store:
    """``clock``: seconds since 1970."""

    def __init__(self, engine: AsyncEngine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock

    @property
    def name(self) -> str:
        """Which database this is, in a form that may be shown."""
        return database_name(self._engine.url.render_as_string())

    @property
    def engine(self) -> AsyncEngine:
        """The connection, for what else is kept in the same database."""
        return self._engine

    # What API processes hold

    async def revision(self) -> int:
        """A number that rises with every change that a snapshot shows."""
        async with reading(self._engine) as connection:
            return await _revision(connection)

    async def snapshot(self) -> Snapshot:
        """All that the event loop needs to know. A project that cannot be read is switched off, and
        a vocabulary has no words: the others, and revoked tokens, must not wait for its owner."""
        async with reading(self._engine) as connection:
            # First: what is changed while the rest is read, is then loaded again.
            revision = await _revision(connection)
            key = await _token_key(connection)
            words = {
                row["id"]: _words_of(row) for row in await _rows(connection, select(vocabularies))
            }
            known = [_project_of(row, words) for row in await _rows(connection, select(projects))]
            revoked = await connection.scalars(
                select(tokens.c.id).where(
                    tokens.c.revoked_at.is_not(None), tokens.c.expires_at > self._now()
                )
            )
            return Snapshot(
                revision=revision,
                projects={each.appkey: each for each in known},
                vocabularies=words,
                token_key=key,
                revoked=frozenset(bytes.fromhex(each) for each in revoked),
            )

    # Projects

    async def projects(self) -> list[ProjectRow]:
        """By appkey; the default one comes first."""
        async with reading(self._engine) as connection:
            rows = await _rows(connection, select(projects))
            found = [project_row(row) for row in rows]
        return sorted(found, key=lambda row: (row.appkey != DEFAULT_APPKEY, row.appkey))

    async def project(self, appkey: str) -> ProjectRow | None:
        """The project of exactly this appkey."""
        async with reading(self._engine) as connection:
            row = await _row(connection, projects, projects.c.appkey == appkey)
            return project_row(row) if row is not None else None

    async def save_project(self, row: ProjectRow, *, new: bool) -> None:
        """Create a project, or replace one. Its times are filled in here.

        Raises:
            AlreadyThere: it is to be new, and is there.
            NotThere: it is to be replaced, and is not there; or its vocabulary is not.
        """
        now = self._now()
        values = columns_of(row, updated_at=now)
        del values["created_at"]
        async with writing(self._engine) as connection:
            await _raise_revision(connection)
            wanted = vocabularies.c.id == row.vocabulary_id
            if row.vocabulary_id is not None and not await _exists(
                connection, vocabularies, wanted
            ):
                raise NotThere(f"There is no vocabulary {row.vocabulary_id}.")
            one = projects.c.appkey == row.appkey
            there = await _exists(connection, projects, one)
            if new and there:
                raise AlreadyThere(f"There is a project {row.appkey} already.")
            if not new and not there:
                raise NotThere(f"There is no project {row.appkey}.")
            if new:
                await connection.execute(insert(projects).values(**values, created_at=now))
            else:
                await connection.execute(update(projects).where(one).values(**values))

    async def delete_project(self, appkey: str) -> bool:
        """Whether it was there. What it has used stays on record.

        Raises:
            StorageError: it is the default one, which can only be switched off.
        """
        if appkey == DEFAULT_APPKEY:
            raise StorageError(f"The default project {appkey} stays; it can be switched off.")
        async with writing(self._engine) as connection:
            await _raise_revision(connection)
            return await _changed(connection, delete(projects).where(projects.c.appkey == appkey))

    # Vocabularies

    async def vocabularies(self) -> list[VocabularyRow]:
        """The oldest first."""
        query = select(vocabularies).order_by(vocabularies.c.created_at, vocabularies.c.id)
        async with reading(self._engine) as connection:
            return [vocabulary_row(row) for row in await _rows(connection, query)]

    async def vocabulary(self, vocabulary_id: str) -> VocabularyRow | None:
        """The vocabulary of this id."""
        async with reading(self._engine) as connection:
            row = await _row(connection, vocabularies, vocabularies.c.id == vocabulary_id)
            return vocabulary_row(row) if row is not None else None

    async def save_vocabulary(self, row: VocabularyRow) -> None:
        """Create a vocabulary, or replace the one of this id. Its times are filled in here."""
        now = self._now()
        values = columns_of(row, updated_at=now)
        del values["created_at"]
        one = vocabularies.c.id == row.id
        async with writing(self._engine) as connection:
            await _raise_revision(connection)
            if not await _changed(connection, update(vocabularies).where(one).values(**values)):
                await connection.execute(insert(vocabularies).values(**values, created_at=now))

    async def delete_vocabulary(self, vocabulary_id: str) -> bool:
        """Whether it was there. Projects that had it are left with none."""
        async with writing(self._engine) as connection:
            await _raise_revision(connection)
            await connection.execute(
                update(projects)
                .where(projects.c.vocabulary_id == vocabulary_id)
                .values(vocabulary_id=None, updated_at=self._now())
            )
            return await _changed(
                connection, delete(vocabularies).where(vocabularies.c.id == vocabulary_id)
            )

    # Access keys

    async def keys(self) -> list[KeyRow]:
        """All of them, the oldest first; revoked ones, too."""
        query = select(access_keys).order_by(access_keys.c.created_at, access_keys.c.id)
        async with reading(self._engine) as connection:
            return [key_row(row) for row in await _rows(connection, query)]

    async def key(self, key_id: str) -> KeyRow | None:
        """The key of this id, even if it is revoked."""
        async with reading(self._engine) as connection:
            row = await _row(connection, access_keys, access_keys.c.id == key_id)
            return key_row(row) if row is not None else None

    async def create_key(self, appkey: str | None = None, note: str = "") -> KeyRow:
        """A new key, whose tokens are for ``appkey``; None: for any."""
        row = KeyRow(
            id=_random(_KEY_ID_CHARS),
            secret=_random(_SECRET_CHARS),
            appkey=appkey,
            note=note,
            created_at=self._now(),
        )
        async with writing(self._engine) as connection:
            await connection.execute(insert(access_keys).values(**columns_of(row)))
        return row

    async def revoke_key(self, key_id: str) -> bool:
        """Whether it was valid until now. The tokens that were made with it are revoked, too."""
        async with writing(self._engine) as connection:
            await _raise_revision(connection)
            await self._revoke(connection, tokens, tokens.c.key_id == key_id)
            return await self._revoke(connection, access_keys, access_keys.c.id == key_id)

    # Tokens

    async def create_token(
        self,
        *,
        seconds: int,
        appkey: str | None = None,
        key_id: str | None = None,
        note: str = "",
    ) -> tuple[str, TokenRow]:
        """A new token, valid for so many seconds, for ``appkey`` only or (None) for any. It can be
        read here and never again: the database keeps its SHA-256. Long expired ones are deleted."""
        now = self._now()
        token_id = secrets.token_bytes(_TOKEN_ID_BYTES)
        row = TokenRow(
            id=token_id.hex(),
            key_id=key_id,
            appkey=appkey,
            note=note,
            created_at=now,
            expires_at=now + seconds,
        )
        async with writing(self._engine) as connection:
            key = await _token_key(connection)
            token = token_format.issue(
                key, expires_at=row.expires_at, appkey=appkey, token_id=token_id
            )
            digest = token_format.digest(token)
            await connection.execute(insert(tokens).values(**columns_of(row), digest=digest))
            await connection.execute(
                delete(tokens).where(tokens.c.expires_at < now - KEPT_AFTER_EXPIRY_S)
            )
        return token, row

    async def tokens(self) -> list[TokenRow]:
        """All that are kept, the oldest first; revoked and expired ones, too."""
        columns = [column for column in tokens.c if column.name != "digest"]
        query = select(*columns).order_by(tokens.c.created_at, tokens.c.id)
        async with reading(self._engine) as connection:
            return [token_row(row) for row in await _rows(connection, query)]

    async def revoke_token(self, id_or_token: str) -> bool:
        """Whether there was such a token that was not revoked yet; it is named by its id, or by
        itself."""
        named = (tokens.c.id == id_or_token) | (tokens.c.digest == token_format.digest(id_or_token))
        async with writing(self._engine) as connection:
            await _raise_revision(connection)
            return await self._revoke(connection, tokens, named)

    async def _revoke(
        self, connection: AsyncConnection, table: Table, which: ColumnElement[bool]
    ) -> bool:
        return await _changed(
            connection,
            update(table).where(which, table.c.revoked_at.is_(None)).values(revoked_at=self._now()),
        )

    # Usage

    async def add_usage(self, day: str, rows: Mapping[tuple[str, Role], UsageSum]) -> None:
        """Add to what is on record for ``day`` (UTC, ``YYYY-MM-DD``), by appkey and kind."""
        if not rows:
            return
        values = [
            {"day": day, "appkey": appkey, "kind": kind, **msgspec.structs.asdict(used)}
            # In one order, so that two processes never wait for each other's rows.
            for (appkey, kind), used in sorted(rows.items())
        ]
        async with writing(self._engine) as connection:
            await connection.execute(_adding(connection.dialect.name), values)

    async def usage(
        self, first_day: str, last_day: str, appkey: str | None = None
    ) -> list[UsageRow]:
        """What was used on these days and those between them; None: by all appkeys. By day, appkey
        and kind."""
        query = select(usage).where(usage.c.day >= first_day, usage.c.day <= last_day)
        if appkey is not None:
            query = query.where(usage.c.appkey == appkey)
        async with reading(self._engine) as connection:
            rows = [usage_row(row) for row in await _rows(connection, query)]
        return sorted(rows, key=lambda row: (row.day, row.appkey, row.kind))

    def _now(self) -> int:
        return int(self._clock())


def _random(chars: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(chars))


def _words_of(row: RowMapping) -> Hotwords:
    try:
        return hotwords(row)
    except StorageError as error:
        log.error("a vocabulary is left out", reason=str(error))
        return ()


def _project_of(row: RowMapping, words: Mapping[str, Hotwords]) -> Project:
    try:
        return project_of(project_row(row), words)
    except StorageError as error:
        log.error("a project is switched off", reason=str(error))
        return Project(appkey=row["appkey"], enabled=False)


async def _revision(connection: AsyncConnection) -> int:
    return int(await connection.scalar(select(meta.c.value).where(meta.c.key == "revision")) or 0)


async def _token_key(connection: AsyncConnection) -> bytes:
    key = await connection.scalar(select(meta.c.value).where(meta.c.key == "token_key"))
    if not key:
        raise StorageError("The database has lost its token_key: restore the table meta.")
    return bytes.fromhex(key)


async def _raise_revision(connection: AsyncConnection) -> None:
    """Comes first in a transaction: the row is also the lock that puts writers in order."""
    number = cast(meta.c.value, BigInteger) + 1
    await connection.execute(
        update(meta).where(meta.c.key == "revision").values(value=cast(number, String))
    )


async def _rows(connection: AsyncConnection, query: Any) -> list[RowMapping]:
    return list((await connection.execute(query)).mappings())


async def _row(
    connection: AsyncConnection, table: Table, which: ColumnElement[bool]
) -> RowMapping | None:
    return (await connection.execute(select(table).where(which))).mappings().one_or_none()


async def _exists(connection: AsyncConnection, table: Table, which: ColumnElement[bool]) -> bool:
    return await _row(connection, table, which) is not None


async def _changed(connection: AsyncConnection, statement: Any) -> bool:
    return (await connection.execute(statement)).rowcount > 0


def _adding(dialect: str) -> Any:
    """Insert rows of usage, or add to those that are there: both dialects have the same clause."""
    statement = (postgresql if dialect == "postgresql" else sqlite).insert(usage)
    return statement.on_conflict_do_update(
        index_elements=[usage.c.appkey, usage.c.day, usage.c.kind],
        set_={name: usage.c[name] + statement.excluded[name] for name in USAGE_SUMS},
    )
