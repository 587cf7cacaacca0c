"""Doing two things for one request, so that neither outlives it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def alongside(companion: Coroutine[Any, Any, None], main: Coroutine[Any, Any, T]) -> T:
    """Await ``main`` while ``companion`` runs, and return what ``main`` returns.

    Whichever fails first cancels the other and is raised as it is, not as a group. When ``main``
    returns, ``companion`` is cancelled; nothing runs on after this function.
    """
    try:
        async with asyncio.TaskGroup() as group:
            beside = group.create_task(companion)
            result = await main
            beside.cancel()
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return result
