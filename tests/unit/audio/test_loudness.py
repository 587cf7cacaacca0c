"""How loud a recording is, whatever pieces it comes in."""

from __future__ import annotations

import math

import numpy as np
import pytest

from app.audio.loudness import LoudnessMeter
from tests.support.sound import joined, silence, tone


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("piece", [1_000_000, 333])
def test_levels_of_a_loud_and_a_soft_tone(rate: int, piece: int) -> None:
    audio = joined(tone(500, rate), silence(500, rate), tone(1_000, rate, level=0.03))
    meter = LoudnessMeter()
    for start in range(0, len(audio), piece):
        meter.feed(audio[start : start + piece], rate)
    loud = 20 * math.log10(0.3 * 32_767 / math.sqrt(2))
    assert meter.level_db(0, 500) == pytest.approx(loud, abs=0.1)
    assert meter.level_db(1_000, 2_000) == pytest.approx(loud - 20, abs=0.1)
    assert meter.level_db(0, 1_000) == pytest.approx(loud - 3, abs=0.1)
    assert meter.level_db(550, 900) == 0


def test_nothing_heard() -> None:
    meter = LoudnessMeter()
    assert meter.level_db(0, 1_000) == 0
    meter.feed(np.full(1_600, -32_768, np.int16), 16_000)
    assert meter.level_db(0, 100) == pytest.approx(90.3, abs=0.1)
    assert meter.level_db(100, 100) == meter.level_db(5_000, 6_000) == 0
