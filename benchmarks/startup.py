"""From the command to the first answer, with the embedded engines."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import httpx

from benchmarks import server
from benchmarks.audio import EXAMPLES
from benchmarks.measure import percentile
from benchmarks.options import Options
from benchmarks.report import Figure

TITLE: Final = "Start with the embedded engines (files in the page cache)"

RUNS: Final = 3


async def measure(options: Options) -> list[Figure]:
    """Medians of three starts; requests wait for the server, and are tried again when refused."""
    runs = [await _run() for _ in range(RUNS)]
    middle = [percentile([run[step] for run in runs], 50) for step in range(4)]
    return [
        Figure("first synthesis answered (REST)", middle[0], "s", "≤ 1.5"),
        Figure("first recognition answered (REST, 2 s of speech)", middle[1], "s", "≤ 1.5"),
        Figure("/health/ready says ready", middle[2], "s"),
        Figure("the server says that it serves", middle[3], "s"),
    ]


async def _run() -> tuple[float, float, float, float]:
    body = (EXAMPLES / "hello.wav").read_bytes()
    async with (
        server.starting(**server.EMBEDDED) as served,
        httpx.AsyncClient(base_url=served.http, timeout=30) as http,
        asyncio.timeout(server.START_TIMEOUT_S),
    ):
        speak = http.build_request("GET", "/stream/v1/tts", params={"text": "hello"})
        recognise = http.build_request(
            "POST", "/stream/v1/asr", params={"format": "wav"}, content=body
        )
        ready = http.build_request("GET", "/health/ready")
        return await asyncio.gather(
            _answered(http, speak, served.began),
            _answered(http, recognise, served.began),
            _answered(http, ready, served.began),
            _announced(served),
        )


async def _answered(http: httpx.AsyncClient, request: httpx.Request, began: float) -> float:
    """Seconds from the start until the request has its answer."""
    while True:
        try:
            if (await http.send(request)).status_code == httpx.codes.OK:
                return time.monotonic() - began
        except httpx.TransportError:
            pass  # nobody listens yet
        await asyncio.sleep(0.02)


async def _announced(served: server.Served) -> float:
    await served.ready.wait()
    return time.monotonic() - served.began
