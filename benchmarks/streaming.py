"""CPU time per hour of streamed audio: the whole server on an engine that costs nothing, and a
bare WebSocket echo on the same web server as the floor."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final

import psutil

from app.client.errors import ClientError
from app.client.wire import Timeouts, Wire
from benchmarks import audio, floor, recognition_load, server
from benchmarks.measure import CpuMeter, percentile
from benchmarks.options import Options
from benchmarks.report import Figure

TITLE: Final = "Streaming recognition: CPU time of the server (100 ms frames, real time)"

SETTLE_S: Final = 2.0
"""All clients are connected and streaming after this; what that costs is not counted."""


async def measure(options: Options) -> list[Figure]:
    """CPU seconds of all server processes per hour of audio."""
    seconds, sessions = options.seconds or 12.0, options.sessions or 100
    least = await _echo_cost(seconds, sessions)
    async with server.started(**server.FAKE) as served:
        script = recognition_load.sentences(SETTLE_S + seconds + 1)
        load = asyncio.create_task(recognition_load.stream(served.ws, sessions, lambda _: [script]))
        cost, own = await _cost_while(load, seconds, sessions, served.process.pid)
        noticed = await load
    total = sum(cost.values())
    return [
        Figure(f"all server processes, {sessions} sessions", total, "CPU s/h of audio", "≤ 5"),
        *(Figure(f"  of these: {role}", cost[role], "CPU s/h of audio") for role in sorted(cost)),
        Figure("floor: bare uvicorn WebSocket echo", least, "CPU s/h of audio"),
        Figure("ratio to the floor", total / least, "×"),
        Figure("tasks that failed or lost audio", noticed.wrong + len(noticed.failed), "", "0"),
        Figure("load generator, on the same cores", own, "CPU s/h of audio"),
        Figure("  sends late by, p99", percentile(noticed.late, 99), "ms"),
    ]


async def _cost_while(
    load: asyncio.Task[object], seconds: float, sessions: int, root: int
) -> tuple[dict[str, float], float]:
    """CPU seconds per hour of audio: by role of the processes under ``root``, and our own."""
    hours = sessions * seconds / 3600
    await asyncio.sleep(SETTLE_S)
    meter, own = CpuMeter(root), psutil.Process().cpu_times()
    await asyncio.sleep(seconds)
    used, now = meter.used(), psutil.Process().cpu_times()
    if load.done():
        load.result()
    ours = now.user + now.system - own.user - own.system
    return {role: value / hours for role, value in used.items()}, ours / hours


async def _echo_cost(seconds: float, sessions: int) -> float:
    async with floor.echoing() as echo:
        load = asyncio.create_task(_echo_load(echo.ws, sessions, SETTLE_S + seconds + 1))
        cost, _ = await _cost_while(load, seconds, sessions, echo.process.pid)
        await load
    return sum(cost.values())


async def _echo_load(url: str, sessions: int, seconds: float) -> None:
    frame = audio.tone(audio.FRAME_MS)

    async def client(index: int) -> None:
        await asyncio.sleep(index / sessions)
        wire = await Wire.open(
            url,
            token=None,
            timeouts=Timeouts(),
            ssl=None,
            ping_interval_s=None,
            fragment_bytes=None,
        )
        began = perf_counter()
        for k in range(round(seconds * 10)):
            await asyncio.sleep(max(0.0, began + k / 10 - perf_counter()))
            await wire.send(frame)
            if await wire.receive(10) != frame:
                raise ClientError("the echo is wrong")
        await wire.close()

    async with asyncio.TaskGroup() as group:
        for index in range(sessions):
            group.create_task(client(index))
