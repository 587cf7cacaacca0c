"""What a server must not keep when its clients are gone: counted before and after."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.support.live import Live
from tests.support.rawsocket import ANSWER_TIMEOUT_S, until

_OURS: Final = ("app.api.", "app.nls.", "app.services.", "app.serving.", "app.audio.", "uvicorn.")

_DATABASE: Final = "/funspeech.db"


@asynccontextmanager
async def no_leftovers(live: Live) -> AsyncIterator[None]:
    """What was begun in the block ends soon after it: tasks of the event loop and of the workers,
    connections, timers, file descriptors, and every object of the server's own classes.

    Let the server do everything once before the block, so that what is made at first use is there.
    """
    tasks, objects, files = asyncio.all_tasks(), _objects(), _descriptors()
    yield
    await until(lambda: not asyncio.all_tasks() - tasks)
    assert _in_use(live) == []
    try:
        await until(lambda: _descriptors() <= files)
    except TimeoutError:
        raise AssertionError(f"{_descriptors() - files} file descriptors are left") from None
    # What is only waiting for a callback that is already due goes within a few turns.
    for _ in range(200):
        left = _objects() - objects
        if not left:
            return
        await asyncio.sleep(ANSWER_TIMEOUT_S / 2000)
    raise AssertionError(f"these are left: {dict(left)}")


def _in_use(live: Live) -> list[str]:
    """What holds clients, or work for them."""
    used = [f"{worker.hello.name}: {worker.active} tasks" for worker in live.workers]
    used += [f"connection {each}" for _, server in live.apis for each in server.server_state.tasks]
    used += [f"handle {each}" for links in live.replicas for link in links for each in link._tasks]
    return [each for each in used if not each.endswith(": 0 tasks")]


def _objects() -> Counter[str]:
    """Objects by class. The garbage is collected first: cycles are no leak."""
    gc.collect()
    kinds = Counter(map(type, gc.get_objects()))
    # Some metaclasses have a descriptor there.
    return Counter(
        {
            f"{kind.__module__}.{kind.__qualname__}": count
            for kind, count in kinds.items()
            if str(kind.__module__).startswith(_OURS)
        }
    )


def _descriptors() -> int:
    """Without those of the database: its pool opens one more when two of its regular users meet,
    and keeps it."""
    names = []
    for descriptor in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # the one of the listing itself
            names.append(os.readlink(f"/dev/fd/{descriptor}"))
    return sum(_DATABASE not in name for name in names)
