"""Choosing a replica, on real Unix sockets with scripted workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import EngineFailed, EngineUnavailable, NotOffered, Overloaded, UnknownVoice
from app.core.speech import (
    RecognitionEvent,
    RecognitionOptions,
    SentenceBegan,
    SentenceChanged,
    SentenceEnded,
    Utterance,
)
from app.engines.base import RecognizerCapabilities, SynthesizerCapabilities
from app.serving import handles
from app.serving.link import Link
from app.serving.pool import Pool
from app.serving.protocol import (
    PROTOCOL_VERSION,
    Audio,
    Cancel,
    Credit,
    Done,
    Granted,
    Hello,
    Leaving,
    Load,
    OpenRecognition,
    OpenSynthesis,
    Processed,
    Recognized,
    Refused,
    Speech,
    ToWorker,
)
from app.serving.replica import Replica

RECOGNIZER = RecognizerCapabilities(
    sample_rate=16_000, languages=("en-US",), step_ms=100, partials=True, word_times=False,
    own_endpointing=True, max_sessions=10, max_sentences=10,
)  # fmt: skip
SYNTHESIZER = SynthesizerCapabilities(sample_rate=24_000, languages=("en-US",), voices=())


class ScriptedWorker:
    """Greets, keeps what it is told, and answers as a test says."""

    def __init__(
        self,
        role: str,
        refuse: str | None = None,
        version: int = PROTOCOL_VERSION,
        model: str = "",
    ):
        self.role = role
        self.model = model
        self.refuse = refuse
        self.version = version
        self.silent = False
        self.messages: list[Any] = []
        self.links: list[Link] = []
        self.arrived = asyncio.Event()

    def connect(self) -> Link:
        worker = self

        class Greeting(Link):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                worker.links.append(self)
                asr = worker.role == "asr"
                self.send(Hello(
                    worker.version, "w", "asr" if asr else "tts", "test", "cpu", 10,
                    recognizer=RECOGNIZER if asr else None,
                    synthesizer=None if asr else SYNTHESIZER,
                ))  # fmt: skip

        return Greeting(ToWorker, self.take, lambda: None)

    def take(self, message: Any) -> None:
        self.messages.append(message)
        self.arrived.set()
        if isinstance(message, OpenRecognition | OpenSynthesis) and not self.silent:
            if self.refuse is not None:
                self.links[-1].send(Refused(message.task, self.refuse, ""))
            else:
                self.links[-1].send(Granted(message.task))

    async def told(self, kind: type) -> Any:
        while not any(isinstance(message, kind) for message in self.messages):
            self.arrived.clear()
            await self.arrived.wait()
        return next(message for message in self.messages if isinstance(message, kind))


@asynccontextmanager
async def pool_of(folder: Path, *workers: ScriptedWorker) -> AsyncIterator[Pool]:
    async with AsyncExitStack() as stack:
        replicas = []
        for index, worker in enumerate(workers):
            path = str(folder / f"{index}.sock")
            server = await asyncio.get_running_loop().create_unix_server(worker.connect, path)
            stack.callback(server.close)
            role: Any = worker.role
            replicas.append(Replica(f"{worker.role}-{index}", role, path, worker.model))
        pool = Pool(replicas, ready_timeout_s=5.0)
        await stack.enter_async_context(pool.running())
        for each, worker in zip(replicas, workers, strict=True):
            if worker.version == PROTOCOL_VERSION:
                await each.ready.wait()
        yield pool


OPTIONS = RecognitionOptions()


async def test_the_lightest_replica_is_asked_first(tmp_path: Path) -> None:
    busy, idle = ScriptedWorker("asr"), ScriptedWorker("asr")
    async with pool_of(tmp_path, busy, idle) as pool:
        busy.links[0].send(Load(5))
        while pool.status("asr")[0].active != 5:  # noqa: ASYNC110 - told by a socket
            await asyncio.sleep(0.001)
        handle = await pool.open_recognition(OPTIONS, "id")
        assert [type(message) for message in idle.messages] == [OpenRecognition]
        assert busy.messages == []
        handle.cancel()
        assert (await idle.told(Cancel)).task == handle.number


async def loaded(pool: Pool, worker: ScriptedWorker, index: int, active: int) -> None:
    """``worker`` says that it has so many tasks."""
    worker.links[0].send(Load(active))
    while pool.status("asr")[index].active != active:  # noqa: ASYNC110 - told by a socket
        await asyncio.sleep(0.001)


def started(pool: Pool, index: int, seconds_ago: float) -> None:
    """A replica has been ready for so long."""
    now = asyncio.get_running_loop().time()
    pool._replicas[index].ready_since = now - seconds_ago


async def test_tasks_of_the_same_moment_are_spread(tmp_path: Path) -> None:
    workers = [ScriptedWorker("asr"), ScriptedWorker("asr")]
    async with pool_of(tmp_path, *workers) as pool:
        for index in range(2):
            started(pool, index, 60)
        await asyncio.gather(*(pool.open_recognition(OPTIONS, "id") for _ in range(8)))
        assert [len(worker.messages) for worker in workers] == [4, 4]


async def test_a_replica_that_has_just_started_gets_less(tmp_path: Path) -> None:
    new, old = ScriptedWorker("asr"), ScriptedWorker("asr")
    async with pool_of(tmp_path, new, old) as pool:
        started(pool, 0, 0)
        started(pool, 1, 60)
        await loaded(pool, old, 1, 4)
        await pool.open_recognition(OPTIONS, "id")
        assert (len(new.messages), len(old.messages)) == (0, 1)
        started(pool, 0, 60)
        await pool.open_recognition(OPTIONS, "id")
        assert (len(new.messages), len(old.messages)) == (1, 1)


async def test_a_replica_that_leaves_gets_nothing_and_its_streams_are_told(tmp_path: Path) -> None:
    leaving, other = ScriptedWorker("asr"), ScriptedWorker("asr")
    async with pool_of(tmp_path, leaving, other) as pool:
        await loaded(pool, other, 1, 9)
        handle = await pool.open_recognition(OPTIONS, "id")
        assert handle.replica.name == "asr-0"
        leaving.links[0].send(Leaving())
        told = aiter(handle.events(progress=False))
        assert await asyncio.wait_for(anext(told), 5) == 0
        assert handle.should_leave
        assert [each.ready for each in pool.status("asr")] == [False, True]
        assert (await pool.open_recognition(OPTIONS, "id")).replica.name == "asr-1"
        assert pool.recognizer() is not None


async def test_a_stream_moves_away_from_its_replica_or_not_at_all(tmp_path: Path) -> None:
    here, there = ScriptedWorker("asr"), ScriptedWorker("asr", refuse="Overloaded")
    async with pool_of(tmp_path, here, there) as pool:
        with pytest.raises(Overloaded):
            await pool.move_recognition(OPTIONS, "id", "asr-0", must=False)
        assert here.messages == []
        there.refuse = None
        moved = await pool.move_recognition(OPTIONS, "id", "asr-0", must=False)
        assert moved.replica.name == "asr-1"


async def test_streams_move_to_a_clearly_lighter_replica_one_at_a_time(tmp_path: Path) -> None:
    heavy, light = ScriptedWorker("asr"), ScriptedWorker("asr")
    async with pool_of(tmp_path, heavy, light) as pool:
        for index in range(2):
            started(pool, index, 60)
        await loaded(pool, heavy, 0, 5)
        await loaded(pool, light, 1, 3)
        assert not pool.better_to_move("asr-0")  # 4 and 4 is hardly better
        await loaded(pool, light, 1, 1)
        assert not pool.better_to_move("asr-1")
        assert pool.better_to_move("asr-0")
        assert not pool.better_to_move("asr-0")  # the next one a little later
        pool._next_move = 0.0
        started(pool, 1, 1)
        assert not pool.better_to_move("asr-0")  # it has just started


async def test_refused_only_when_all_said_full(tmp_path: Path) -> None:
    full, room = ScriptedWorker("asr", refuse="Overloaded"), ScriptedWorker("asr")
    async with pool_of(tmp_path, full, room) as pool:
        handle = await pool.open_recognition(OPTIONS, "id")
        assert handle.replica.name == "asr-1"
        room.refuse = "Overloaded"
        with pytest.raises(Overloaded):
            await pool.open_recognition(OPTIONS, "id")


async def test_what_the_engine_says_of_the_request_is_not_tried_elsewhere(tmp_path: Path) -> None:
    first, second = (ScriptedWorker("tts", refuse="UnknownVoice") for _ in range(2))
    async with pool_of(tmp_path, first, second) as pool:
        with pytest.raises(UnknownVoice):
            await pool.open_synthesis(Utterance(text="a", voice="b"), "id")
        assert len(first.messages) + len(second.messages) == 1


async def test_an_unknown_error_shows_nothing(tmp_path: Path) -> None:
    async with pool_of(tmp_path, ScriptedWorker("asr", refuse="KeyError")) as pool:
        with pytest.raises(EngineFailed) as failed:
            await pool.open_recognition(OPTIONS, "id")
    assert failed.value.text == EngineFailed.default_text


async def test_a_replica_that_is_not_ready_in_time_is_unavailable(tmp_path: Path) -> None:
    pool = Pool([Replica("asr-0", "asr", str(tmp_path / "none.sock"))], ready_timeout_s=0.01)
    assert pool.roles == ["asr"]
    with pytest.raises(EngineUnavailable):
        await pool.open_recognition(OPTIONS, "id")


async def test_what_no_replica_does_is_not_offered(tmp_path: Path) -> None:
    pool = Pool([Replica("asr-0", "asr", str(tmp_path / "none.sock"))])
    with pytest.raises(NotOffered, match="no synthesis"):
        await pool.open_synthesis(Utterance(text="a", voice="b"), "id")


async def test_a_silent_worker_is_given_up_and_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "OPEN_TIMEOUT_S", 0.02)
    silent, well = ScriptedWorker("asr"), ScriptedWorker("asr")
    silent.silent = True
    async with pool_of(tmp_path, silent, well) as pool:
        handle = await pool.open_recognition(OPTIONS, "id")
        assert handle.replica.name == "asr-1"
        await silent.told(Cancel)


async def test_a_worker_that_dies_while_it_is_asked_is_a_delay(tmp_path: Path) -> None:
    worker = ScriptedWorker("asr")
    worker.silent = True
    async with pool_of(tmp_path, worker) as pool:
        opening = asyncio.ensure_future(pool.open_recognition(OPTIONS, "id"))
        await worker.told(OpenRecognition)
        worker.silent = False
        worker.links[0].close()
        handle = await opening
        assert len(worker.links) == 2
        handle.cancel()


async def test_another_protocol_version_is_not_used(tmp_path: Path) -> None:
    async with pool_of(tmp_path, ScriptedWorker("asr", version=99), ScriptedWorker("asr")) as pool:
        handle = await pool.open_recognition(OPTIONS, "id")
        assert handle.replica.name == "asr-1"


async def test_feeding_waits_for_credit(tmp_path: Path) -> None:
    worker = ScriptedWorker("asr")
    async with pool_of(tmp_path, worker) as pool:
        handle = await pool.open_recognition(OPTIONS, "id")
        second = b"\0" * 32_000
        for _ in range(5):
            assert handle.has_credit
            handle.send(second)
        more = asyncio.ensure_future(handle.wait_for_credit())
        await worker.told(Audio)
        assert not more.done()
        worker.links[0].send(Processed(handle.number, 16_000))
        await more
        assert sum(isinstance(message, Audio) for message in worker.messages) >= 5


async def test_only_the_newest_hypothesis_waits_and_finals_stay(tmp_path: Path) -> None:
    worker = ScriptedWorker("asr")
    async with pool_of(tmp_path, worker) as pool:
        handle = await pool.open_recognition(OPTIONS, "id")
        events: list[RecognitionEvent] = [
            SentenceBegan(0), SentenceChanged("a", 1), SentenceChanged("ab", 2),
            SentenceEnded(0, 3, "abc"), SentenceBegan(4), SentenceEnded(4, 5, "d"),
        ]  # fmt: skip
        for event in events:
            worker.links[0].send(Recognized(handle.number, event))
        worker.links[0].send(Done(handle.number))
        while not handle._done:  # noqa: ASYNC110 - told by a socket
            await asyncio.sleep(0.001)
        got = [event async for event in handle.events(progress=False)]
    assert got == [events[0], *events[2:]]


async def test_taking_a_piece_returns_its_credit(tmp_path: Path) -> None:
    worker = ScriptedWorker("tts")
    async with pool_of(tmp_path, worker) as pool:
        handle = await pool.open_synthesis(Utterance(text="a", voice="b"), "id")
        for _ in range(2):
            worker.links[0].send(Speech(handle.number, b"\0\0" * 100))
        worker.links[0].send(Done(handle.number))
        pieces = [pcm async for pcm, _ in handle.pieces()]
        assert pieces == [b"\0\0" * 100] * 2
        assert (await worker.told(Credit)).samples == 100


async def test_a_lost_worker_fails_its_tasks_and_is_connected_again(tmp_path: Path) -> None:
    worker = ScriptedWorker("asr")
    async with pool_of(tmp_path, worker) as pool:
        handle = await pool.open_recognition(OPTIONS, "id")
        worker.links[0].close()
        with pytest.raises(EngineFailed):
            async for _ in handle.events(progress=False):
                pass
        with pytest.raises(EngineFailed):
            await handle.wait_for_credit()
        again = await pool.open_recognition(OPTIONS, "id")
        assert len(worker.links) == 2
        again.cancel()


async def test_a_stream_that_ran_before_has_a_claim(tmp_path: Path) -> None:
    worker = ScriptedWorker("asr")
    async with pool_of(tmp_path, worker) as pool:
        await pool.open_recognition(OPTIONS, "id")
        await pool.open_recognition(OPTIONS, "id", accepted=True)
        assert [message.accepted for message in worker.messages] == [False, True]


async def test_what_is_free_beside_a_crowded_replica_is_not_for_new_streams(
    tmp_path: Path,
) -> None:
    crowded, back = ScriptedWorker("asr"), ScriptedWorker("asr")
    async with pool_of(tmp_path, crowded, back) as pool:
        await loaded(pool, crowded, 0, 20)  # of 10; it took in those of the other one
        with pytest.raises(Overloaded):
            await pool.open_recognition(OPTIONS, "id")
        assert back.messages == []
        await loaded(pool, crowded, 0, 15)
        assert (await pool.open_recognition(OPTIONS, "id")).replica.name == "asr-1"


async def test_a_replica_that_does_not_answer_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "OPEN_TIMEOUT_S", 0.05)
    mute, busy = ScriptedWorker("asr"), ScriptedWorker("asr")
    mute.silent = True
    async with pool_of(tmp_path, mute, busy) as pool:
        for index in range(2):
            started(pool, index, 60)
        await loaded(pool, busy, 1, 5)
        assert (await pool.open_recognition(OPTIONS, "id")).replica.name == "asr-1"
        asked = len(mute.messages)
        for _ in range(3):
            assert (await pool.open_recognition(OPTIONS, "id")).replica.name == "asr-1"
        assert len(mute.messages) == asked
        assert not pool.better_to_move("asr-1")
        mute.silent = False
        await loaded(pool, mute, 0, 1)  # it speaks again
        assert pool.better_to_move("asr-1")
        assert (await pool.open_recognition(OPTIONS, "id")).replica.name == "asr-0"


# Several models

TELEPHONE = RecognitionOptions(model="telephone")


def own_and_telephone() -> tuple[ScriptedWorker, ScriptedWorker]:
    return ScriptedWorker("asr"), ScriptedWorker("asr", model="telephone")


async def test_a_task_runs_at_its_own_model(tmp_path: Path) -> None:
    own, telephone = own_and_telephone()
    async with pool_of(tmp_path, own, telephone) as pool:
        for _ in range(3):
            assert (await pool.open_recognition(TELEPHONE, "id")).replica.name == "asr-1"
            assert (await pool.open_recognition(OPTIONS, "id")).replica.name == "asr-0"
        assert [each.model for each in pool.status("asr")] == ["", "telephone"]


async def test_a_full_model_does_not_overflow_into_another(tmp_path: Path) -> None:
    own, telephone = own_and_telephone()
    telephone.refuse = "Overloaded"
    async with pool_of(tmp_path, own, telephone) as pool:
        with pytest.raises(Overloaded):
            await pool.open_recognition(TELEPHONE, "id")
        telephone.refuse = None
        await loaded(pool, own, 0, 20)  # of 10: its own new streams are refused, others' are not
        with pytest.raises(Overloaded):
            await pool.open_recognition(OPTIONS, "id")
        assert (await pool.open_recognition(TELEPHONE, "id")).replica.name == "asr-1"
        assert own.messages == []


async def test_a_stream_never_moves_to_another_model(tmp_path: Path) -> None:
    workers = own_and_telephone()
    async with pool_of(tmp_path, *workers) as pool:
        for index in range(2):
            started(pool, index, 60)
        await loaded(pool, workers[1], 1, 9)
        assert not pool.better_to_move("asr-1")
        for must in (False, True):
            with pytest.raises(EngineUnavailable):
                await pool.move_recognition(TELEPHONE, "id", "asr-1", must=must)
        assert workers[0].messages == []


async def test_a_stream_moves_within_its_model(tmp_path: Path) -> None:
    own, heavy = own_and_telephone()
    light = ScriptedWorker("asr", model="telephone")
    async with pool_of(tmp_path, own, heavy, light) as pool:
        for index in range(3):
            started(pool, index, 60)
        await loaded(pool, heavy, 1, 9)
        assert pool.better_to_move("asr-1")
        moved = await pool.move_recognition(TELEPHONE, "id", "asr-1", must=False)
        assert moved.replica.name == "asr-2"


async def test_an_unknown_model_is_not_offered(tmp_path: Path) -> None:
    async with pool_of(tmp_path, *own_and_telephone()) as pool:
        with pytest.raises(NotOffered, match="no recognition model 'other'"):
            await pool.open_recognition(RecognitionOptions(model="other"), "id")


async def test_ready_means_every_model(tmp_path: Path) -> None:
    own, telephone = own_and_telephone()
    async with pool_of(tmp_path, own, telephone) as pool:
        assert pool.ready("asr")
        assert not pool.ready("tts")
        telephone.links[0].send(Leaving())
        while pool.status("asr")[1].ready:  # noqa: ASYNC110 - told by a socket
            await asyncio.sleep(0.001)
        assert not pool.ready("asr")
        await pool.wait_ready("asr")  # its own model is
