"""Synthesis: what the server adds to the engine's first piece, and CPU time per hour of audio."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from app.client.nls import NlsClient
from benchmarks import server
from benchmarks.measure import percentile
from benchmarks.options import Options
from benchmarks.report import Figure

TITLE: Final = "Synthesis over WebSocket, pcm"

ENGINE_MS: Final = 50
"""The fake engine's first piece takes this long."""
REQUESTS: Final = 40
CHARACTER_S: Final = 0.2
"""How long the fake engine speaks a character."""

SENTENCE: Final = "今天天气很好我们一起去公园里面散步吧。"
TEXT: Final = SENTENCE * (1000 // len(SENTENCE))
TEXT_BYTES: Final = round(len(TEXT) * CHARACTER_S * 24_000) * 2
"""As 16-bit PCM at 24 kHz."""


async def measure(options: Options) -> list[Figure]:
    """First audio one request at a time; then several clients as fast as they can."""
    seconds, clients = options.seconds or 6.0, options.sessions or 8
    async with server.started(**server.FAKE, FAKE_TTS_DELAY_MS=str(ENGINE_MS)) as served:
        firsts = {rate: await _first_audio(served.ws, rate) for rate in (24_000, 16_000)}
    async with server.started(**server.FAKE) as served:
        await _speak(served.ws, clients, 0.5)  # everything is imported and warm
        meter, began = served.cpu(), time.monotonic()
        audio_s, wrong = await _speak(served.ws, clients, seconds)
        took, used = time.monotonic() - began, meter.used()
        slow_wrong = await _speak_slowly(served.ws)
    hours = audio_s / 3600
    added = {rate: percentile(each, 50) - ENGINE_MS for rate, each in firsts.items()}
    return [
        Figure("first audio beyond the engine's, p50, 24 kHz", added[24_000], "ms", "≤ 2"),
        Figure("  p99", percentile(firsts[24_000], 99) - ENGINE_MS, "ms"),
        Figure("  p50 at 16 kHz (resampled)", added[16_000], "ms"),
        Figure(
            "all server processes, 24 kHz", sum(used.values()) / hours, "CPU s/h of audio", "≤ 1.5"
        ),
        *(
            Figure(f"  of these: {role}", used[role] / hours, "CPU s/h of audio")
            for role in sorted(used)
        ),
        Figure(f"speed, {clients} clients", audio_s / took, "× real time"),
        Figure("tasks of wrong length", wrong, "", "0"),
        Figure("tasks of wrong length, clients that read slowly or late", slow_wrong, "", "0"),
    ]


async def _first_audio(url: str, rate: int) -> list[float]:
    """ms from the Start directive to the first audio."""
    times: list[float] = []
    async with NlsClient(url).connect() as connection:
        for _ in range(REQUESTS):
            began = time.perf_counter()
            async with connection.synthesizer("你好", sample_rate=rate) as task:
                first = None
                async for _audio in task.audio():
                    first = first or time.perf_counter()
            if first is not None:
                times.append((first - began) * 1000)
    return times[2:]  # the first ones find nothing warm


async def _speak(url: str, clients: int, seconds: float) -> tuple[float, int]:
    """(seconds of audio that all clients got, tasks with too much or too little)."""
    until = time.monotonic() + seconds

    async def client() -> list[int]:
        sizes: list[int] = []
        async with NlsClient(url).connect() as connection:
            while time.monotonic() < until:
                async with connection.synthesizer(TEXT, sample_rate=24_000) as task:
                    sizes.append(sum([len(audio) async for audio in task.audio()]))
        return sizes

    done = await asyncio.gather(*(client() for _ in range(clients)))
    sizes = [size for each in done for size in each]
    return sum(sizes) / 48_000, sum(size != TEXT_BYTES for size in sizes)


async def _speak_slowly(url: str) -> int:
    """How many clients get too much or too little: some pause after each frame, some read nothing
    for a while, longer than it takes to fill every buffer on the way."""

    async def client(first_wait_s: float, pause_s: float) -> int:
        size = 0
        async with NlsClient(url).synthesizer(TEXT, sample_rate=24_000) as task:
            await asyncio.sleep(first_wait_s)
            async for audio in task.audio():
                size += len(audio)
                await asyncio.sleep(pause_s)
        return size

    manners = [(0.0, 0.001), (0.0, 0.004), (1.0, 0.0), (3.0, 0.0)]
    sizes = await asyncio.gather(*(client(*each) for each in manners))
    return sum(size != TEXT_BYTES for size in sizes)
