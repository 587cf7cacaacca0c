"""One server for many tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

_T = TypeVar("_T")


@asynccontextmanager
async def in_one_task(manager: AbstractAsyncContextManager[_T]) -> AsyncIterator[_T]:
    """``manager`` is entered and left by the same task, whoever begins and ends this block: the
    beginning and the end of a fixture are run by two, which a task group does not bear."""
    entered: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def hold() -> None:
        async with manager as value:
            entered.set_result(value)
            await over.wait()

    holder = asyncio.create_task(hold())
    holder.add_done_callback(lambda _: entered.done() or entered.cancel())
    try:
        value = await entered
    except asyncio.CancelledError:
        await holder  # it says why
        raise
    try:
        yield value
    finally:
        over.set()
        await holder
