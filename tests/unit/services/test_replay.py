"""Which audio a lost stream gets again, and where its events end up. Samples are numbered, so a
repetition tells its position."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import numpy as np
import pytest

from app.core.errors import EngineFailed, EngineLost, EngineUnavailable, Overloaded, SpeechError
from app.core.speech import (
    RecognitionEvent,
    RecognitionOptions,
    SentenceBegan,
    SentenceChanged,
    SentenceEnded,
    Word,
)
from app.services import replay
from app.services.losses import MAX_LOSSES
from app.services.replay import ReplayedRecognition
from app.serving.handles import RecognitionHandle
from app.serving.pool import Pool
from app.serving.protocol import Audio, Cancel, Configure, EndOfAudio, SourceRate

RATE = 16_000


class Worker:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.name = "worker"
        self.messages: list[Any] = []
        self.handle = RecognitionHandle(self, 1, RATE)
        self.handle.grant()

    def send(self, message: Any, *, within_s: float = 0.0) -> None:
        self.messages.append(message)

    def forget(self, number: int) -> None:
        pass

    @property
    def audio(self) -> np.ndarray[Any, np.dtype[np.int16]]:
        pcm = b"".join(each.pcm for each in self.messages if isinstance(each, Audio))
        return np.frombuffer(pcm, dtype=np.int16)

    def die(self) -> None:
        self.handle.end(EngineLost())


class World:
    """A stream on scripted workers."""

    def __init__(self, *, progress: bool = False) -> None:
        self.workers = [Worker()]
        self.refusals: list[SpeechError] = []
        self.unbalanced = False
        self.asked: asyncio.Future[None] | None = None  # what a grant waits for
        self.options: list[RecognitionOptions] = []
        self.stream = ReplayedRecognition(
            cast(Pool, self), RecognitionOptions(), "id", self.workers[0].handle
        )
        self.events: list[RecognitionEvent | int] = []
        self.reading = asyncio.create_task(self._read(progress))
        self._position = 0

    async def open_recognition(
        self, options: RecognitionOptions, log_id: str, *, accepted: bool = False
    ) -> RecognitionHandle:
        assert accepted
        if self.refusals:
            raise self.refusals.pop(0)
        self.options.append(options)
        self.workers.append(Worker())
        return self.workers[-1].handle

    async def move_recognition(
        self, options: RecognitionOptions, log_id: str, away_from: str, *, must: bool
    ) -> RecognitionHandle:
        assert away_from == "worker"
        assert must is not self.unbalanced
        if self.asked is not None:
            await self.asked
        return await self.open_recognition(options, log_id, accepted=True)

    def better_to_move(self, away_from: str) -> bool:
        return self.unbalanced

    async def _read(self, progress: bool) -> None:
        events: AsyncIterator[RecognitionEvent | int] = self.stream.events(progress=progress)
        async for event in events:
            self.events.append(event)

    def say(self, ms: int, frame: int = 1_600) -> None:
        """Send the next ``ms`` of numbered samples."""
        end = self._position + ms * RATE // 1000
        while self._position < end:
            count = min(frame, end - self._position)
            numbers = np.arange(self._position, self._position + count) % 30_000
            self.stream.send(numbers.astype(np.int16).tobytes())
            self._position += count

    def report(self, *events: RecognitionEvent, processed_ms: int = 0) -> None:
        """What the current worker says: events, and how far it is in its own stream."""
        handle = self.workers[-1].handle
        for event in events:
            handle.recognized(event)
        handle.processed(processed_ms * RATE // 1000 - handle.processed_samples)

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def move(self) -> int:
        """Kill the worker; where (ms) the repetition begins, checked to be complete."""
        await self.settle()
        count = len(self.workers)
        self.workers[-1].die()
        while len(self.workers) == count or not self.stream.has_credit:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.001)
        again = self.workers[-1].audio
        first = self._position - len(again)
        expected = np.arange(first, self._position) % 30_000
        assert np.array_equal(again, expected.astype(np.int16))
        assert first * 1000 % RATE == 0
        return first * 1000 // RATE


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    made.reading.cancel()
    await asyncio.gather(made.reading, return_exceptions=True)


async def test_silence_is_repeated_from_the_pre_roll(world: World) -> None:
    world.say(3_000)
    world.report(processed_ms=2_800)
    assert await world.move() == 2_400


async def test_what_was_not_looked_at_is_repeated_whole(world: World) -> None:
    world.say(2_000)
    world.report(processed_ms=100)
    assert await world.move() == 0


async def test_an_open_sentence_is_repeated_from_before_its_beginning(world: World) -> None:
    world.say(5_000)
    world.report(SentenceBegan(1_500), processed_ms=4_900)
    assert await world.move() == 1_100
    # Seen from the new worker, the sentence began 400 ms into its stream.
    world.report(SentenceBegan(400), SentenceChanged("go", 900, (Word("go", 400, 900),)))
    world.report(SentenceEnded(400, 2_000, "go on", (Word("on", 1_000, 2_000),)))
    await world.settle()
    assert world.events == [
        SentenceBegan(1_500),
        SentenceChanged("go", 2_000, (Word("go", 1_500, 2_000),)),
        SentenceEnded(1_500, 3_100, "go on", (Word("on", 2_100, 3_100),)),
    ]


async def test_what_was_final_is_not_repeated(world: World) -> None:
    world.say(2_000)
    world.report(SentenceBegan(500), SentenceEnded(500, 1_700, "done"), processed_ms=1_900)
    assert await world.move() == 1_700


async def test_a_sentence_that_began_soon_after_a_final_is_not_mixed_with_it(world: World) -> None:
    world.say(2_500)
    world.report(SentenceBegan(500), SentenceEnded(500, 1_700, "done"), SentenceBegan(1_900))
    world.report(processed_ms=2_400)
    assert await world.move() == 1_700


async def test_events_that_nobody_has_read_yet_keep_their_audio() -> None:
    world = World()
    world.reading.cancel()  # a client that reads slowly: its events wait
    await asyncio.gather(world.reading, return_exceptions=True)
    world.say(1_000)
    world.report(SentenceBegan(200), processed_ms=1_000)
    world.say(3_000)
    world.report(processed_ms=3_900)
    world.say(100)
    world.reading = asyncio.create_task(world._read(False))
    assert await world.move() == 0
    assert world.events == [SentenceBegan(200)]
    world.reading.cancel()


async def test_a_final_keeps_all_that_the_worker_said_of_it(world: World) -> None:
    said = SentenceEnded(100, 900, "text", (Word("text", 100, 900),), 0.5, "zh", "sad", ("music",))
    world.say(1_000)
    world.report(SentenceBegan(100), said, processed_ms=1_000)
    await world.settle()
    assert world.events[-1] == said


@pytest.mark.parametrize("frame", [160, 333, 1_600, 7_777])
async def test_a_repetition_begins_on_the_grid_whatever_the_frames(frame: int) -> None:
    world = World()
    world.say(3_000, frame)
    world.report(processed_ms=2_815)
    world.say(100, frame)
    assert await world.move() == 2_410
    world.report(processed_ms=300)
    world.say(50, frame)
    assert await world.move() == 2_410  # the first 400 ms are needed again
    world.report(processed_ms=605)
    world.say(50, frame)
    assert await world.move() == 2_610
    world.reading.cancel()


async def test_memory_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "LONGEST_KEPT_S", 2)
    world.say(5_000)
    await world.settle()
    assert await world.move() == 3_000


async def test_options_and_the_end_of_audio_are_repeated_too(world: World) -> None:
    world.say(500)
    world.stream.configure(3_000)
    world.stream.finish()
    await world.move()
    assert world.options[0].max_sentence_silence_ms == 3_000
    assert isinstance(world.workers[-1].messages[-1], EndOfAudio)
    assert not any(isinstance(message, Configure) for message in world.workers[-1].messages)


async def test_the_rate_of_the_source_is_told_once_and_repeated(world: World) -> None:
    world.stream.tell_source_rate(16_000)  # as the options say
    world.stream.tell_source_rate(8_000)
    world.say(500)
    world.stream.tell_source_rate(8_000)
    told = [each for each in world.workers[0].messages if not isinstance(each, Audio)]
    assert told == [SourceRate(1, 8_000)]
    assert isinstance(world.workers[0].messages[0], SourceRate)  # before the audio
    await world.move()
    assert world.options[0].source_rate == 8_000


async def test_it_waits_for_a_replica_with_room(world: World) -> None:
    world.refusals = [EngineUnavailable(), Overloaded(), EngineLost()]
    world.say(500)
    assert await world.move() == 0
    assert world.refusals == []


async def test_without_one_in_time_it_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MOVE_TIMEOUT_S", 0.0)
    world.refusals = [EngineUnavailable()]
    world.say(500)
    waiting = asyncio.create_task(_wait_after_the_end(world))
    world.workers[-1].die()
    with pytest.raises(EngineLost):
        await world.reading
    with pytest.raises(EngineLost):
        await waiting


async def _wait_after_the_end(world: World) -> None:
    while world.stream.has_credit:  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.001)
    await world.stream.wait_for_credit()


async def test_an_engine_that_fails_on_the_task_is_not_asked_again(world: World) -> None:
    world.say(500)
    world.workers[-1].handle.end(EngineFailed())
    with pytest.raises(EngineFailed):
        await world.reading
    assert len(world.workers) == 1


async def test_an_open_sentence_that_is_not_found_again_is_closed_with_its_last_text(
    world: World,
) -> None:
    world.say(2_000)
    world.report(SentenceBegan(500), SentenceChanged("hello", 900))
    await world.move()
    world.stream.finish()
    world.workers[-1].handle.end(None)
    await world.reading
    assert world.events[-1] == SentenceEnded(500, 2_000, "hello")


async def test_progress_goes_on_and_never_back() -> None:
    world = World(progress=True)
    world.say(3_000)
    world.report(processed_ms=2_000)
    await world.move()
    world.report(processed_ms=100)
    await world.settle()
    world.report(processed_ms=1_000)
    await world.settle()
    assert world.events == [32_000, 32_000 - 6_400 + 16_000]
    world.reading.cancel()


# Leaving a worker that lives


def _left(world: World) -> int:
    """Where (ms) the stream begins at its new worker; the old one has been told."""
    assert isinstance(world.workers[-2].messages[-1], Cancel)
    again = world.workers[-1].audio
    first = world._position - len(again)
    assert np.array_equal(again, (np.arange(first, world._position) % 30_000).astype(np.int16))
    return first * 1000 // RATE


async def test_a_silent_stream_leaves_a_worker_that_ends(world: World) -> None:
    world.say(3_000)
    world.report(processed_ms=2_800)
    world.workers[-1].handle.leave()
    await world.settle()
    assert _left(world) == 2_400
    assert world.events == []  # nobody asked for progress


async def test_a_sentence_is_not_moved_while_it_is_open(world: World) -> None:
    world.say(3_000)
    world.report(SentenceBegan(500), processed_ms=2_800)
    world.workers[-1].handle.leave()
    await world.settle()
    assert len(world.workers) == 1
    world.report(SentenceEnded(500, 2_000, "done"), SentenceBegan(2_300), processed_ms=2_900)
    await world.settle()
    # The next one had begun unread: it is heard anew, and what is final is not.
    assert _left(world) == 2_000
    assert world.events == [SentenceBegan(500), SentenceEnded(500, 2_000, "done")]


async def test_a_stream_stays_where_it_is_while_there_is_no_other_place() -> None:
    world = World(progress=True)
    world.refusals = [Overloaded(), EngineUnavailable()]
    world.say(3_000)
    world.workers[-1].handle.leave()
    processed_ms = 0
    while len(world.workers) == 1:
        processed_ms += 10
        world.report(processed_ms=processed_ms)
        await asyncio.sleep(0.01)
    await world.settle()
    assert world.refusals == []
    assert _left(world) == max(processed_ms - 400, 0)
    assert world.events == list(range(160, processed_ms * 16 + 1, 160))  # it was served meanwhile
    world.reading.cancel()


async def test_it_moves_for_balance_only_after_a_sentence(world: World) -> None:
    world.unbalanced = True
    world.say(2_000)
    world.report(SentenceBegan(500), SentenceChanged("do", 900), processed_ms=1_000)
    await world.settle()
    assert len(world.workers) == 1
    world.report(SentenceEnded(500, 1_200, "done"), processed_ms=1_500)
    await world.settle()
    assert _left(world) == 1_200


async def test_what_comes_while_a_worker_is_asked_is_not_lost(world: World) -> None:
    world.asked = asyncio.get_running_loop().create_future()
    world.say(2_000)
    world.workers[-1].handle.leave()
    await world.settle()
    world.say(1_000)
    world.stream.configure(2_000)
    world.stream.tell_source_rate(8_000)
    world.report(SentenceBegan(300), processed_ms=2_500)  # of the old worker: heard anew
    world.asked.set_result(None)
    await world.settle()
    assert _left(world) == 0
    assert [each for each in world.workers[-1].messages if isinstance(each, Configure)] == [
        Configure(1, 2_000)
    ]
    assert SourceRate(1, 8_000) in world.workers[-1].messages
    assert world.events == []


async def test_a_stream_that_ended_meanwhile_stays(world: World) -> None:
    world.asked = asyncio.get_running_loop().create_future()
    world.say(500)
    world.workers[-1].handle.leave()
    await world.settle()
    world.stream.finish()
    world.asked.set_result(None)
    await world.settle()
    assert isinstance(world.workers[-1].messages[-1], Cancel)
    world.workers[0].handle.end(None)
    await world.reading


async def test_a_feeder_that_waits_for_the_old_worker_goes_on(world: World) -> None:
    for _ in range(6):
        world.say(1_000)
    waiting = asyncio.create_task(world.stream.wait_for_credit())
    await world.settle()
    assert not waiting.done()
    world.workers[-1].handle.leave()
    await world.settle()
    world.workers[-1].handle.processed(6 * RATE)
    await waiting


async def test_the_new_worker_dies_at_once(world: World) -> None:
    for _ in range(6):
        world.say(1_000)
    world.workers[-1].handle.leave()
    await world.settle()
    assert len(world.workers) == 2
    assert not world.stream.has_credit  # it is in the midst of the repetition
    world.workers[1].die()
    while len(world.workers) == 2:  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.001)
    world.workers[-1].handle.processed(6 * RATE)
    await world.stream.wait_for_credit()
    assert len(world.workers[-1].audio) == 6 * RATE


async def test_a_stream_that_kills_its_workers_does_not_go_round_for_ever(world: World) -> None:
    world.say(2_000)
    world.report(processed_ms=1_000)
    for _ in range(MAX_LOSSES):
        await world.move()
        world.report(processed_ms=100)  # of 1,400 ms that it got again
    world.workers[-1].die()
    with pytest.raises(EngineLost):
        await world.reading
    assert len(world.workers) == 1 + MAX_LOSSES


async def test_losses_do_not_count_while_the_stream_gets_on(world: World) -> None:
    for _ in range(3 * MAX_LOSSES):
        world.say(500)
        world.report(processed_ms=len(world.workers[-1].audio) * 1000 // RATE)
        await world.move()
    assert not world.reading.done()
