"""How many tasks a worker says it takes, to the API processes and to the metrics."""

from __future__ import annotations

import msgspec
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from app.engines.base import RecognizerCapabilities, SynthesizerCapabilities
from app.engines.fake.options import FakeOptions
from app.engines.fake.recognizer import FakeRecognizer
from app.engines.fake.synthesizer import FakeSynthesizer
from app.serving.worker.server import WorkerServer
from app.serving.worker.synthesis import MAX_QUEUE


class Listener(FakeRecognizer):
    """The fake engine with other capabilities."""

    def __init__(self, **capabilities: bool | int) -> None:
        super().__init__(FakeOptions())
        self._other = capabilities

    @property
    def capabilities(self) -> RecognizerCapabilities:
        return msgspec.structs.replace(super().capabilities, **self._other)


class Speaker(FakeSynthesizer):
    """The fake engine with three slots."""

    def __init__(self) -> None:
        super().__init__(FakeOptions())

    @property
    def capabilities(self) -> SynthesizerCapabilities:
        return msgspec.structs.replace(super().capabilities, max_parallel=3)


def told(name: str) -> float | None:
    return REGISTRY.get_sample_value("funspeech_replica_capacity", {"replica": name})


@pytest.mark.parametrize(
    ("own_endpointing", "wanted", "capacity"),
    [
        (True, 0, 50),
        (True, 7, 7),
        (True, 50, 50),
        (True, 51, 50),  # it was promised no more
        (False, 0, 50),
        (False, 51, 51),  # only sentences are open in it, and those are limited apart
    ],
)
async def test_streams_as_many_as_wanted_and_possible(
    own_endpointing: bool, wanted: int, capacity: int
) -> None:
    engine = Listener(own_endpointing=own_endpointing, max_sessions=50)
    with capture_logs() as logged:
        worker = WorkerServer("asr-x", "test", "cpu", recognizer=engine, max_streams=wanted)
    assert worker.hello.capacity == capacity
    assert told("asr-x") == capacity
    warnings = [each for each in logged if each["log_level"] == "warning"]
    assert [(each["asked_for"], each["used"]) for each in warnings] == (
        [(wanted, capacity)] if wanted > capacity else []
    )


async def test_sentences_that_wait_are_accepted_but_no_use_of_the_engine() -> None:
    worker = WorkerServer("tts-x", "test", "cpu", synthesizer=Speaker())
    assert told("tts-x") == 3
    assert worker.hello.capacity == 3 + MAX_QUEUE
