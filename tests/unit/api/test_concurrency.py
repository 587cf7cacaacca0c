"""Two things for one request: the first failure wins, and nothing runs on."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from app.api.concurrency import alongside, watch_disconnect


class Waiting:
    """A coroutine function that waits for ever, and knows whether it was cancelled."""

    def __init__(self) -> None:
        self.cancelled = False

    async def __call__(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def _fail(error: Exception) -> None:
    raise error


async def test_main_ends_the_companion() -> None:
    companion = Waiting()
    assert await alongside(_started(companion), _give_later(3)) == 3
    assert companion.cancelled


async def _started(waiting: Waiting) -> None:
    await waiting()


async def _give_later(value: int) -> int:
    await asyncio.sleep(0)  # lets the companion begin
    return value


async def test_companion_that_ends_early_changes_nothing() -> None:
    async def nothing() -> None:
        return None

    assert await alongside(nothing(), _give_later(3)) == 3


async def test_failing_companion_cancels_main_and_is_raised_as_itself() -> None:
    main = Waiting()
    with pytest.raises(KeyError):
        await alongside(_fail(KeyError()), main())
    assert main.cancelled


async def test_failing_main_is_raised_as_itself() -> None:
    companion = Waiting()

    async def main() -> None:
        await asyncio.sleep(0)
        raise KeyError

    with pytest.raises(KeyError):
        await alongside(companion(), main())
    assert companion.cancelled


async def test_cancelling_from_outside_cancels_both() -> None:
    companion, main = Waiting(), Waiting()
    task = asyncio.create_task(alongside(companion(), main()))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert companion.cancelled and main.cancelled


async def test_watch_disconnect_throws_the_rest_of_the_body_away() -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": b"x", "more_body": True},
        {"type": "http.request", "body": b"", "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    with pytest.raises(ClientDisconnect):
        await watch_disconnect(receive)
    assert messages == []
