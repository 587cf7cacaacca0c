"""Clients that behave badly, in a process of their own: what they cost must not be taken for what
the server does to others.

``python -m benchmarks.disturbers NAME PORT`` prints ``ready`` once all its clients are at it, goes
on until SIGTERM, and then prints a :class:`benchmarks.crowd.Tally` as one line of JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import signal
import sys
from collections.abc import Coroutine
from time import perf_counter
from typing import Final

import msgspec
import uvloop

from app.client.messages import directive, new_id
from app.client.tasks import SYNTHESIZER, TRANSCRIBER, Vocabulary
from benchmarks import audio
from benchmarks.crowd import Crowd, Disturb, Group, Watch
from benchmarks.rawsocket import BINARY, TEXT, RawSocket, frame

PATH: Final = "/ws/v1"
FLOOD_FACTOR: Final = 100
_FLOOD_TICK_S: Final = 0.01
_FLOOD_FRAMES: Final = round(FLOOD_FACTOR * _FLOOD_TICK_S * 1000 / audio.FRAME_MS)

UNREAD_HOLD_S: Final = 65.0
"""The server cuts off after a minute (``app/api/connections.py``), which a client that reads
nothing cannot see: what it has not taken is before it."""
_UNREAD_BUFFER: Final = 4096
_LONG_TEXT: Final = "今天天气很好我们一起去公园里面散步吧。" * 52
"""988 characters: 200 s of audio of the fake engine, 9.5 MB at 24 kHz."""


# Clients that read nothing


async def _ask_websocket(raw: RawSocket) -> None:
    await raw.upgrade(PATH)
    await raw.send(
        _start(
            SYNTHESIZER,
            {"text": _LONG_TEXT, "voice": "xiaoyun", "format": "pcm", "sample_rate": 24_000},
        )
    )


async def _ask_http(raw: RawSocket) -> None:
    body = msgspec.json.encode({"text": _LONG_TEXT, "format": "pcm", "sample_rate": 24_000})
    await raw.send(_post("/stream/v1/tts", "application/json", len(body)) + body)


async def _never_read(_raw: RawSocket, watch: Watch) -> None:
    await watch.until(perf_counter() + UNREAD_HOLD_S)


# Clients that send far more than real time


async def _begin_stream(raw: RawSocket) -> None:
    await raw.upgrade(PATH)
    await raw.send(_start(TRANSCRIBER, _STREAM))


def flooding(seconds: float) -> Disturb:
    """Send ``seconds`` of sound, 1 s of it every 10 ms. The server soon takes no more than its
    engine does; a client that leaves then, and comes back, gets its first half minute in again."""
    second = frame(BINARY, audio.tone(audio.FRAME_MS)) * _FLOOD_FRAMES

    async def flood(raw: RawSocket, watch: Watch) -> None:
        async def send() -> None:
            due, left = perf_counter(), seconds
            while left > 0:
                await watch.send(raw, second)
                left -= FLOOD_FACTOR * _FLOOD_TICK_S
                # What the server did not take in time is not made up for: the rate is a limit.
                due = max(due, perf_counter() - _FLOOD_TICK_S) + _FLOOD_TICK_S
                await watch.until(due)

        await _while_reading(raw, send())

    return flood


# Clients that send a byte a second


async def _begin_upload(raw: RawSocket) -> None:
    await raw.send(_post("/stream/v1/asr", "application/octet-stream", 320_000))


async def _open_only(raw: RawSocket) -> None:
    """Connected, and nothing said yet."""


def dripping(data: bytes) -> Disturb:
    """Send ``data`` a byte a second."""

    async def drip(raw: RawSocket, watch: Watch) -> None:
        async def send() -> None:
            began = perf_counter()
            for k in itertools.count():
                await watch.send(raw, data[k % len(data) :][:1])
                await watch.until(began + k + 1)

        await _while_reading(raw, send())

    return drip


# Clients that do nothing


async def _shake_hands(raw: RawSocket) -> None:
    await raw.upgrade(PATH)


async def _idle(raw: RawSocket, _watch: Watch) -> None:
    await raw.discard()


_STREAM: Final[dict[str, object]] = {
    "format": "pcm",
    "sample_rate": audio.RATE,
    "enable_intermediate_result": True,
}
_HEAD: Final = b"GET /stream/v1/tts?text=hello HTTP/1.1\r\nHost: 127.0.0.1\r\n"

KINDS: Final[dict[str, tuple[Group, ...]]] = {
    "unread": (
        Group(16, _ask_websocket, _never_read, _UNREAD_BUFFER),
        Group(16, _ask_http, _never_read, _UNREAD_BUFFER),
    ),
    "flood": (
        Group(4, _begin_stream, flooding(math.inf)),
        Group(4, _begin_stream, flooding(30.0), again_s=0.0),
    ),
    "drip": (
        Group(50, _begin_stream, dripping(frame(BINARY, audio.tone(audio.FRAME_MS)))),
        Group(50, _begin_stream, dripping(frame(BINARY, b"\0"))),
        Group(50, _begin_upload, dripping(b"\0")),
        Group(50, _open_only, dripping(_HEAD)),
    ),
    "idle": (Group(1000, _shake_hands, _idle),),
}


def _start(words: Vocabulary, payload: dict[str, object]) -> bytes:
    """The frame that starts a task."""
    return frame(
        TEXT, directive(words.namespace, words.start, new_id(), "default", payload).encode()
    )


def _post(path: str, kind: str, size: int) -> bytes:
    """The head of a request with a body of ``size`` bytes."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {size}\r\n\r\n"
    ).encode()


async def _while_reading(raw: RawSocket, sending: Coroutine[object, object, None]) -> None:
    """Send and read, until either ends."""
    tasks = [asyncio.create_task(sending), asyncio.create_task(raw.discard())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run(name: str, port: int) -> None:
    over = asyncio.Event()
    crowd = Crowd(KINDS[name], port)
    async with crowd.at_it():
        await crowd.ready.wait()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
        print("ready", flush=True)
        await over.wait()
    print(msgspec.json.encode(crowd.tally()).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(_run(sys.argv[1], int(sys.argv[2])))
