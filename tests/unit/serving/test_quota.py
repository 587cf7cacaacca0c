"""Leases of an appkey's quota, over the real socket, with two API processes in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.core.errors import EngineUnavailable, Overloaded
from app.serving.leases import TaskLease, leasing
from app.serving.link import Link
from app.serving.quota import Give, Quota, Take, ToQuota, counting

SECRET_KEY = "an-appkey-of-somebody"


@pytest.fixture(autouse=True)
def no_key_is_logged() -> Iterator[None]:
    with structlog.testing.capture_logs() as entries:
        yield
    assert SECRET_KEY not in repr(entries)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what a socket does has no event here
            await asyncio.sleep(0.001)


@asynccontextmanager
async def two(folder: Path, limit: int) -> AsyncIterator[tuple[Quota, TaskLease, TaskLease]]:
    socket_path = folder / "quota.sock"
    async with (
        counting(socket_path) as quota,
        leasing(str(socket_path), lambda appkey: limit) as first,
        leasing(str(socket_path), lambda appkey: limit) as second,
    ):
        yield quota, first, second


async def test_exactly_the_limit_is_granted_over_all_processes(tmp_path: Path) -> None:
    async with two(tmp_path, 10) as (quota, first, second), AsyncExitStack() as held:

        async def ask(number: int) -> bool:
            try:
                lease = (first, second)[number % 2]
                await held.enter_async_context(lease(SECRET_KEY))
            except Overloaded as refused:
                assert "runs 10 tasks already" in refused.text
                return False
            return True

        granted = await asyncio.gather(*(ask(number) for number in range(40)))
        assert sum(granted) == 10
        assert quota.running == 10


async def test_a_place_that_is_given_back_is_usable_at_once_by_either(tmp_path: Path) -> None:
    async with two(tmp_path, 1) as (quota, first, second):
        for mine, other in ((first, second), (second, first), (first, first)) * 3:
            async with mine(SECRET_KEY):
                with pytest.raises(Overloaded, match="runs 1 task already"):
                    async with other(SECRET_KEY):
                        raise AssertionError("granted beyond the limit")
        await until(lambda: quota.running == 0)
        assert not quota._running  # no key stays behind


@pytest.mark.parametrize(
    "key", ["", "another", "x" * 1_000_000, "口令", "\ud800", SECRET_KEY + " "]
)
async def test_keys_do_not_share_places(tmp_path: Path, key: str) -> None:
    async with two(tmp_path, 1) as (_, first, second), first(SECRET_KEY), second(key):
        with pytest.raises(Overloaded):
            async with first(key):
                pass


async def test_an_error_of_the_task_frees_its_place(tmp_path: Path) -> None:
    async with two(tmp_path, 1) as (quota, first, _):
        with pytest.raises(ValueError, match="mine"):
            async with first(SECRET_KEY):
                raise ValueError("mine")
        await until(lambda: quota.running == 0)


async def test_who_is_cancelled_while_asking_keeps_nothing(tmp_path: Path) -> None:
    async with two(tmp_path, 3) as (quota, first, _):

        async def ask() -> None:
            async with first(SECRET_KEY):
                await asyncio.Event().wait()

        for turns in range(8):  # in every state: not yet asked, asked, answered, granted
            task = asyncio.create_task(ask())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        async with first("barrier"):  # all of the above has been read once this is granted
            assert quota.running == 1


async def test_the_end_of_a_connection_frees_all_that_it_held(tmp_path: Path) -> None:
    socket_path = tmp_path / "quota.sock"
    async with counting(socket_path) as quota:
        link = Link(Any, lambda message: None, lambda: None)
        await asyncio.get_running_loop().create_unix_connection(lambda: link, str(socket_path))
        for number in range(4):
            link.send(Take(number, b"key", limit=5))
        await until(lambda: quota.running == 4)
        assert link._transport is not None
        link._transport.abort()
        await until(lambda: quota.running == 0)
        assert not quota._holders


async def test_running_tasks_count_again_after_a_lost_connection(tmp_path: Path) -> None:
    async with two(tmp_path, 2) as (quota, first, second), AsyncExitStack() as held:
        await held.enter_async_context(first(SECRET_KEY))
        await held.enter_async_context(first(SECRET_KEY))
        for holder in list(quota._holders):
            holder.link.close()
        await until(lambda: quota.running == 0)
        await until(lambda: quota.running == 2 and len(quota._holders) == 2)
        with pytest.raises(Overloaded):
            async with second(SECRET_KEY):
                pass
        await held.aclose()
        await until(lambda: quota.running == 0)


async def test_a_running_task_counts_even_where_others_took_its_place(tmp_path: Path) -> None:
    quota = Quota()
    assert quota.take(b"a", 1, held=False)
    assert quota.take(b"a", 1, held=True)
    assert not quota.take(b"a", 1, held=False)
    quota.give(b"a")
    assert not quota.take(b"a", 1, held=False)
    quota.give(b"a")
    assert quota.take(b"a", 1, held=False)


def limits(**of: int) -> Callable[[str], int]:
    return lambda appkey: of.get(appkey, 0)


async def test_each_appkey_has_a_limit_of_its_own(tmp_path: Path) -> None:
    socket_path = tmp_path / "quota.sock"
    async with (
        counting(socket_path) as quota,
        leasing(str(socket_path), limits(one=1, three=3)) as lease,
        AsyncExitStack() as held,
    ):
        for key, limit in (("one", 1), ("three", 3)):
            for _ in range(limit):
                await held.enter_async_context(lease(key))
            with pytest.raises(Overloaded):
                await held.enter_async_context(lease(key))
        await held.enter_async_context(lease("unlimited"))
        assert quota.running == 4


async def test_a_limit_that_changes_holds_for_those_who_ask_from_then_on(tmp_path: Path) -> None:
    socket_path, now = tmp_path / "quota.sock", {"key": 2}
    async with (
        counting(socket_path) as quota,
        leasing(str(socket_path), now.__getitem__) as lease,
        AsyncExitStack() as held,
    ):
        await held.enter_async_context(lease("key"))
        await held.enter_async_context(lease("key"))
        now["key"] = 1
        with pytest.raises(Overloaded, match="runs 1 task already"):
            await held.enter_async_context(lease("key"))
        now["key"] = 3
        await held.enter_async_context(lease("key"))
        assert quota.running == 3
        now["key"] = 0
        await held.enter_async_context(lease("key"))  # not counted any more
        assert quota.running == 3
        await held.aclose()
        await until(lambda: quota.running == 0)


async def test_without_the_quota_nothing_is_granted_until_it_is_there(tmp_path: Path) -> None:
    socket_path = tmp_path / "quota.sock"
    async with leasing(str(socket_path), lambda appkey: 1, answer_s=0.05) as lease:
        with pytest.raises(EngineUnavailable, match="cannot be counted"):
            async with lease(SECRET_KEY):
                pass
    async with leasing(str(socket_path), lambda appkey: 1) as lease:
        waiting = asyncio.create_task(lease("k").__aenter__())
        async with counting(socket_path) as quota:
            await waiting
            assert quota.running == 1


async def test_a_quota_that_does_not_answer_grants_nothing(tmp_path: Path) -> None:
    asked: list[Any] = []
    socket_path = str(tmp_path / "quota.sock")
    server = await asyncio.get_running_loop().create_unix_server(
        lambda: Link(ToQuota, asked.append, lambda: None), socket_path
    )
    async with leasing(socket_path, lambda appkey: 1, answer_s=0.5) as lease:
        with pytest.raises(EngineUnavailable):
            async with lease(SECRET_KEY):
                pass
        await until(lambda: len(asked) == 2)
    server.close()
    assert [type(message) for message in asked] == [Take, Give]  # should the answer come late
    assert SECRET_KEY.encode() not in asked[0].key


async def test_a_connection_that_breaks_refuses_those_who_asked(tmp_path: Path) -> None:
    socket_path = str(tmp_path / "quota.sock")
    links: list[Link] = []

    def accept() -> Link:
        links.append(Link(ToQuota, lambda message: links[0].close(), lambda: None))
        return links[-1]

    server = await asyncio.get_running_loop().create_unix_server(accept, socket_path)
    async with leasing(socket_path, lambda appkey: 1) as lease:
        with pytest.raises(EngineUnavailable):
            async with lease(SECRET_KEY):
                pass
    server.close()


async def test_without_a_limit_nobody_is_asked(tmp_path: Path) -> None:
    nobody = str(tmp_path / "quota.sock")
    async with leasing(nobody, lambda appkey: 0, answer_s=0.05) as lease:
        for _ in range(1_000):
            await lease(SECRET_KEY).__aenter__()
