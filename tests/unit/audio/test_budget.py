"""Budgets of decoding."""

from __future__ import annotations

import pytest

from app.audio.budget import Budget, Spending
from app.core.errors import AudioTooLong, BadAudio


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _spending(clock: _Clock | None = None, **limits: int) -> Spending:
    budget = Budget(**{"max_bytes": 1000, "max_audio_ms": 1000, "wall_s": 5, **limits})
    return Spending(budget, clock or _Clock())


def test_a_file_of_exactly_the_limit_is_accepted() -> None:
    spending = _spending(max_bytes=1000)
    spending.check_size(1000)
    with pytest.raises(AudioTooLong, match="larger than 1000 bytes"):
        spending.check_size(1001)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100])
def test_audio_of_exactly_the_limit_is_accepted(rate: int) -> None:
    spending = _spending(max_audio_ms=3000)
    for _ in range(3):
        for count in (1, 7, rate - 8):
            spending.count_audio(count, rate)
    with pytest.raises(AudioTooLong, match="longer than 3 s"):
        spending.count_audio(rate // 100, rate)


def test_each_rate_counts_as_itself() -> None:
    spending = _spending(max_audio_ms=1000)
    spending.count_audio(4_000, 8_000)
    spending.count_audio(24_000, 48_000)
    with pytest.raises(AudioTooLong):
        spending.count_audio(48, 48_000)


def test_time_runs_only_while_there_is_work() -> None:
    clock = _Clock()
    spending = _spending(clock)
    clock.now += 4
    spending.pause()
    clock.now += 1000
    spending.check_time()
    spending.resume()
    clock.now += 1
    spending.check_time()
    clock.now += 0.1
    assert spending.expired
    with pytest.raises(BadAudio):
        spending.check_time()
