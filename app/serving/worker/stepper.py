"""Runs one service's steps: asks the batcher who is ready, and calls the model in its thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, TypeVar

from app.core import metrics
from app.serving.batcher import Batcher

K = TypeVar("K", bound=Hashable)

_SOON_S: Final = 0.0005
"""What is due within this time is due: timers have a resolution of milliseconds."""


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
        self._timer_due = 0.0
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._name = name
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
        self._batcher.add(key, time.monotonic(), urgent=urgent)
        self._schedule()

    def discard(self, key: K) -> None:
        """``key`` is gone, or has nothing more to come for now: no step waits for it."""
        self._batcher.discard(key)
        self._schedule()

    def took(self, streams: int, seconds: float) -> None:
        """What a step was seen to take, elsewhere (a calibration)."""
        self._batcher.took(streams, seconds)

    async def in_thread(self, function: Callable[..., object], *args: object) -> object:
        """Run blocking model code in this service's thread."""
        return await self._loop.run_in_executor(self._executor, function, *args)

    def _schedule(self) -> None:
        """Start a step if one is due, or see to it that this is asked again when one may be."""
        if self._stepping or self._wake.is_set():
            return  # asked again after the step
        now = time.monotonic()
        due = self._batcher.due(now)
        if due is None:
            return
        if due <= now + _SOON_S:
            self._wake.set()
        elif self._timer is None or due < self._timer_due:
            self._stop_timer()
            self._timer = self._loop.call_later(due - now, self._tick)
            self._timer_due = due

    def _tick(self) -> None:
        self._timer = None
        self._schedule()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def run(self) -> None:
        """Step until cancelled. A step that raises is a bug of its caller and ends the worker."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                self._stop_timer()
                await self._step_once()
                self._schedule()
        finally:
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def _step_once(self) -> None:
        began = time.monotonic()
        oldest = self._batcher.oldest
        keys = self._batcher.take(began)
        if oldest is None or not keys:
            return
        self.steps += 1
        self._stepping = True
        # One figure a step, of the stream that waited longest: the others' would cost more than
        # the rest of this loop.
        self._queue.observe(began - oldest)
        await self._step(keys)
        self._stepping = False
        seconds = time.monotonic() - began
        self._batcher.took(len(keys), seconds)
        self._seconds.observe(seconds)
        self._streams.observe(len(keys))
