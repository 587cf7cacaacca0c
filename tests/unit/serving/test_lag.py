"""The lag of recognition, on a clock of the test."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from app.serving.lag import LagMeter

FRAME = 1_600


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def figure(name: str) -> float:
    return REGISTRY.get_sample_value(f"funspeech_lag_seconds_{name}") or 0.0


@pytest.fixture
def added() -> Callable[[str], float]:
    before = {name: figure(name) for name in ("count", "sum")}
    return lambda name: round(figure(name) - before[name], 6)


def test_about_once_a_second(added: Callable[[str], float]) -> None:
    clock = Clock()
    meter = LagMeter(16_000, clock)
    for _ in range(100):
        clock.now += 0.1
        meter.sent(FRAME)
        clock.now += 0.05
        meter.processed(FRAME)
    assert added("count") == 10
    assert added("sum") == pytest.approx(10 * 0.05)


def test_a_chunk_that_has_to_fill_up_counts(added: Callable[[str], float]) -> None:
    clock = Clock()
    meter = LagMeter(16_000, clock)
    for _ in range(5):
        meter.sent(FRAME)
        clock.now += 0.1
    meter.processed(4 * FRAME)
    assert (added("count"), added("sum")) == (1, 0.5)


def test_a_worker_that_is_behind_shows_once(added: Callable[[str], float]) -> None:
    clock = Clock()
    meter = LagMeter(16_000, clock)
    for _ in range(50):
        meter.sent(FRAME)
        clock.now += 0.1
    assert added("count") == 0
    for _ in range(50):
        meter.processed(FRAME)
    assert (added("count"), added("sum")) == (1, 5.0)


def test_a_pause_of_the_client_is_no_lag(added: Callable[[str], float]) -> None:
    clock = Clock()
    meter = LagMeter(16_000, clock)
    meter.sent(FRAME)  # half a chunk
    clock.now += 30
    meter.sent(FRAME)
    meter.processed(2 * FRAME)
    assert added("count") == 0
    for _ in range(10):
        clock.now += 0.1
        meter.sent(FRAME)
    clock.now += 0.02
    meter.processed(10 * FRAME)
    assert (added("count"), added("sum")) == (1, 0.02)
