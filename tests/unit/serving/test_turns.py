"""Who may decode: many together or a suspect alone, whoever is cancelled when."""

from __future__ import annotations

import asyncio
import random

import pytest

from app.serving.decoding.turns import Turns


class Room:
    """Checks who is in at the same time."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.together = 0
        self.alone = 0
        self.most = 0

    async def step(self, *, suspect: bool, rounds: int = 3) -> None:
        async with self.turns.alone() if suspect else self.turns.together():
            if suspect:
                self.alone += 1
            else:
                self.together += 1
            try:
                for _ in range(rounds):
                    assert self.alone == 0 or (self.alone == 1 and self.together == 0)
                    self.most = max(self.most, self.together)
                    await asyncio.sleep(0)
            finally:
                if suspect:
                    self.alone -= 1
                else:
                    self.together -= 1


async def test_many_work_together_and_a_suspect_alone() -> None:
    room = Room()
    await asyncio.gather(*(room.step(suspect=number % 4 == 3) for number in range(20)))
    assert room.most == 12  # three before the first suspect, then the suspects, then the others
    room.most = 0
    await asyncio.gather(*(room.step(suspect=False) for _ in range(20)))
    assert room.most == 20


async def test_suspects_go_first() -> None:
    room, order = Room(), list[str]()

    async def noted(name: str, *, suspect: bool) -> None:
        await room.step(suspect=suspect)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(noted("running", suspect=False))
        await asyncio.sleep(0)
        group.create_task(noted("suspect", suspect=True))
        await asyncio.sleep(0)
        group.create_task(noted("later", suspect=False))
    assert order == ["running", "suspect", "later"]


@pytest.mark.parametrize("turns_before", range(12))
async def test_a_cancelled_suspect_leaves_nobody_waiting(turns_before: int) -> None:
    room = Room()
    async with asyncio.timeout(5):
        running = asyncio.create_task(room.step(suspect=False))
        await asyncio.sleep(0)
        suspect = asyncio.create_task(room.step(suspect=True))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(room.step(suspect=False))
        for _ in range(turns_before):
            await asyncio.sleep(0)
        suspect.cancel()
        await asyncio.gather(running, waiting)
        await asyncio.gather(suspect, return_exceptions=True)


@pytest.mark.parametrize("seed", range(20))
async def test_cancelled_at_any_moment(seed: int) -> None:
    chance, room = random.Random(seed), Room()
    tasks = [
        asyncio.create_task(room.step(suspect=chance.random() < 0.3, rounds=chance.randrange(5)))
        for _ in range(30)
    ]
    for _ in range(15):
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        chance.choice(tasks).cancel()
    async with asyncio.timeout(5):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [each for each in results if isinstance(each, AssertionError)]
    async with asyncio.timeout(5):
        await room.step(suspect=True)
        await room.step(suspect=False)
