"""The death of the decode process is a delay for those who use it, and nothing for the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest

from app.client.nls import NlsClient
from tests.support.encoded import encoded
from tests.support.process import Served, serving
from tests.support.sound import joined, silence, tone

pytestmark = pytest.mark.xdist_group("processes")  # real processes: one at a time

AUDIO = joined(*(part for ms in (700, 1_200, 500) for part in (tone(ms), silence(1_000))))
HEARD = [700, 1_200, 500]


async def frames(data: bytes, seconds: float) -> AsyncIterator[bytes]:
    """``data`` evenly over so many seconds."""
    portions = int(seconds / 0.05)
    size = -(-len(data) // portions)
    for start in range(0, len(data), size):
        yield data[start : start + size]
        await asyncio.sleep(0.05)


def near(texts: list[str]) -> bool:
    """A codec blurs the ends of a tone by some milliseconds; a restart may cost a packet, or three
    of 36 ms of mp3, whose packets refer to those before."""
    heard = [int(text.removeprefix("heard ").removesuffix(" ms")) for text in texts]
    return len(heard) == len(HEARD) and all(
        abs(a - b) <= 120 for a, b in zip(heard, HEARD, strict=True)
    )


async def stream(served: Served, format: str) -> list[str]:
    data = encoded(format, AUDIO, 16_000)
    label = format.rpartition("-")[2]
    events = await NlsClient(served.ws).transcribe(frames(data, 4.0), format=label)
    return [each.payload["result"] for each in events if each.name == "SentenceEnd"]


async def post(served: Served, format: str) -> str:
    data = encoded(format, AUDIO, 16_000)
    async with httpx.AsyncClient(base_url=served.http, timeout=60) as http:
        answer = await http.post(
            "/stream/v1/asr", params={"format": format}, content=frames(data, 3.0)
        )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["result"])


async def running_decoder(served: Served) -> psutil.Process:
    """The decode process; waits for it."""
    async with asyncio.timeout(30):
        while not (found := served.children("app.serving.decoding")):  # noqa: ASYNC110 - a process
            await asyncio.sleep(0.05)
    return found[0]


async def busy(decoder: psutil.Process) -> None:
    """Wait until it decodes: it holds the files that were posted."""
    async with asyncio.timeout(30):
        while not [each for each in decoder.open_files() if "/files/" in each.path]:  # noqa: ASYNC110 - a process
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)  # it has decoded something of the streams, too


async def repeated(served: Served) -> float:
    """Tasks of a decode process that were opened again at the next."""
    async with httpx.AsyncClient(base_url=served.http) as http:
        lines = (await http.get("/metrics")).text.splitlines()
    return sum(
        float(line.split()[-1])
        for line in lines
        if line.startswith('funspeech_tasks_repeated_total{role="decode"}')
    )


async def test_a_killed_decoder_is_a_delay(tmp_path: Path) -> None:
    async with serving(tmp_path, ASR_ENGINE="fake", WORKERS="2") as served:
        await running_decoder(served)
        async with asyncio.TaskGroup() as group:
            streams = {
                format: group.create_task(stream(served, format))
                for format in ("mp3", "aac", "ogg-opus", "webm-opus", "opu")
            }
            pcm = group.create_task(stream(served, "pcm"))
            files = [group.create_task(post(served, format)) for format in ("flac", "m4a")]
            for _ in range(2):
                decoder = await running_decoder(served)
                await busy(decoder)
                decoder.kill()
                await asyncio.to_thread(psutil.wait_procs, [decoder], 10)
        assert await repeated(served) >= 2
        assert pcm.result() == [f"heard {ms} ms" for ms in HEARD]
        for format, texts in streams.items():
            assert near(texts.result()), (format, texts.result())
        for text in files:  # one utterance, with its pauses
            heard = int(text.result().split()[1])
            assert heard == pytest.approx(sum(HEARD) + 2_000, abs=60)
        folder = next(Path(each) for each in _folders(served))
        assert list((folder / "files").iterdir()) == []


def _folders(served: Served) -> list[str]:
    """The supervisor's folder, by the Unix sockets of its API processes."""
    connections = psutil.Process(served.process.pid).net_connections("unix")
    paths = [str(each.laddr) for each in connections]
    return sorted({str(Path(path).parent) for path in paths if path.endswith("decode.sock")})
