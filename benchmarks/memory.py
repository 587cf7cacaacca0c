"""Resident memory of the API process: at its start, and for each connection that does nothing."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Final

import psutil

from app.client.nls import NlsClient
from benchmarks import floor, server
from benchmarks.measure import rss_mib
from benchmarks.options import Options
from benchmarks.report import Figure

TITLE: Final = "Memory of the API process"

WARM_UP: Final = 50
AT_ONCE: Final = 50


async def measure(options: Options) -> list[Figure]:
    """``sessions`` connections (1,000) with the handshake done and no task."""
    connections = options.sessions or 1000
    async with server.started(**server.FAKE) as served:
        api = served.api()
        at_start = rss_mib(api)
        each_kib = await _per_connection(served.ws, connections, api)
    async with floor.echoing() as echo:
        bare = psutil.Process(echo.process.pid)
        bare_kib = await _per_connection(echo.ws, connections, bare)
    return [
        Figure("RSS at start", at_start, "MiB", "≤ 120"),
        Figure(f"for each of {connections} idle connections", each_kib, "KiB", "≤ 25"),
        Figure("floor: bare uvicorn WebSocket", bare_kib, "KiB"),
    ]


async def _per_connection(url: str, connections: int, process: psutil.Process) -> float:
    """What ``process`` grows by, in KiB."""
    # What the first connections load stays, so it is none of the others' cost.
    async with AsyncExitStack() as stack:
        await _connect(url, WARM_UP, stack)
    before = rss_mib(process)
    async with AsyncExitStack() as stack:
        await _connect(url, connections, stack)
        return (rss_mib(process) - before) * 1024 / connections


async def _connect(url: str, count: int, stack: AsyncExitStack) -> None:
    client = NlsClient(url, ping_interval_s=None)
    for start in range(0, count, AT_ONCE):
        group = range(start, min(start + AT_ONCE, count))
        await asyncio.gather(*(stack.enter_async_context(client.connect()) for _ in group))
