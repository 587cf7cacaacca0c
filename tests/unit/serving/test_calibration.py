"""A worker measures how many streams its device carries: the fake engine on a clock of its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from app.core.errors import EngineNotUsable
from app.core.speech import RecognitionEvent, RecognitionOptions
from app.engines.base import (
    Feed,
    OfflineRecognizer,
    RecognizerCapabilities,
    RecognizerParts,
    SentenceRecognizer,
)
from app.engines.fake.options import FakeOptions
from app.engines.fake.recognizer import FakeRecognizer
from app.serving.scheduling import LatestStart
from app.serving.worker import server
from app.serving.worker.calibration import (
    MAX_SECONDS,
    OFFLINE_STREAMS,
    SEED_STREAMS,
    carried,
    measure,
    speechlike,
    streaming_part,
)
from app.serving.worker.server import WorkerServer
from app.serving.worker.stepper import Stepper


class Clock:
    """Seconds that only a step makes pass."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Engine(FakeRecognizer):
    """The fake engine, with chunks of 600 ms; its first step of each size takes longer."""

    def __init__(
        self, fixed_ms: float = 40, per_stream_ms: float = 20, **capabilities: bool | int | None
    ) -> None:
        self.clock = Clock()
        options = FakeOptions(asr_delay_ms=fixed_ms, asr_item_ms=per_stream_ms)
        super().__init__(options, sleep=self.clock.sleep)
        self._other = {"step_ms": 600, "max_sessions": None, "max_sentences": 256} | capabilities
        self.sizes: list[int] = []
        self.open_now = 0
        self.most_open = 0
        self.threads: set[str] = set()
        self.fails_at = 0
        self.answers_error_at = 0

    @property
    def capabilities(self) -> RecognizerCapabilities:
        return msgspec.structs.replace(super().capabilities, **self._other)

    def open(self, options: RecognitionOptions) -> object:
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        return super().open(options)

    def close(self, stream: object) -> None:
        self.open_now -= 1
        super().close(stream)

    def step(self, batch: Sequence[Feed]) -> list[list[RecognitionEvent]]:
        assert len({id(feed.stream) for feed in batch}) == len(batch)
        assert all(len(feed.samples) == 9_600 and not feed.last for feed in batch)
        self.threads.add(threading.current_thread().name)
        if len(batch) == self.fails_at:
            raise MemoryError("all of it")
        if len(batch) not in self.sizes:
            self.clock.sleep(0.1)
        self.sizes.append(len(batch))
        answers = super().step(batch)
        if len(batch) == self.answers_error_at:
            cast("list[Any]", answers)[0] = ValueError("not this one")
        return answers


def told(_: str) -> None:
    """A progress that nobody listens to."""


def sizes(engine: Engine) -> list[int]:
    return sorted(set(engine.sizes))


def test_measures_ever_larger_batches_until_one_takes_too_long() -> None:
    engine = Engine()
    progress: list[str] = []
    measured = measure(engine, 256, progress.append, engine.clock)
    assert dict(measured) == pytest.approx({n: 0.04 + 0.02 * n for n in (1, 2, 4, 8, 16, 32)})
    assert progress == [f"calibrating: batch {n}" for n in (1, 2, 4, 8, 16, 32)]
    assert engine.open_now == 0  # all slots are free again
    assert engine.most_open == 32


@pytest.mark.parametrize(
    ("capabilities", "most", "largest"),
    [
        ({"max_sentences": 12}, 256, [1, 2, 4, 8, 12]),
        ({"max_batch": 4}, 256, [1, 2, 4]),
        ({"max_batch": 1}, 256, [1]),
        ({}, 3, [1, 2, 3]),
    ],
)
def test_never_more_streams_than_the_engine_takes(
    capabilities: dict[str, int], most: int, largest: list[int]
) -> None:
    engine = Engine(**capabilities)
    measure(engine, most, told, engine.clock)
    assert sizes(engine) == largest


def test_ends_after_some_seconds_on_a_slow_device() -> None:
    engine = Engine(500, 1)
    began = engine.clock()
    measured = measure(engine, 256, told, engine.clock)
    assert [n for n, _ in measured] == [1, 2, 4, 8, 16]
    assert MAX_SECONDS < engine.clock() - began < MAX_SECONDS + 4


@pytest.mark.parametrize(("fails_at", "answers_error_at"), [(8, 0), (0, 8)])
def test_an_engine_that_fails_is_not_usable_and_the_owner_is_told_at_which_size(
    fails_at: int, answers_error_at: int
) -> None:
    engine = Engine()
    engine.fails_at, engine.answers_error_at = fails_at, answers_error_at
    name = "MemoryError" if fails_at else "ValueError"
    with capture_logs() as logged, pytest.raises(EngineNotUsable, match=f"8 streams .{name}"):
        measure(engine, 256, told, engine.clock)
    assert engine.open_now == 0
    (line,) = logged
    assert isinstance(line["exc_info"], MemoryError | ValueError)


def test_the_noise_is_full_of_sound_and_the_same_each_time() -> None:
    noise = speechlike(480, 16_000)
    assert noise.shape == (7_680,)
    assert noise.dtype == np.float32
    assert 0.1 < np.abs(noise).max() <= 0.5
    levels = np.sqrt((noise.reshape(-1, 160) ** 2).mean(axis=1))
    assert levels.min() > 0.001
    assert np.array_equal(noise, speechlike(480, 16_000))


def policy() -> LatestStart[object]:
    return LatestStart(0.6, None, 0.02)


async def nothing(_: list[object]) -> None:
    """A service that is not asked for anything."""


async def test_what_was_measured_is_the_capacity_and_seeds_the_scheduler() -> None:
    engine, scheduler = Engine(), policy()
    with capture_logs() as logged:
        streams, _ = await carried(
            engine, Stepper(scheduler, nothing, "recognise"), 0, told, engine.clock
        )
    assert streams == 22  # 40 ms + 22 * 20 ms are 80 % of 600 ms
    assert scheduler.cap() == 22
    assert scheduler.step_time.predicted(10) == pytest.approx(0.240)
    (thread,) = engine.threads
    assert thread.startswith("recognise")  # where its steps run later on
    (line,) = logged
    assert (line["streams"], line["by"]) == (22, "measurement")
    assert line["step_ms"][16] == 360


async def test_a_number_that_the_owner_gives_is_taken_and_the_scheduler_seeded_all_the_same() -> (
    None
):
    engine, scheduler = Engine(), policy()
    stepper = Stepper(scheduler, nothing, "recognise")
    assert (await carried(engine, stepper, 40, told, engine.clock)).streams == 40
    assert max(engine.sizes) == SEED_STREAMS
    assert scheduler.cap() == 22


async def test_a_device_that_is_too_slow_still_takes_one() -> None:
    engine = Engine(2_000, 100)
    stepper = Stepper(policy(), nothing, "recognise")
    assert (await carried(engine, stepper, 0, told, engine.clock)).streams == 1


class Offline:
    """The second pass, which is never called here."""


def parts(streaming: SentenceRecognizer | None) -> RecognizerParts:
    capabilities = msgspec.structs.replace(Engine().capabilities, own_endpointing=False)
    return RecognizerParts(capabilities, streaming, cast(OfflineRecognizer, Offline()))


def test_of_a_recogniser_in_parts_the_streaming_one_counts() -> None:
    engine = Engine()
    assert streaming_part(engine) is engine
    assert streaming_part(parts(cast(SentenceRecognizer, engine))) is engine
    assert streaming_part(parts(None)) is None


def shown(name: str) -> float | None:
    return REGISTRY.get_sample_value("funspeech_replica_capacity", {"replica": name})


async def test_a_worker_tells_what_it_measured() -> None:
    engine = Engine()
    worker = WorkerServer("asr-y", "test", "cpu", recognizer=engine)
    await worker.calibrate(told, engine.clock)
    assert worker.capacity == worker.hello.capacity == shown("asr-y") == 22


async def test_a_worker_takes_the_place_of_one_that_had_measured() -> None:
    first = Engine()
    before = WorkerServer("asr-y", "test", "cpu", recognizer=first)
    await before.calibrate(told, first.clock)
    busy = Engine(400, 200)  # as slow as the same device is beside others' work
    worker = WorkerServer("asr-y", "test", "cpu", recognizer=busy)
    # As it comes from the supervisor.
    line = msgspec.json.encode({"measured": before.measured})
    known = msgspec.json.decode(line, type=dict[str, tuple[tuple[int, float], ...]])["measured"]
    await worker.calibrate(told, busy.clock, known)
    assert worker.capacity == worker.hello.capacity == shown("asr-y") == 22
    assert sizes(busy) == [1]  # to warm up
    assert worker.measured == known  # for the next one


async def test_what_was_measured_before_seeds_the_scheduler_and_not_the_warm_up() -> None:
    busy, scheduler = Engine(400, 200), policy()
    known = [(1, 0.06), (2, 0.08), (4, 0.12)]
    with capture_logs() as logged:
        streams, measured = await carried(
            busy, Stepper(scheduler, nothing, "recognise"), 0, told, busy.clock, known
        )
    assert (streams, measured) == (22, known)
    assert scheduler.step_time.predicted(10) == pytest.approx(0.240)
    assert logged[-1]["by"] == "earlier measurement"


async def test_a_successor_that_fails_at_its_first_step_is_not_usable() -> None:
    engine = Engine()
    engine.fails_at = 1
    stepper = Stepper(policy(), nothing, "recognise")
    with capture_logs(), pytest.raises(EngineNotUsable):
        await carried(engine, stepper, 0, told, engine.clock, [(1, 0.06)])


async def test_a_worker_does_not_measure_what_its_engine_says() -> None:
    engine = Engine(max_sessions=7)
    worker = WorkerServer("asr-y", "test", "cpu", recognizer=engine)
    await worker.calibrate(told, engine.clock)
    assert worker.capacity == worker.hello.capacity == 7
    assert engine.sizes == []


@pytest.mark.parametrize(("wanted", "capacity"), [(0, OFFLINE_STREAMS), (90, 90)])
async def test_a_worker_without_a_first_pass_has_nothing_to_measure(
    monkeypatch: pytest.MonkeyPatch, wanted: int, capacity: int
) -> None:
    monkeypatch.setattr(server, "recognition_runner", lambda *arguments, **more: None)
    worker = WorkerServer("asr-y", "test", "cpu", recognizer=parts(None), max_streams=wanted)
    await worker.calibrate(told)
    assert worker.capacity == worker.hello.capacity == shown("asr-y") == capacity
