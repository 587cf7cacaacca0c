"""What the benchmark of bad neighbours computes, and that its clients are as bad as they say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection, serve

from benchmarks import disturbers, neighbours
from benchmarks.crowd import Crowd, Group, Tally, Watch
from benchmarks.neighbours import Disturbance, Memory, Side
from benchmarks.rawsocket import BINARY, TEXT, RawSocket, frame
from benchmarks.recognition_load import Noticed


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
async def test_a_websocket_server_understands_the_raw_frames(size: int) -> None:
    got: asyncio.Queue[str | bytes] = asyncio.Queue()

    async def handle(connection: ServerConnection) -> None:
        async for message in connection:
            got.put_nowait(message)

    async with _websocket_server(handle) as port:
        with RawSocket() as raw:
            await raw.connect(port)
            await raw.upgrade("/ws/v1")
            await raw.send(frame(BINARY, b"\x01" * size) + frame(TEXT, "好".encode()))
            assert [await got.get(), await got.get()] == [b"\x01" * size, "好"]


async def test_a_refused_handshake_is_noticed() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        with RawSocket() as raw:
            await raw.connect(server.sockets[0].getsockname()[1])
            with pytest.raises(ConnectionRefusedError):
                await raw.upgrade("/ws/v1")


def test_the_ratio_is_of_the_lags_beside_and_alone() -> None:
    figures = _figures(_side([100.0] * 99 + [150.0]), _side([200.0] * 98 + [260.0, 300.0]))
    assert figures["flood: 8 clients: p99 lag, ratio"] == 2.6
    assert figures["  flood: alone"] == 100.0
    assert figures["  flood: beside them"] == 260.0


def test_growth_is_between_the_peaks_and_its_second_half_is_beyond_what_comes_alone() -> None:
    alone = _side([1.0], [200.0, 210.0, 211.0, 205.0])
    beside = _side([1.0], [205.0, 240.0, 251.0, 230.0])
    figures = _figures(alone, beside)
    assert figures["  flood: growth of RSS, all processes"] == 40.0
    assert figures["  flood: growth in the second half"] == 10.0


def test_memory_that_does_not_grow_has_no_late_growth() -> None:
    assert Memory([5.0, 9.0, 9.0, 8.0]).late_growth == 0.0
    assert Memory([5.0]).late_growth == 0.0


def test_every_kind_of_disturber_is_measured() -> None:
    assert set(neighbours.LABELS) == set(disturbers.KINDS)


async def test_a_crowd_is_ready_when_all_are_at_it_and_comes_back_when_cut_off() -> None:
    came = 0
    enough = asyncio.Event()

    async def cut_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1
        if came == 9:
            enough.set()
        writer.close()

    async def enter(_raw: RawSocket) -> None:
        pass

    async def disturb(raw: RawSocket, _watch: Watch) -> None:
        await raw.discard()

    server = await asyncio.start_server(cut_off, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        crowd = Crowd((Group(3, enter, disturb, again_s=0.0),), port)
        async with asyncio.timeout(30), crowd.at_it():
            await crowd.ready.wait()
            await enough.wait()
    assert crowd.tally().opened >= 9


async def test_a_flood_sends_valid_frames_of_the_length_asked_for() -> None:
    received = 0
    heard = asyncio.Event()

    async def handle(connection: ServerConnection) -> None:
        nonlocal received
        async for message in connection:
            received += len(message)
            if received >= 10 * 32_000:
                heard.set()

    async with _websocket_server(handle) as port:
        with RawSocket() as raw:
            await raw.connect(port)
            await raw.upgrade("/ws/v1")
            watch = Watch()
            await disturbers.flooding(10.0)(raw, watch)
            await heard.wait()
    assert received == 10 * 32_000
    assert watch.sent_bytes > received  # frames have heads


async def test_a_drip_sends_single_bytes() -> None:
    pieces: list[bytes] = []

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pieces.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(read, "127.0.0.1", 0)
    async with server:
        with RawSocket() as raw:
            await raw.connect(server.sockets[0].getsockname()[1])
            async with asyncio.timeout(30):  # it ends because the server closes
                await disturbers.dripping(b"GET /")(raw, Watch())
    assert pieces == [b"G"]


def _side(lags: list[float], memory: list[float] | None = None) -> Side:
    return Side(Noticed(lags=lags, late=[0.1]), Memory(memory or [1.0]))


def _figures(alone: Side, beside: Side) -> dict[str, float]:
    done = Disturbance(Tally(8, 1_000_000, 0.5), 0.1)
    figures = neighbours.compare("flood", "8 clients", alone, beside, done)
    return {figure.name: figure.value for figure in figures}


@asynccontextmanager
async def _websocket_server(
    handle: Callable[[ServerConnection], Awaitable[None]],
) -> AsyncIterator[int]:
    async with serve(handle, "127.0.0.1", 0) as server:
        yield next(iter(server.sockets)).getsockname()[1]
