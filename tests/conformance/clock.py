"""Time that a test moves, for the limits of seconds and minutes in nls-protocol.md 8.3."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import pytest

OWN_LOOP: Final = pytest.mark.asyncio(loop_scope="function")
"""For a test that moves the clock, in a file whose tests share an event loop."""

STEP_S: Final = 0.25
"""Below every interval of the server's timers, so that each has its turn as it comes due."""
_TURNS: Final = 8
"""Of the event loop in a step: a timer, what it wakes, and what goes out."""


class Clock:
    """The event loop's clock, and that of the sessions, which may be moved on. Threads, workers'
    too, go by the real one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop_time = loop.time
        self._ahead_s = 0.0
        self._sessions_ahead_s = 0.0

    def loop_time(self) -> float:
        """In place of the event loop's."""
        return self._loop_time() + self._ahead_s

    def session_time(self) -> float:
        """In place of the connections'."""
        return time.monotonic() + self._sessions_ahead_s

    async def advance(self, seconds: float, *, sessions: bool = True) -> None:
        """Let so much time pass: every timer that is due then has run. ``sessions`` False: it does
        not pass for the connections' own idle times."""
        for _ in range(round(seconds / STEP_S)):
            self._ahead_s += STEP_S
            if sessions:
                self._sessions_ahead_s += STEP_S
            for _ in range(_TURNS):
                await asyncio.sleep(0)
