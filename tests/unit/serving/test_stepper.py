"""The loop that runs a service's steps: its timer, and what it tells the policy."""

from __future__ import annotations

import asyncio
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.serving.batcher import Batcher
from app.serving.worker import stepper
from app.serving.worker.stepper import Stepper


class Policy(Batcher[str]):
    """Steps are due when the test says so."""

    def __init__(self) -> None:
        super().__init__(None, 0.0)
        self.says = 0.0
        self.steps: asyncio.Queue[tuple[int, float]] = asyncio.Queue()

    def due(self, now: float) -> float | None:
        return self.says if self._ready else None

    def took(self, streams: int, seconds: float) -> None:
        self.steps.put_nowait((streams, seconds))


@contextmanager
def running(tested: Stepper[str]) -> Iterator[None]:
    task = asyncio.create_task(tested.run())
    yield
    task.cancel()


async def test_a_timer_that_was_set_too_late_is_set_anew() -> None:
    policy = Policy()
    stepped: asyncio.Queue[list[str]] = asyncio.Queue()
    tested = Stepper(policy, stepped.put, "test")
    with running(tested):
        policy.says = time.monotonic() + 3_600
        tested.ready("a")
        policy.says = time.monotonic() + 0.01
        tested.ready("b")  # and now a step is due sooner
        assert await asyncio.wait_for(stepped.get(), 10) == ["a", "b"]


async def test_who_is_gone_is_waited_for_no_longer() -> None:
    policy = Policy()
    stepped: asyncio.Queue[list[str]] = asyncio.Queue()
    tested = Stepper(policy, stepped.put, "test")
    with running(tested):
        policy.says = time.monotonic() + 3_600
        tested.ready("a")
        policy.says = 0.0  # the policy waited for this one
        tested.discard("b")
        assert await asyncio.wait_for(stepped.get(), 10) == ["a"]


async def test_a_timer_that_comes_too_early_starts_nothing() -> None:
    policy = Policy()
    stepped: asyncio.Queue[list[str]] = asyncio.Queue()
    tested = Stepper(policy, stepped.put, "test")
    asked = asyncio.Event()

    with running(tested):
        policy.says = time.monotonic() + 0.01
        tested.ready("a")

        def put_off(now: float) -> float | None:
            asked.set()
            return now + 3_600

        policy.due = put_off  # type: ignore[method-assign]  # the policy has changed its mind
        await asyncio.wait_for(asked.wait(), 10)
        await asyncio.sleep(0)
        assert stepped.empty()
        assert tested.work() == {"test": 0}  # still to be done


async def test_the_policy_is_told_how_long_each_step_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(stepper, "time", types.SimpleNamespace(monotonic=lambda: now))
    policy = Policy()

    async def step(keys: list[str]) -> None:
        nonlocal now
        now += 0.25 * len(keys)

    tested = Stepper(policy, step, "test")
    with running(tested):
        tested.ready("a")
        tested.ready("b")
        assert await asyncio.wait_for(policy.steps.get(), 10) == (2, 0.5)
        tested.ready("c")
        assert await asyncio.wait_for(policy.steps.get(), 10) == (1, 0.25)


async def test_who_gets_ready_while_a_step_runs_is_in_the_next() -> None:
    policy = Policy()
    stepped: asyncio.Queue[list[str]] = asyncio.Queue()

    async def step(keys: list[str]) -> None:
        stepped.put_nowait(keys)
        if keys == ["a"]:
            tested.ready("a")
            tested.ready("b")

    tested = Stepper(policy, step, "test")
    with running(tested):
        tested.ready("a")
        assert await asyncio.wait_for(stepped.get(), 10) == ["a"]
        assert await asyncio.wait_for(stepped.get(), 10) == ["a", "b"]
