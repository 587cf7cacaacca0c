"""Runs one service's steps: asks the batcher who is ready, and calls the model in its thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from app.core import metrics
from app.serving.batcher import Batcher

K = TypeVar("K", bound=Hashable)


class Stepper(Generic[K]):
    """Calls ``step(keys)`` for the ready streams, one step at a time, until cancelled.

    ``steps`` counts them (metrics, and tests of cancellation). ``executor`` is the service's one
    thread; ``step`` runs its model in there by :meth:`in_thread`.
    """

    def __init__(
        self, batcher: Batcher[K], step: Callable[[list[K]], Awaitable[None]], name: str
    ) -> None:
        self._batcher = batcher
        self._step = step
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._name = name
        self._ready_at: dict[K, float] = {}
        self._queue = metrics.QUEUE.labels(name)
        self._seconds = metrics.STEPS.labels(name)
        self._streams = metrics.STEP_STREAMS.labels(name)
        self._stepping = False
        self.steps = 0

    def work(self) -> dict[Hashable, int]:
        """The steps, while one runs or is due: for the heartbeat, from its thread."""
        outstanding = self._stepping or len(self._batcher) > 0
        return {self._name: self.steps} if outstanding else {}

    def ready(self, key: K, *, urgent: bool = False) -> None:
        """``key`` has enough for a step."""
        if key not in self._ready_at:
            self._ready_at[key] = time.monotonic()
        self._batcher.add(key, urgent=urgent)
        self._schedule()

    def discard(self, key: K) -> None:
        """``key`` is gone."""
        self._ready_at.pop(key, None)
        self._batcher.discard(key)

    async def in_thread(self, function: Callable[..., object], *args: object) -> object:
        """Run blocking model code in this service's thread."""
        return await self._loop.run_in_executor(self._executor, function, *args)

    def _schedule(self) -> None:
        due = self._batcher.due()
        if due is None or self._wake.is_set():
            return
        if due <= self._loop.time():
            self._wake.set()
        elif self._timer is None:
            self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._wake.set()

    async def run(self) -> None:
        """Step until cancelled. A step that raises is a bug of its caller and ends the worker."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                if keys := self._batcher.take(self._loop.time()):
                    self.steps += 1
                    self._stepping = True
                    began = time.monotonic()
                    # One figure a step, of the stream that waited longest: the others' would cost
                    # more than the rest of this loop.
                    self._queue.observe(began - min(map(self._ready_at.pop, keys)))
                    await self._step(keys)
                    self._stepping = False
                    self._seconds.observe(time.monotonic() - began)
                    self._streams.observe(len(keys))
                    del keys  # those that ended are not held until the next step
                self._schedule()
        finally:
            self._executor.shutdown(wait=False, cancel_futures=True)
