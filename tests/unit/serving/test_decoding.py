"""The decode process and its client: real processes, with codecs that do what a test says."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from app.audio.pcm import Int16
from app.core.errors import AudioTooLong, BadAudio, EngineUnavailable, SpeechError
from app.serving import children
from app.serving.children import Child, ChildSpec
from app.serving.decoding import client
from app.serving.decoding.client import Decoding, DecodingTask, Undecoded
from tests.support.poisoned_decoder import CHANNELS, POISON

STREAM = Undecoded("mp3", is_file=False, sample_rate=16_000)
FILE = Undecoded("flac", is_file=True, sample_rate=16_000)

pytestmark = pytest.mark.xdist_group("processes")  # real processes: one at a time


@dataclass
class World:
    """A decode process and a client of it."""

    child: Child
    decoding: Decoding
    folder: Path

    async def decoded(self, task: DecodingTask) -> Int16:
        """All that comes of a task."""
        found = [samples async for samples, _ in task.blocks()]
        return np.concatenate(found) if found else np.zeros(0, np.int16)

    async def emptied(self) -> None:
        """Wait until no file is left."""
        async with asyncio.timeout(10):
            while list(self.folder.iterdir()):  # noqa: ASYNC110 - another process' work
                await asyncio.sleep(0.005)

    async def kill(self) -> None:
        """Kill the process, and wait for the next."""
        assert self.child.pid is not None
        before = self.child.restarts
        os.kill(self.child.pid, signal.SIGKILL)
        while self.child.restarts == before:  # noqa: ASYNC110 - told by a process' end
            await asyncio.sleep(0.005)
        await self.child.ready.wait()


@asynccontextmanager
async def a_world(
    folder: Path, module: str = "tests.support.poisoned_decoder"
) -> AsyncIterator[World]:
    files = folder / "files"
    files.mkdir()
    path = str(folder / "d.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(8)
        listener.setblocking(False)
        config = {
            "name": "decode", "folder": str(files), "threads": 4, "wall_s": 5.0,
            "log_level": "INFO", "metrics": str(folder),
        }  # fmt: skip
        child = Child(
            ChildSpec("decode", module, config, [listener]), 30.0, 15.0, lambda *line: None
        )
        keeping = asyncio.create_task(child.keep())
        await child.ready.wait()
        decoding = Decoding(path)
        try:
            async with decoding.running():
                yield World(child, decoding, files)
        finally:
            await child.stop(10)
            await keeping


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(children, "RESTART_DELAYS_S", (0.05,))
    async with a_world(tmp_path) as made:
        yield made


def numbers(count: int, start: int = 0) -> Int16:
    return ((np.arange(start, start + count)) % 9_973).astype(np.int16)


async def send_all(task: DecodingTask, data: bytes, size: int = 4_000) -> None:
    for start in range(0, len(data), size):
        await task.wait_for_room()
        task.send(data[start : start + size])
    task.finish()


@pytest.mark.parametrize("what", [STREAM, FILE])
async def test_what_goes_in_comes_out(world: World, what: Undecoded) -> None:
    audio = numbers(2_000_000)  # many times the credit
    task = world.decoding.open(what)
    sending = asyncio.create_task(send_all(task, audio.tobytes()))
    assert np.array_equal(await world.decoded(task), audio)
    await sending
    await world.emptied()


async def test_a_stream_comes_out_before_its_end(world: World) -> None:
    task = world.decoding.open(STREAM)
    task.send(numbers(100).tobytes())
    blocks = aiter(task.blocks())
    samples, rate = await anext(blocks)
    assert np.array_equal(samples, numbers(100))
    assert rate == 16_000
    task.cancel()


@pytest.mark.parametrize("what", [STREAM, FILE])
@pytest.mark.parametrize("size", [333, 4_000])
async def test_a_death_costs_nothing_that_was_not_to_blame(
    world: World, what: Undecoded, size: int
) -> None:
    audio = numbers(300_000)
    tasks = [world.decoding.open(what) for _ in range(5)]
    half = len(audio.tobytes()) // 2 + 1  # in the middle of a sample
    results = [asyncio.create_task(world.decoded(task)) for task in tasks]
    for task in tasks:
        for start in range(0, half, size):
            await task.wait_for_room()
            task.send(audio.tobytes()[start : min(start + size, half)])
    await world.kill()
    for task in tasks:
        await send_all(task, audio.tobytes()[half:], size)
    for result in results:
        assert np.array_equal(await result, audio)
    await world.emptied()


@pytest.mark.parametrize("what", [STREAM, FILE])
async def test_a_channel_is_heard_by_the_next_process_too(world: World, what: Undecoded) -> None:
    audio = numbers(50_000)
    task = world.decoding.open(replace(what, channel=1))
    result = asyncio.create_task(world.decoded(task))
    task.send(audio[:20_000].tobytes())
    await world.kill()
    assert task.channels == 0
    await send_all(task, audio[20_000:].tobytes())
    assert np.array_equal(await result, -audio)
    assert task.channels == CHANNELS


@pytest.mark.parametrize("poisoned", [STREAM, FILE])
async def test_who_kills_the_process_fails_and_nobody_else(
    world: World, poisoned: Undecoded
) -> None:
    audio = numbers(200_000)
    poison = numbers(3_000).tobytes() + POISON + numbers(3_000).tobytes()
    good = [world.decoding.open(each) for each in (STREAM, FILE, STREAM, FILE)]
    bad = world.decoding.open(poisoned)
    results = [asyncio.create_task(world.decoded(task)) for task in good]
    fate = asyncio.create_task(world.decoded(bad))
    sending = [asyncio.create_task(send_all(task, audio.tobytes())) for task in good]
    await send_all(bad, poison)
    with pytest.raises(BadAudio):
        await fate
    for result in results:
        assert np.array_equal(await result, audio)
    await asyncio.gather(*sending)
    assert world.child.restarts == 2  # the second told who it was
    later = world.decoding.open(STREAM)
    await send_all(later, audio.tobytes())
    assert np.array_equal(await world.decoded(later), audio)


async def test_two_killers_at_once_cost_two_tasks(world: World) -> None:
    audio = numbers(50_000)
    good = world.decoding.open(FILE)
    bad = [world.decoding.open(STREAM), world.decoding.open(FILE)]
    result = asyncio.create_task(world.decoded(good))
    fates = [asyncio.create_task(world.decoded(task)) for task in bad]
    for task in bad:
        await send_all(task, POISON)
    await send_all(good, audio.tobytes())
    assert [type(each) for each in await asyncio.gather(*fates, return_exceptions=True)] == [
        BadAudio, BadAudio
    ]  # fmt: skip
    assert np.array_equal(await result, audio)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (Undecoded("mp3", is_file=False, sample_rate=16_000, max_audio_ms=1_000), AudioTooLong),
        (Undecoded("flac", is_file=True, sample_rate=16_000, max_bytes=30_000), AudioTooLong),
    ],
)
async def test_limits(world: World, what: Undecoded, error: type[SpeechError]) -> None:
    task = world.decoding.open(what)
    sending = asyncio.create_task(send_all(task, numbers(20_000).tobytes()))
    with pytest.raises(error):
        await world.decoded(task)
    await asyncio.gather(sending, return_exceptions=True)
    task.cancel()


async def test_a_cancelled_file_is_removed(world: World) -> None:
    task = world.decoding.open(FILE)
    task.send(numbers(1_000).tobytes())
    while not list(world.folder.iterdir()):  # noqa: ASYNC110 - another process' work
        await asyncio.sleep(0.005)
    task.cancel()
    await world.emptied()


async def test_a_task_waits_for_a_process_that_is_away(world: World) -> None:
    assert world.child.pid is not None
    os.kill(world.child.pid, signal.SIGKILL)
    task = world.decoding.open(STREAM)
    await send_all(task, numbers(5_000).tobytes())
    assert np.array_equal(await world.decoded(task), numbers(5_000))


async def test_without_a_process_it_fails_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "AWAY_TIMEOUT_S", 0.1)
    decoding = Decoding(str(tmp_path / "nobody.sock"))
    async with decoding.running():
        task = decoding.open(STREAM)
        with pytest.raises(EngineUnavailable):
            async for _ in task.blocks():
                pass


async def test_files_of_tasks_that_end_while_no_process_is_there_are_removed(world: World) -> None:
    tasks = [world.decoding.open(FILE) for _ in range(3)]
    for task in tasks:
        task.send(numbers(1_000).tobytes())
    while len(list(world.folder.iterdir())) < 3:  # noqa: ASYNC110 - another process' work
        await asyncio.sleep(0.005)
    assert world.child.pid is not None
    os.kill(world.child.pid, signal.SIGKILL)
    while world.child.ready.is_set():  # noqa: ASYNC110 - told by a process' end
        await asyncio.sleep(0.005)
    for task in tasks:
        task.cancel()
    await world.emptied()


async def test_a_stream_that_gets_on_survives_any_number_of_deaths(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MAX_LOSSES", 1)
    audio = numbers(4_000)
    task = world.decoding.open(STREAM)
    result = asyncio.create_task(world.decoded(task))
    for part in range(4):
        task.send(audio[part * 1_000 : (part + 1) * 1_000].tobytes())
        while task._heard < (part + 1) * 1_000 or task._kept.size:  # noqa: ASYNC110 - a process
            await asyncio.sleep(0.005)
        await world.kill()
    task.finish()
    assert np.array_equal(await result, audio)


async def test_what_cannot_be_kept_goes_on_and_dies_with_the_process(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MAX_KEPT_BYTES", 1_000)
    task = world.decoding.open(STREAM)
    while not task.was_opened:  # noqa: ASYNC110 - told by a socket
        await asyncio.sleep(0.005)
    task.send(numbers(2_000).tobytes())
    blocks = aiter(task.blocks())
    assert sum([len((await anext(blocks))[0]) for _ in range(2)]) == 2_000
    assert task._kept.size == 0
    await world.kill()
    with pytest.raises(EngineUnavailable):
        await anext(blocks)
