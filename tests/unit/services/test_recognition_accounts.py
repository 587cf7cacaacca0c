"""What a recognition task tells its account, and its engine of the rate, with the worker played by
the test."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from app.core.errors import AudioTooLong, BadAudio, EngineFailed, Overloaded, SpeechError
from app.core.speech import RecognitionOptions, RecognitionRequest
from app.core.usage import Used
from app.services.recognition import RecognitionService
from app.serving.decoding.client import Decoding
from app.serving.handles import RecognitionHandle
from app.serving.pool import Pool
from app.serving.protocol import SourceRate
from tests.support.sound import tone


class OneWorker:
    """A pool whose worker hears everything and says what the test says."""

    name = "worker"

    def __init__(self, refuses: SpeechError | None = None) -> None:
        self.refuses = refuses
        self.options: list[RecognitionOptions] = []
        self.messages: list[Any] = []
        self.handle = RecognitionHandle(cast(Any, self), 1, 16_000)

    async def open_recognition(
        self, options: RecognitionOptions, log_id: str, *, accepted: bool = False
    ) -> RecognitionHandle:
        if self.refuses is not None:
            raise self.refuses
        self.options.append(options)
        self.handle.grant()
        return self.handle

    def send(self, message: Any, *, within_s: float = 0.0) -> None:
        self.messages.append(message)

    def forget(self, number: int) -> None:
        pass

    def better_to_move(self, away_from: str) -> bool:
        return False


class World:
    def __init__(self, refuses: SpeechError | None = None) -> None:
        self.worker = OneWorker(refuses)
        self.recorded: list[tuple[str, Used]] = []
        self.service = RecognitionService(
            cast(Pool, self.worker),
            cast(Decoding, None),  # PCM needs none
            None,
            log_gate=False,
            max_file_bytes=1_000_000,
            account=lambda appkey, used: self.recorded.append((appkey, used)),
        )


def used(audio_ms: int, *, failed: bool = False) -> list[tuple[str, Used]]:
    return [("key", Used(kind="asr", audio_ms=audio_ms, failed=failed))]


REQUEST = RecognitionRequest(appkey="key")


async def test_a_complete_task_is_recorded_once_with_its_audio() -> None:
    world = World()
    async with world.service.open(REQUEST) as task:
        for _ in range(3):
            task.feed(tone(333).tobytes())
        task.finish()
        world.worker.handle.end(None)
        assert [event async for event in task.events()] == []
        assert world.recorded == []
    assert world.recorded == used(999)


async def test_the_clients_own_rate_counts() -> None:
    world = World()
    async with world.service.open(
        RecognitionRequest(appkey="key", sample_rate=8_000, max_rate=8_000)
    ) as task:
        task.feed(tone(500, 8_000).tobytes())
    assert world.recorded == used(500)


async def test_who_leaves_has_used_what_was_heard() -> None:
    world = World()
    fed = asyncio.Event()

    async def client() -> None:
        async with world.service.open(REQUEST) as task:
            task.feed(tone(700).tobytes())
            fed.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(client())
    await fed.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert world.recorded == used(700)


async def test_a_task_that_fails_has_used_something_too() -> None:
    world = World()
    with pytest.raises(EngineFailed):
        async with world.service.open(REQUEST) as task:
            task.feed(tone(400).tobytes())
            world.worker.handle.end(EngineFailed())
            async for _ in task.events():
                pass
    assert world.recorded == used(400, failed=True)


async def test_bad_audio_is_a_failure() -> None:
    world = World()
    with pytest.raises(BadAudio):
        async with world.service.open(RecognitionRequest(appkey="key", max_audio_ms=100)) as task:
            try:
                task.feed(tone(300).tobytes())
            except AudioTooLong as error:
                raise error from None
    assert world.recorded == used(300, failed=True)


async def test_a_task_that_was_refused_is_not_recorded() -> None:
    world = World(refuses=Overloaded())
    with pytest.raises(Overloaded):
        async with world.service.open(REQUEST):
            pass
    assert world.recorded == []


@pytest.mark.parametrize(
    ("sent", "highest", "told"),
    [
        (16_000, None, 16_000),
        (16_000, 8_000, 8_000),
        (8_000, 16_000, 8_000),
        (48_000, 44_100, 44_100),
    ],
)
async def test_the_engine_hears_of_no_higher_rate_than_the_projects(
    sent: int, highest: int | None, told: int
) -> None:
    world = World()
    request = RecognitionRequest(sample_rate=sent, max_rate=highest)
    async with world.service.open(request) as task:
        task.feed(tone(100, sent).tobytes())
    assert [each.source_rate for each in world.worker.options] == [told]
    # What the decoded audio turns out to be changes nothing.
    assert not any(isinstance(each, SourceRate) for each in world.worker.messages)
