"""From Stop to Completed, with the tail recognised, on an engine that costs nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from benchmarks import recognition_load, server
from benchmarks.measure import percentile
from benchmarks.options import Options
from benchmarks.recognition_load import Script
from benchmarks.report import Figure

TITLE: Final = "Stop → Completed, each client stopping at its own time"

PROTOCOL_MS: Final = 5.0
"""What the protocol asks a server to wait between a client's text frame and its own answer."""


async def measure(options: Options) -> list[Figure]:
    """Tasks of 1 to 3 seconds one after another; their last frame is shorter than the others."""
    seconds, sessions = options.seconds or 10.0, options.sessions or 100
    async with server.started(**server.FAKE) as served:
        noticed = await recognition_load.stream(
            served.ws, sessions, lambda index: _scripts(index, seconds)
        )
    beyond = [each - PROTOCOL_MS for each in noticed.stops]
    return [
        Figure(f"p99 beyond 5 ms, {sessions} sessions", percentile(beyond, 99), "ms", "≤ 15"),
        Figure("p50 beyond 5 ms", percentile(beyond, 50), "ms"),
        Figure("earliest, beyond 5 ms", min(beyond, default=float("nan")), "ms", "≥ 0"),
        Figure("stops", len(beyond), ""),
        Figure("tasks that failed or lost audio", noticed.wrong + len(noticed.failed), "", "0"),
        Figure("generator's sends late by, p99", percentile(noticed.late, 99), "ms"),
    ]


def _scripts(index: int, seconds: float) -> Iterator[Script]:
    """The same at every run."""
    draw = random.Random(index)
    left_ms = round(seconds * 1000)
    while left_ms > 0:
        length = draw.randrange(1000, 3000, 10)
        yield recognition_load.utterance(length)
        left_ms -= length
