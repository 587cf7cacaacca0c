"""What the database keeps, with SQLite and with PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest
from sqlalchemy import text, update

from app.access import tokens
from app.access.rows import KeyRow, ProjectRow, TokenRow, UsageRow, UsageSum, VocabularyRow
from app.access.store import KEPT_AFTER_EXPIRY_S, Store, open_store
from app.core.config import Config
from app.core.project import Project
from app.core.speech import Role
from app.storage.engine import open_database, reading, writing
from app.storage.errors import AlreadyThere, NotThere, StorageError
from app.storage.migrate import prepare
from app.storage.tables import meta, projects
from tests.support.databases import url_of

NOW = 1_800_000_000
CITIES = VocabularyRow(id="c" * 32, name="cities", description="a few", words={"北京": 5, "NY": -2})
FILM = ProjectRow(
    appkey="film",
    name="Film 电影",
    model="telephone",
    max_rate=8000,
    language="zh",
    vocabulary_id=CITIES.id,
    defaults={"sample_rate": 8000, "voice": "xiaoyun", "enable_words": True, "x": None},
    voices=("Xiaoyun", "aixia"),
    max_tasks=0,
    daily_audio_s=3600,
    daily_characters=10**12,
)


class Clock:
    """Seconds since 1970, set by the test."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(empty_database: str, clock: Clock) -> AsyncIterator[Store]:
    engine = open_database(url_of(empty_database))
    await prepare(engine)
    yield Store(engine, clock)
    await engine.dispose()


async def test_projects_come_back_as_they_were(store: Store, clock: Clock) -> None:
    await store.save_vocabulary(CITIES)
    await store.save_project(FILM, new=True)
    saved = msgspec.structs.replace(FILM, created_at=NOW, updated_at=NOW)
    assert await store.project("film") == saved
    clock.now += 5.9
    await store.save_project(msgspec.structs.replace(FILM, enabled=False, max_tasks=3), new=False)
    changed = msgspec.structs.replace(saved, enabled=False, max_tasks=3, updated_at=NOW + 5)
    assert await store.project("film") == changed
    await store.save_project(ProjectRow(appkey="%"), new=True)
    assert [row.appkey for row in await store.projects()] == ["*", "%", "film"]
    assert await store.delete_project("film") and not await store.delete_project("film")
    assert await store.project("film") is None


async def test_projects_are_created_once_and_changed_only_where_they_are(store: Store) -> None:
    await store.save_project(ProjectRow(appkey="a"), new=True)
    with pytest.raises(AlreadyThere, match="a already"):
        await store.save_project(ProjectRow(appkey="a", name="other"), new=True)
    with pytest.raises(NotThere, match="no project b"):
        await store.save_project(ProjectRow(appkey="b"), new=False)
    with pytest.raises(NotThere, match="no vocabulary x"):
        await store.save_project(ProjectRow(appkey="b", vocabulary_id="x"), new=True)
    assert [row.name for row in await store.projects() if row.appkey == "a"] == [""]


async def test_the_default_project_can_be_changed_and_not_deleted(store: Store) -> None:
    await store.save_project(ProjectRow(appkey="*", enabled=False), new=False)
    assert (await store.snapshot()).project_of("whoever").enabled is False
    with pytest.raises(StorageError, match="default project"):
        await store.delete_project("*")


async def test_vocabularies(store: Store, clock: Clock) -> None:
    await store.save_vocabulary(CITIES)
    clock.now += 1
    await store.save_vocabulary(msgspec.structs.replace(CITIES, words={"上海": 1}))
    other = VocabularyRow(id="d" * 32, name="other", words={"b": 1, "a": 1})
    await store.save_vocabulary(other)
    changed = msgspec.structs.replace(CITIES, words={"上海": 1}, created_at=NOW, updated_at=NOW + 1)
    assert await store.vocabulary(CITIES.id) == changed
    later = msgspec.structs.replace(other, created_at=NOW + 1, updated_at=NOW + 1)
    assert await store.vocabularies() == [changed, later]
    assert (await store.snapshot()).vocabularies[other.id] == (("b", 1.0), ("a", 1.0))
    assert await store.vocabulary("missing") is None


async def test_a_deleted_vocabulary_leaves_its_projects_with_none(store: Store) -> None:
    await store.save_vocabulary(CITIES)
    await store.save_project(FILM, new=True)
    assert await store.delete_vocabulary(CITIES.id)
    assert not await store.delete_vocabulary(CITIES.id)
    row = await store.project("film")
    assert row is not None and row.vocabulary_id is None
    assert (await store.snapshot()).vocabularies == {}


async def test_the_snapshot_has_what_tasks_need(store: Store) -> None:
    await store.save_vocabulary(CITIES)
    await store.save_project(FILM, new=True)
    snapshot = await store.snapshot()
    words = (("北京", 5.0), ("NY", -2.0))
    assert snapshot.vocabularies == {CITIES.id: words}
    assert snapshot.project_of("film") == Project(
        appkey="film",
        name="Film 电影",
        model="telephone",
        max_rate=8000,
        language="zh",
        hotwords=words,
        defaults=FILM.defaults,
        voices=frozenset({"xiaoyun", "aixia"}),
        max_tasks=0,
        daily_audio_s=3600,
        daily_characters=10**12,
        vocabularies=snapshot.vocabularies,
    )
    assert snapshot.project_of("film").vocabularies is snapshot.vocabularies
    assert snapshot.project_of("other").appkey == "*"
    assert snapshot.has_quotas and len(snapshot.token_key) == 32


async def test_keys(store: Store) -> None:
    first = await store.create_key()
    second = await store.create_key("film", "for the film")
    assert (len(first.id), len(first.secret)) == (24, 40)
    assert first.secret not in repr(first)
    assert (second.appkey, second.note, second.created_at) == ("film", "for the film", NOW)
    assert {row.id: row for row in await store.keys()} == {first.id: first, second.id: second}
    assert await store.revoke_key(first.id) and not await store.revoke_key(first.id)
    assert await store.key(first.id) == msgspec.structs.replace(first, revoked_at=NOW)
    assert await store.key(second.id) == second
    assert await store.key("missing") is None and not await store.revoke_key("missing")


async def test_tokens_are_not_kept_in_clear(store: Store, empty_database: str) -> None:
    token, row = await store.create_token(seconds=60, appkey="film", note="a guest")
    assert row == TokenRow(
        id=row.id, appkey="film", note="a guest", created_at=NOW, expires_at=NOW + 60
    )
    assert await store.tokens() == [row]
    facts = tokens.read(token, (await store.snapshot()).token_key)
    assert facts is not None
    assert facts == tokens.TokenFacts(bytes.fromhex(row.id), NOW + 60, tokens.scope_of("film"))
    engine = open_database(url_of(empty_database))
    async with reading(engine) as connection:
        (kept,) = (await connection.execute(text("SELECT * FROM tokens"))).all()
    await engine.dispose()
    assert tokens.digest(token) in kept and token not in kept


async def test_tokens_are_revoked_by_id_by_themselves_or_with_their_key(store: Store) -> None:
    key: KeyRow = await store.create_key()
    made = [await store.create_token(seconds=60, key_id=each) for each in (None, None, key.id)]
    (one, first), (_, second), (_, third) = made
    _, untouched = await store.create_token(seconds=60)
    assert await store.revoke_token(one) and not await store.revoke_token(first.id)
    assert await store.revoke_token(second.id)
    assert await store.revoke_key(key.id)
    assert not await store.revoke_token("missing")
    revoked = {row.id: row.revoked_at for row in await store.tokens()}
    assert revoked == {first.id: NOW, second.id: NOW, third.id: NOW, untouched.id: None}
    gone = {bytes.fromhex(row.id) for row in (first, second, third)}
    assert (await store.snapshot()).revoked == gone


async def test_expired_tokens_are_forgotten_in_time(store: Store, clock: Clock) -> None:
    token, old = await store.create_token(seconds=60)
    await store.revoke_token(token)
    clock.now += 60
    assert (await store.snapshot()).revoked == frozenset()  # refused for its age now
    clock.now += KEPT_AFTER_EXPIRY_S
    _, second = await store.create_token(seconds=60)
    assert {row.id for row in await store.tokens()} == {old.id, second.id}
    clock.now += 1
    _, third = await store.create_token(seconds=60)
    assert {row.id for row in await store.tokens()} == {second.id, third.id}


CHANGES: dict[str, Callable[[Store], Awaitable[object]]] = {
    "create": lambda store: store.save_project(ProjectRow(appkey="new"), new=True),
    "change": lambda store: store.save_project(ProjectRow(appkey="*"), new=False),
    "delete": lambda store: store.delete_project("film"),
    "save words": lambda store: store.save_vocabulary(CITIES),
    "delete words": lambda store: store.delete_vocabulary(CITIES.id),
    "revoke token": lambda store: store.revoke_token("missing"),
    "revoke key": lambda store: store.revoke_key("missing"),
}


async def test_every_change_of_a_snapshot_raises_the_revision(store: Store) -> None:
    await store.save_vocabulary(CITIES)
    await store.save_project(FILM, new=True)
    for name, change in CHANGES.items():
        before = await store.revision()
        await change(store)
        assert await store.revision() > before, name
        assert (await store.snapshot()).revision == await store.revision()


async def test_nothing_else_does(store: Store) -> None:
    """Each rise makes every process load everything."""
    before = await store.revision()
    await store.create_token(seconds=60)
    await store.create_key()
    await store.add_usage("2026-01-01", {("film", "asr"): UsageSum(tasks=1)})
    with pytest.raises(AlreadyThere):
        await store.save_project(ProjectRow(appkey="*"), new=True)
    assert await store.revision() == before


async def test_changes_at_the_same_time_all_count(store: Store) -> None:
    before = await store.revision()
    await asyncio.gather(
        *(store.save_project(ProjectRow(appkey=str(n)), new=True) for n in range(20))
    )
    assert await store.revision() == before + 20 and len(await store.projects()) == 21


async def test_usage_adds_up(store: Store) -> None:
    days = ("2026-01-31", "2026-02-01", "2026-02-02")
    one = UsageSum(tasks=2, failed=1, audio_ms=10**12, characters=7)
    kinds: tuple[Role, ...] = ("asr", "tts")
    for day in days:
        for _ in range(2):
            rows = {(key, kind): one for key in ("film", "*") for kind in kinds}
            await store.add_usage(day, rows)
    await store.add_usage("2026-02-01", {})
    twice = UsageSum(tasks=4, failed=2, audio_ms=2 * 10**12, characters=14)
    assert await store.usage("2026-02-01", "2026-02-02") == [
        UsageRow(day=day, appkey=key, kind=kind, used=twice)
        for day in days[1:]
        for key in ("*", "film")
        for kind in kinds
    ]
    assert [row.kind for row in await store.usage("2026-01-31", "2026-01-31", "film")] == [*kinds]
    assert await store.usage("2026-02-03", "2026-03-01") == []


async def test_usage_of_processes_at_the_same_time(store: Store) -> None:
    rows: dict[tuple[str, Role], UsageSum] = {
        (str(key), "asr"): UsageSum(tasks=1) for key in range(5)
    }
    backwards = dict(reversed(rows.items()))
    await asyncio.gather(
        *(store.add_usage("2026-01-01", backwards if n % 2 else rows) for n in range(20))
    )
    assert [row.used.tasks for row in await store.usage("2026-01-01", "2026-01-01")] == [20] * 5


async def test_rows_that_are_not_ours_are_an_error_of_the_database(
    store: Store, empty_database: str
) -> None:
    engine = open_database(url_of(empty_database))
    async with writing(engine) as connection:
        await connection.execute(meta.delete().where(meta.c.key == "token_key"))
    for broken in (store.snapshot(), store.create_token(seconds=1)):
        with pytest.raises(StorageError, match="token_key"):
            await broken
    await engine.dispose()


@pytest.mark.parametrize(
    "column",
    [
        {"defaults": "[1"},
        {"defaults": "[1]"},
        {"defaults": '{"a":' * 5000},
        {"voices": '{"a": 1}'},
        {"voices": '["\\ud800"]'},
        {"language": "x" * 10},
    ],
    ids=str,
)
async def test_a_project_that_cannot_be_read_is_switched_off_alone(
    store: Store, empty_database: str, column: dict[str, str]
) -> None:
    await store.save_project(ProjectRow(appkey="film"), new=True)
    await store.save_project(ProjectRow(appkey="news"), new=True)
    token, row = await store.create_token(seconds=100, appkey=None)
    engine = open_database(url_of(empty_database))
    async with writing(engine) as connection:
        change = update(projects).values(**column).where(projects.c.appkey == "film")
        await connection.execute(change)
    await engine.dispose()
    assert await store.revoke_token(token)
    snapshot = await store.snapshot()
    assert snapshot.revoked == {bytes.fromhex(row.id)}
    assert snapshot.project_of("news").enabled
    assert snapshot.project_of("film").enabled == ("language" in column)
    if "language" not in column:
        with pytest.raises(StorageError, match=r"^The project 'film' cannot be read"):
            await store.projects()


async def test_the_settings_database_is_opened_and_closed(empty_database: str) -> None:
    config = Config.model_validate({"database_url": empty_database})
    async with open_store(config) as store:
        await store.save_project(ProjectRow(appkey="a"), new=True)
        assert store.name in empty_database or store.name.startswith("postgresql://")
    async with open_store(config) as store:
        assert await store.project("a") is not None
