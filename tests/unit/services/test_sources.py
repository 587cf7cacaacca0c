"""A client's bytes on their way to a listener, with the decode process played by the test."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import numpy as np
import pytest

from app.audio.decode import open_decoder
from app.audio.pcm import Int16
from app.audio.sniff import FILES, STREAMING, Kind
from app.core.errors import (
    AudioTooLong,
    BadAudio,
    EngineFailed,
    EngineLost,
    SpeechError,
    UnsupportedSampleRate,
)
from app.core.speech import RecognitionRequest
from app.services.sources import LocalSource, RemoteSource, open_source
from app.serving.decoding.client import Decoding, DecodingTask, Undecoded

RATE = 16_000


class Ear:
    """A listener that notes what it is told; its credit is given by the test."""

    def __init__(self, credit: int = 1_000) -> None:
        self.notes: list[object] = []
        self.waiting = asyncio.Event()
        self.heard_one = asyncio.Event()
        self.lost: SpeechError | None = None
        self.breaks: Exception | None = None
        self._credit = credit
        self._changed = asyncio.Event()

    @property
    def has_credit(self) -> bool:
        return self._credit > 0

    async def wait_for_credit(self) -> None:
        while not self._credit and self.lost is None:
            self.waiting.set()
            self._changed.clear()
            await self._changed.wait()
        if self.lost is not None:
            raise self.lost

    def allow(self, credit: int) -> None:
        self._credit += credit
        self.waiting.clear()
        self._changed.set()

    def lose(self, error: SpeechError) -> None:
        self.lost = error
        self._changed.set()

    def heard(self, samples: Int16, sample_rate: int) -> None:
        if self.breaks is not None:
            raise self.breaks
        self._credit -= 1
        self.notes.append((samples.tolist(), sample_rate))
        self.heard_one.set()

    def ended(self) -> None:
        self.notes.append("ended")

    def failed(self, error: SpeechError) -> None:
        self.notes.append(error)


class Remote:
    """A task of the decode process. ``answers``: blocks of one sample, by its value, or the error
    that ends them; without an error they end after the last one, unless ``open_ended``."""

    log_id = "t"

    def __init__(self, *answers: int | Exception, open_ended: bool = False) -> None:
        self.sent: list[object] = []
        self.given: list[int] = []
        self.left = asyncio.Event()
        self.has_room = True
        self._answers = answers
        self._open_ended = open_ended

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def finish(self) -> None:
        self.sent.append("finish")

    def cancel(self) -> None:
        self.sent.append("cancel")

    async def wait_for_room(self) -> None:
        self.sent.append("wait")

    async def blocks(self) -> AsyncIterator[tuple[Int16, int]]:
        try:
            for answer in self._answers:
                if isinstance(answer, Exception):
                    raise answer
                self.given.append(answer)
                yield np.array([answer], np.int16), RATE
            if self._open_ended:
                await asyncio.Event().wait()
        finally:
            self.left.set()


@asynccontextmanager
async def passing_on(remote: Remote, ear: Ear) -> AsyncIterator[RemoteSource]:
    source = RemoteSource(cast(DecodingTask, remote), ear)
    try:
        yield source
    finally:
        await source.close()


async def test_what_is_decoded_here_arrives_at_once() -> None:
    ear = Ear()
    source = LocalSource(open_decoder("pcm", 8_000), ear)
    source.feed(b"\1\0\2")
    source.feed(b"\0")
    source.finish()
    assert ear.notes == [([1], 8_000), ([2], 8_000), "ended"]


async def test_nothing_is_heard_of_no_samples() -> None:
    ear = Ear()
    source = LocalSource(open_decoder("pcm", RATE), ear)
    source.feed(b"\1")
    source.finish()
    assert ear.notes == ["ended"]


async def test_room_here_is_the_listeners_credit() -> None:
    ear = Ear(credit=1)
    source = LocalSource(open_decoder("pcm", RATE), ear)
    assert source.has_room
    source.feed(b"\1\0")
    assert not source.has_room
    waiting = asyncio.create_task(source.wait_for_room())
    await ear.waiting.wait()
    assert not waiting.done()
    ear.allow(1)
    await waiting
    assert source.has_room


async def test_bytes_go_to_the_decode_process_and_room_is_its_own() -> None:
    remote, ear = Remote(open_ended=True), Ear(credit=0)
    async with passing_on(remote, ear) as source:
        assert source.has_room  # the listener's credit is another matter
        source.feed(b"a")
        await source.wait_for_room()
        source.feed(b"b")
        source.finish()
        assert remote.sent == [b"a", "wait", b"b", "finish"]
        remote.has_room = False
        assert not source.has_room


async def test_samples_wait_for_a_listener_that_is_behind() -> None:
    remote, ear = Remote(1, 2, 3), Ear(credit=1)
    async with passing_on(remote, ear):
        await ear.waiting.wait()
        assert ear.notes == [([1], RATE)]
        # Only the one in hand was taken: the rest is the decode process' credit.
        assert remote.given == [1, 2]
        ear.allow(1)
        await ear.waiting.wait()
        assert remote.given == [1, 2, 3]
        ear.allow(1)
        await remote.left.wait()
    assert ear.notes == [([1], RATE), ([2], RATE), ([3], RATE), "ended"]


async def test_an_error_of_the_decoder_comes_behind_the_samples_before_it() -> None:
    error = BadAudio("no audio")
    ear = Ear()
    async with passing_on(remote := Remote(1, error), ear):
        await remote.left.wait()
    assert ear.notes == [([1], RATE), error]


@pytest.mark.parametrize("error", [AudioTooLong.lasting(1_000), EngineLost()])
async def test_an_error_of_the_listener_while_passing_on(error: SpeechError) -> None:
    ear = Ear()
    ear.breaks = error
    remote = Remote(1, 2)
    source = RemoteSource(cast(DecodingTask, remote), ear)
    await asyncio.wait([source._passing_on])
    assert ear.notes == [error]
    assert remote.given == [1]
    await source.close()


async def test_a_listener_that_fails_while_it_is_waited_for() -> None:
    error = EngineLost()
    remote, ear = Remote(1, 2), Ear(credit=0)
    source = RemoteSource(cast(DecodingTask, remote), ear)
    await ear.waiting.wait()
    ear.lose(error)
    await asyncio.wait([source._passing_on])
    assert ear.notes == [error]
    await source.close()


async def test_a_mistake_of_ours_shows_nothing_to_the_client() -> None:
    ear = Ear()
    ear.breaks = RuntimeError("internal")
    source = RemoteSource(cast(DecodingTask, Remote(1)), ear)
    await asyncio.wait([source._passing_on])
    (error,) = ear.notes
    assert isinstance(error, EngineFailed) and "internal" not in error.text
    await source.close()


@pytest.mark.parametrize("credit", [0, 1])
async def test_closing_in_the_middle_leaves_nothing(credit: int) -> None:
    """While it waits for the listener, and while it waits for the decode process."""
    remote, ear = Remote(1, open_ended=True), Ear(credit)
    source = RemoteSource(cast(DecodingTask, remote), ear)
    await (ear.heard_one if credit else ear.waiting).wait()
    before = list(ear.notes)
    await source.close()
    assert source._passing_on.done()
    assert remote.sent == ["cancel"]
    ear.allow(10)
    await asyncio.sleep(0)
    assert ear.notes == before == [([1], RATE)] * credit
    await source.close()  # again: harmless


class Decoders:
    def __init__(self) -> None:
        self.opened: list[Undecoded] = []

    def open(self, what: Undecoded) -> DecodingTask:
        self.opened.append(what)
        return cast(DecodingTask, Remote())


@pytest.mark.parametrize("kind", sorted(STREAMING | FILES))
async def test_only_files_have_a_limit_of_bytes(kind: Kind) -> None:
    request = RecognitionRequest(sample_rate=8_000, max_audio_ms=5_000, channel=1, task_id="t")
    decoders = Decoders()
    source = open_source(kind, request, Ear(), cast(Decoding, decoders), 1_000)
    await source.close()
    assert decoders.opened == [
        Undecoded(
            kind=kind,
            is_file=kind in FILES,
            sample_rate=8_000,
            max_bytes=1_000 if kind in FILES else None,
            max_audio_ms=5_000,
            log_id="t",
            channel=1,
        )
    ]


async def test_the_channel_that_is_asked_for_is_heard() -> None:
    ear, decoders = Ear(), cast(Decoding, Decoders())
    stereo = np.array([[1, 10], [2, 20]], np.int16)
    source = open_source(Kind.WAV, RecognitionRequest(channel=1), ear, decoders, 1)
    assert source.channels == 0
    source.feed(encoded_wav(stereo))
    source.finish()
    assert ear.notes == [([10, 20], RATE), "ended"]
    assert source.channels == 2


def encoded_wav(samples: Int16) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as header:
        header.setnchannels(samples.shape[1])
        header.setsampwidth(2)
        header.setframerate(RATE)
        header.writeframes(samples.tobytes())
    return file.getvalue()


async def test_pcm_stays_here() -> None:
    decoders = Decoders()
    source = open_source(Kind.PCM, RecognitionRequest(), Ear(), cast(Decoding, decoders), 1)
    assert isinstance(source, LocalSource) and not decoders.opened
    with pytest.raises(UnsupportedSampleRate):
        open_source(Kind.PCM, RecognitionRequest(sample_rate=1), Ear(), cast(Decoding, decoders), 1)
