"""A recording on its way through the recogniser, channel by channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from app.core.errors import BadAudio, Overloaded, SpeechError
from app.core.speech import (
    RecognitionEvent,
    RecognitionRequest,
    SentenceBegan,
    SentenceChanged,
    SentenceEnded,
)
from app.services import files
from app.services.files import ChannelsHeard, FileSentence, recognise_file
from app.services.recognition import RecognitionService

AUDIO = bytes(range(256)) * 4


class Task:
    """Says what it heard when it has heard all; ``channels`` are known then."""

    audio_ms = 1_234

    def __init__(self, service: Service, channel: int | None) -> None:
        self._service = service
        self._channel = channel
        self._finished = asyncio.Event()
        self.audio = b""
        self.heard_as: dict[str, object] = {"audio": "wav", "channel": channel}

    @property
    def channels(self) -> int:
        return self._service.channels if self._finished.is_set() else 0

    async def feed_all(self, data: bytes) -> None:
        self._service.feeding(self._channel)
        await asyncio.sleep(0)
        self.audio += data

    def finish(self) -> None:
        self._finished.set()

    async def events(self) -> AsyncIterator[RecognitionEvent]:
        await self._finished.wait()
        assert self.audio == AUDIO
        start_ms = 100 * (self._channel or 0)
        yield SentenceBegan(start_ms)
        yield SentenceChanged("a", start_ms + 10)
        yield SentenceEnded(start_ms, start_ms + 500, f"a{self._channel}")
        yield SentenceEnded(start_ms + 1_000, start_ms + 1_500, f"b{self._channel}")


class Service:
    """Tasks one after the other."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.asked: list[int | None] = []
        self.open_now = 0
        self.full = -1  # the channel that is refused
        self.feeding: Callable[[int | None], None] = lambda channel: None

    @asynccontextmanager
    async def open(
        self, request: RecognitionRequest, *, max_file_bytes: int
    ) -> AsyncIterator[Task]:
        assert (request.task_id, max_file_bytes) == ("t", 5_000)
        self.asked.append(request.channel)
        if request.channel == self.full:
            raise Overloaded
        self.open_now += 1
        assert self.open_now == 1
        try:
            yield Task(self, request.channel)
        finally:
            self.open_now -= 1


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "_READ_BYTES", 100)
    file = tmp_path / "recording"
    file.write_bytes(AUDIO)
    return file


async def recognised(service: Service, path: Path, channels: ChannelsHeard) -> files.Transcript:
    try:
        return await recognise_file(
            cast(RecognitionService, service),
            path,
            RecognitionRequest(task_id="t"),
            channels,
            max_bytes=5_000,
        )
    finally:
        assert service.open_now == 0


@pytest.mark.parametrize(
    ("channels", "count", "asked"),
    [
        ("mixed", 2, [None]),
        ("first", 2, [0]),
        ("each", 1, [0]),
        ("each", 3, [0, 1, 2]),
        ("each", 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        ("each", 0, [0]),  # nothing came that could tell
    ],
)
async def test_the_channels_that_are_heard(
    path: Path, channels: ChannelsHeard, count: int, asked: list[int | None]
) -> None:
    service = Service(count)
    await recognised(service, path, channels)
    assert service.asked == asked


async def test_sentences_in_the_order_in_which_they_begin(path: Path) -> None:
    found = await recognised(Service(2), path, "each")
    assert found.sentences == (
        FileSentence(0, SentenceEnded(0, 500, "a0")),
        FileSentence(1, SentenceEnded(100, 600, "a1")),
        FileSentence(0, SentenceEnded(1_000, 1_500, "b0")),
        FileSentence(1, SentenceEnded(1_100, 1_600, "b1")),
    )
    assert found.audio_ms == 1_234
    assert found.heard_as == {"audio": "wav", "channel": 0}


async def test_all_channels_mixed_are_the_first(path: Path) -> None:
    found = await recognised(Service(2), path, "mixed")
    assert [each.channel for each in found.sentences] == [0, 0]


async def test_more_channels_than_can_be_heard_by_themselves(path: Path) -> None:
    service = Service(9)
    with pytest.raises(BadAudio, match="9 channels"):
        await recognised(service, path, "each")
    assert service.asked == [0]


async def test_a_later_channel_that_is_refused(path: Path) -> None:
    service = Service(3)
    service.full = 1
    with pytest.raises(Overloaded):
        await recognised(service, path, "each")
    assert service.asked == [0, 1]


async def test_bytes_that_cannot_be_decoded(path: Path) -> None:
    """As it is, not in a group; the reader of the events, who waits, is ended."""
    service, error = Service(1), BadAudio("no audio")

    def fail(channel: int | None) -> None:
        raise error

    service.feeding = fail
    with pytest.raises(SpeechError) as raised:
        await recognised(service, path, "mixed")
    assert raised.value is error


async def test_a_file_that_is_not_there(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await recognised(Service(1), path.with_name("gone"), "mixed")


async def test_who_is_cancelled_leaves_nothing(path: Path) -> None:
    service, feeding = Service(2), asyncio.Event()
    service.feeding = lambda channel: feeding.set() if channel == 1 else None
    running = asyncio.create_task(recognised(service, path, "each"))
    await feeding.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert service.open_now == 0
