"""Capacity for ten streams and forty clients, on two API servers that share the workers: ten are
granted, thirty refused at once, and a place that gets free is usable at once on either server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx
import pytest

from app.client.errors import NlsTaskFailed
from app.client.nls import NlsClient
from app.client.tasks import RecognitionTask
from tests.support.live import Live, live_server
from tests.support.process import connected, serving
from tests.support.rawsocket import RawSocket, handshake, start, stop, until
from tests.support.sound import tone

CAPACITY: Final = 10
CLIENTS: Final = 40
OVERLOADED: Final = 40000005


@asynccontextmanager
async def two_servers(folder: Path, replicas: int) -> AsyncIterator[Live]:
    """``CAPACITY`` streams, over all replicas."""
    async with live_server(
        folder, tts=None, apis=2, replicas=replicas, max_streams=CAPACITY // replicas
    ) as live:
        yield live


def active(live: Live) -> int:
    return sum(worker.active for worker in live.workers)


async def knocked(stack: AsyncExitStack, url: str) -> RecognitionTask | int:
    """A started task, which ends with ``stack``, or the code of its failure."""
    try:
        return await stack.enter_async_context(NlsClient(url).transcriber())
    except NlsTaskFailed as failed:
        return failed.code


async def heard(task: RecognitionTask) -> str:
    """What a task hears that is half a second long."""
    await task.send(tone(500).tobytes())
    return next(
        str(event.payload["result"]) for event in await task.finish() if event.name == "SentenceEnd"
    )


@pytest.mark.parametrize("replicas", [1, 2])
async def test_forty_clients_get_ten_grants(tmp_path: Path, replicas: int) -> None:
    async with two_servers(tmp_path, replicas) as live, AsyncExitStack() as stack:
        answers = await asyncio.gather(
            *(knocked(stack, live.ws_of(number % 2)) for number in range(CLIENTS))
        )
        granted = [answer for answer in answers if not isinstance(answer, int)]
        assert len(granted) == CAPACITY
        assert [each for each in answers if isinstance(each, int)] == [OVERLOADED] * 30
        assert active(live) == CAPACITY
        # Those who are in work as if they were alone.
        assert await asyncio.gather(*map(heard, granted)) == ["heard 500 ms"] * CAPACITY
    await until(lambda: active(live) == 0)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("how", ["completed", "closed", "vanished"])
async def test_a_free_place_is_usable_at_once_on_either_server(
    tmp_path: Path, replicas: int, how: str
) -> None:
    """Ten times: one leaves on one server, one is granted on the other at its first attempt, and
    everybody else is refused."""
    async with two_servers(tmp_path, replicas) as live, AsyncExitStack() as stack:
        inside = [await _granted(live, number % 2) for number in range(CAPACITY)]
        for turn in range(CAPACITY):
            on = turn % 2  # of the one who leaves
            assert await knocked(stack, live.ws_of(0)) == OVERLOADED
            assert await knocked(stack, live.ws_of(1)) == OVERLOADED
            await _leave(live, inside.pop(0), how)
            inside.append(await _granted(live, 1 - on))
            assert active(live) == CAPACITY
        for client in inside:
            client.abort(reset=False)
        await until(lambda: active(live) == 0)


async def _granted(live: Live, api: int) -> RawSocket:
    client = await handshake(replace(live, port=live.own_ports[api]))
    await client.text(start())
    await client.expect("TranscriptionStarted")
    return client


async def _leave(live: Live, client: RawSocket, how: str) -> None:
    if how == "completed":
        # Who has read Completed knows that the place is free.
        await client.text(stop())
        await client.until("TranscriptionCompleted")
        client.abort(reset=False)
        return
    client.abort(reset=how == "vanished")
    await until(lambda: active(live) == CAPACITY - 1)


async def test_a_rest_request_is_refused_as_well(tmp_path: Path) -> None:
    async with two_servers(tmp_path, 1) as live, AsyncExitStack() as stack:
        for number in range(CAPACITY):
            await knocked(stack, live.ws_of(number % 2))
        async with httpx.AsyncClient() as http:
            for port in live.own_ports:
                url = f"http://{live.host}:{port}/stream/v1/asr"
                answer = await http.post(url, content=tone(100).tobytes())
                assert answer.json()["status"] == OVERLOADED
        assert active(live) == CAPACITY


# Real processes


@pytest.mark.own_workers
@pytest.mark.xdist_group("processes")
async def test_two_processes_share_ten_places(tmp_path: Path) -> None:
    settings = {"WORKERS": "2", "MAX_STREAMS": str(CAPACITY), "ASR_GPUS": "cpu"}
    async with serving(tmp_path, **settings) as served, connected(served, CLIENTS) as by_process:
        clients = [client for mine in by_process.values() for client in mine]

        async def ask(client: RawSocket) -> int:
            await client.text(start())
            header = (await client.event())["header"]
            if header["name"] == "TaskFailed":
                assert await client.closed() == 1000
            return int(header["status"])

        codes = await asyncio.gather(*map(ask, clients))
        assert sorted(codes) == [20000000] * CAPACITY + [OVERLOADED] * (CLIENTS - CAPACITY)
        inside = [client for client, code in zip(clients, codes, strict=True) if code == 20000000]
        async with connected(served, 12) as late:
            for turn in range(6):
                # Whose place it was does not matter, nor who asks for it.
                left = inside.pop(0)
                await left.text(stop())
                await left.until("TranscriptionCompleted")
                newcomer = list(late.values())[turn % 2].pop()
                assert await ask(newcomer) == 20000000
                inside.append(newcomer)
                refused = list(late.values())[1 - turn % 2][0]
                assert await ask(refused) == OVERLOADED
                late[served_by(late, refused)].remove(refused)
            for client in inside:
                client.abort(reset=True)


def served_by(by_process: dict[int, list[RawSocket]], client: RawSocket) -> int:
    """The process that has this client."""
    return next(pid for pid, mine in by_process.items() if client in mine)
