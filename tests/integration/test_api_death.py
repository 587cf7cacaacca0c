"""An API process that is killed costs its own connections, and nothing else: on real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest

from app.client.nls import NlsClient
from tests.support.process import Served, connected, eventually, serving
from tests.support.rawsocket import BINARY, RawSocket, start, stop
from tests.support.sound import Int16, joined, silence, tone

pytestmark = [
    pytest.mark.own_workers,
    pytest.mark.xdist_group("processes"),  # real processes: one test of them at a time
    pytest.mark.timeout(180),
]

CLIENTS: Final = 16
SENTENCES: Final = (730, 1210, 460)
TEXT: Final = "a" * 60 + ". " + "b" * 60 + "."


def speech() -> Int16:
    return joined(*(part for ms in SENTENCES for part in (tone(ms), silence(1000))))


@asynccontextmanager
async def two_processes(folder: Path) -> AsyncIterator[Served]:
    """With room for the clients and no more, and a folder of temporary files to look into."""
    temporary = folder / "tmp"
    temporary.mkdir()
    settings = {
        "WORKERS": "2",
        "MAX_STREAMS": str(CLIENTS),
        "ASR_GPUS": "cpu",
        "TTS_GPUS": "cpu",
        "FAKE_TTS_DELAY_MS": "20",
        "TMPDIR": str(temporary),
    }
    async with serving(folder, **settings) as served:
        yield served


async def kill(pid: int) -> None:
    """SIGKILL, and its end."""
    process = psutil.Process(pid)
    process.send_signal(signal.SIGKILL)
    await asyncio.to_thread(process.wait, 30)


async def active(served: Served, role: str = "asr") -> int:
    """Tasks of the workers, as one of the API processes knows them."""
    async with httpx.AsyncClient(base_url=served.http) as http:
        replicas = (await http.get("/health")).json()["replicas"]
    return sum(int(each["active"]) for each in replicas if each["role"] == role)


async def settled(served: Served, tasks: int, role: str = "asr") -> None:
    """Wait until the workers have exactly so many tasks."""
    async with asyncio.timeout(30):
        while await active(served, role) != tasks:  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.02)


async def begun(client: RawSocket) -> None:
    """A stream in the middle of its first sentence."""
    await client.text(start())
    await client.expect("TranscriptionStarted")
    await client.audio(speech().tobytes()[: 32 * 500])


async def finished(client: RawSocket) -> list[str]:
    """The sentences of a stream that was begun."""
    await client.audio(speech().tobytes()[32 * 500 :])
    await client.text(stop())
    events = await client.until("TranscriptionCompleted")
    ends = [each for each in events if each["header"]["name"] == "SentenceEnd"]
    return [each["payload"]["result"] for each in ends]


async def broken_off(client: RawSocket) -> None:
    """The connection ends, without a close frame, after what was sent before."""
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        while True:
            await client.expect("SentenceBegin")


EXPECTED: Final = [f"heard {ms} ms" for ms in SENTENCES]


async def test_it_costs_its_own_connections_only(tmp_path: Path) -> None:
    async with two_processes(tmp_path) as served, connected(served, CLIENTS) as by_process:
        (victim, its_clients), (other, others) = by_process.items()
        await asyncio.gather(*map(begun, [*its_clients, *others]))
        await settled(served, CLIENTS)
        await kill(victim)
        await asyncio.gather(*map(broken_off, its_clients))
        # The worker forgets the dead process' streams, and gives their places away while the
        # others go on.
        await settled(served, len(others))
        newcomers = [NlsClient(served.ws).transcribe(speech().tobytes()) for _ in its_clients]
        heard, new = await asyncio.gather(
            asyncio.gather(*map(finished, others)), asyncio.gather(*newcomers)
        )
        assert heard == [EXPECTED] * len(others)
        for events in new:
            results = [each.payload["result"] for each in events if each.name == "SentenceEnd"]
            assert results == EXPECTED
        assert other in [child.pid for child in served.children("app.main")]
        await settled(served, 0)


async def test_its_syntheses_end_and_the_others_are_whole(tmp_path: Path) -> None:
    async with two_processes(tmp_path) as served, connected(served, 8) as by_process:
        (victim, its_clients), (_, others) = by_process.items()
        whole = len(await NlsClient(served.ws).synthesize(TEXT))
        beginnings = await asyncio.gather(*map(_speak, [*its_clients, *others]))
        await kill(victim)
        rests = await asyncio.gather(*map(_rest, others))
        sizes = zip(beginnings[len(its_clients) :], rests, strict=True)
        assert [first + rest for first, rest in sizes] == [whole] * len(others)
        await settled(served, 0, "tts")


async def _speak(client: RawSocket) -> int:
    """Ask for a synthesis; the size of its first frame."""
    await client.text(start("SpeechSynthesizer", text=TEXT))
    got = await client.frame()
    assert got.opcode == BINARY
    return len(got.payload)


async def _rest(client: RawSocket) -> int:
    """The size of all that comes until Completed."""
    size, got = 0, await client.frame()
    while got.opcode == BINARY:
        size, got = size + len(got.payload), await client.frame()
    assert json.loads(got.payload)["header"]["name"] == "SynthesisCompleted"
    return size


async def test_connections_wait_for_its_restart_and_are_served(tmp_path: Path) -> None:
    """None is refused: the listening sockets are the supervisor's."""
    async with two_processes(tmp_path) as served:
        for process in served.children("app.main"):
            await kill(process.pid)
        results = await asyncio.gather(
            *(NlsClient(served.ws).transcribe(speech().tobytes()) for _ in range(CLIENTS))
        )
        for events in results:
            ends = [each.payload["result"] for each in events if each.name == "SentenceEnd"]
            assert ends == EXPECTED


async def test_nothing_is_left_over(tmp_path: Path) -> None:
    async with two_processes(tmp_path) as served:
        (folder,) = (tmp_path / "tmp").glob("funspeech-*")
        await settled(served, 0)
        before = _resources(served, folder)
        for turn in range(2):
            async with connected(served, 4) as by_process:
                victim = list(by_process)[turn % 2]
                await asyncio.gather(*(begun(each) for each in by_process[victim]))
                await kill(victim)
                await asyncio.gather(*map(broken_off, by_process[victim]))
            await eventually(lambda: len(served.children("app.main")) == 2)
        await settled(served, 0)
        await eventually(lambda: _resources(served, folder) == before)
        supervisor = psutil.Process(served.process.pid)
        names = {"api-0", "api-1", "asr-0", "tts-0", str(supervisor.pid)}
        assert {path.stem.rsplit("_", 1)[1] for path in (folder / "metrics").iterdir()} == names
        assert await served.stop() == 0
    assert os.listdir(tmp_path / "tmp") == []


def _resources(served: Served, folder: Path) -> dict[str, object]:
    """What must be as it was: descriptors of those that live on, sockets, the number of
    processes."""
    supervisor = psutil.Process(served.process.pid)
    return {
        "descriptors of the supervisor": supervisor.num_fds(),
        **{
            f"descriptors of worker {child.pid}": child.num_fds()
            for child in served.children("app.serving.worker")
        },
        "sockets": sorted(path.name for path in folder.rglob("*.sock")),
        "processes": len(supervisor.children(recursive=True)),
    }
