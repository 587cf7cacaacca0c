"""What the synthesis service tells the worker of when it needs a sentence."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import numpy as np
import pytest

from app.core.errors import EngineLost, Overloaded
from app.core.speech import SynthesisRequest, Utterance, Voice
from app.engines.base import SynthesizerCapabilities
from app.services import rendering, spoken
from app.services.playback import Playback, SpeechRate
from app.services.synthesis import SynthesisService
from app.serving.handles import SpeechHandle
from app.serving.pool import Pool
from app.voices.catalogue import VoiceCatalogue

RATE = 16_000
FIRST, SECOND, THIRD = (letter * 49 + "." for letter in "abc")  # two seconds at the least


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Spoken:
    """Ten seconds, in pieces of one; ``dies_after``: pieces before the worker is lost."""

    sample_rate = RATE

    def __init__(self, dies_after: int | None = None) -> None:
        self._dies_after = dies_after

    async def pieces(self) -> AsyncGenerator[tuple[bytes, tuple[()]], None]:
        for number in range(10):
            if number == self._dies_after:
                raise EngineLost
            yield np.full(RATE, number + 1, np.int16).tobytes(), ()

    def cancel(self) -> None:
        pass


class LeadsPool:
    """Notes the leads; speaks, or refuses, as it is told for each call."""

    def __init__(self, *answers: Spoken | Exception) -> None:
        self._answers = deque(answers)
        self.asked: list[tuple[str, float | None]] = []

    def ready(self, role: str) -> bool:
        return True

    async def wait_ready(self, role: str) -> None:
        pass

    def synthesizer(self) -> SynthesizerCapabilities:
        return SynthesizerCapabilities(sample_rate=RATE, languages=("en-US",), voices=())

    async def open_synthesis(
        self, utterance: Utterance, log_id: str, lead_s: float | None
    ) -> SpeechHandle:
        self.asked.append((utterance.text[0], lead_s))
        answer = self._answers.popleft() if self._answers else Spoken()
        if isinstance(answer, Exception):
            raise answer
        return cast(SpeechHandle, answer)


class AnyVoice:
    def resolve(self, name: str | None) -> Voice:
        return Voice(name="v", language="en-US", gender="female")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rendering, "Playback", lambda rate: Playback(rate, clock.monotonic))
    monkeypatch.setattr(spoken, "_ASK_AGAIN_S", 0.0)
    return clock


async def played(pool: LeadsPool, clock: Clock, text: str, s_per_s: float, **options: Any) -> float:
    """Read everything; each second of audio takes the reader ``s_per_s``. Returns its seconds."""
    service = SynthesisService(cast(Pool, pool), cast(VoiceCatalogue, AnyVoice()), 1)
    request = SynthesisRequest(
        task_id="id", text=text, voice="v", format="pcm", sample_rate=RATE, **options
    )  # fmt: skip
    total = 0
    try:
        async with aclosing(service.speak(request)) as pieces:
            async for piece in pieces:
                total += len(piece)
                await asyncio.sleep(0)  # the next sentence is asked for
                clock.now += len(piece) / 2 / RATE * s_per_s
    finally:
        service.close()
    return total / 2 / RATE


async def test_a_reader_at_once_is_ahead_by_what_it_has(clock: Clock) -> None:
    pool = LeadsPool()
    assert await played(pool, clock, f"{FIRST} {SECOND} {THIRD}", 0.0) == 30.0
    assert [key for key, _ in pool.asked] == ["a", "b", "c"]
    first, second, third = (lead_s for _, lead_s in pool.asked)
    assert first is None
    assert second == pytest.approx(1.96)  # the shortest that the first may last
    # The first took 10 s, so the second, of the same length, is expected to take 8 at the least.
    assert third == pytest.approx(18.0, abs=0.05)


async def test_a_reader_in_real_time_is_ahead_by_the_sentence_under_way(clock: Clock) -> None:
    pool = LeadsPool()
    await played(pool, clock, f"{FIRST} {SECOND} {THIRD}", 1.0)
    assert [key for key, _ in pool.asked] == ["a", "b", "c"]
    assert pool.asked[2][1] == pytest.approx(8.0, abs=0.05)


async def test_a_slow_reader_needs_it_now(clock: Clock) -> None:
    pool = LeadsPool()
    await played(pool, clock, f"{FIRST} {SECOND} {THIRD}", 3.0)
    assert pool.asked[2] == ("c", 0.0)


async def test_a_repeated_sentence_is_accepted_already(clock: Clock) -> None:
    pool = LeadsPool(Spoken(dies_after=5))
    assert await played(pool, clock, FIRST, 0.0) == 10.0
    (_, (letter, lead_s)) = pool.asked
    assert letter == "a"
    assert lead_s == pytest.approx(5.0, abs=0.02)  # less the 10 ms that are held back


async def test_a_first_sentence_that_dies_at_once_is_needed_now(clock: Clock) -> None:
    pool = LeadsPool(Spoken(dies_after=0))
    await played(pool, clock, FIRST, 0.0)
    assert pool.asked == [("a", None), ("a", 0.0)]


async def test_only_a_new_text_is_refused(clock: Clock) -> None:
    pool = LeadsPool(Overloaded())
    with pytest.raises(Overloaded):
        await played(pool, clock, FIRST, 0.0)
    pool = LeadsPool(Spoken(), Overloaded(), Overloaded())
    assert await played(pool, clock, f"{FIRST} {SECOND}", 0.0) == 20.0
    assert [key for key, _ in pool.asked] == ["a", "b", "b", "b"]


async def test_fast_speech_is_needed_earlier(clock: Clock) -> None:
    pool = LeadsPool()
    assert await played(pool, clock, f"{FIRST} {SECOND}", 0.0, speed=2.0) < 11
    assert pool.asked[1][1] == pytest.approx(0.98)


def test_the_length_of_a_sentence_is_learnt_and_never_too_short() -> None:
    rate = SpeechRate()
    assert rate.expected_s("a" * 50, 1.0) == pytest.approx(2.0)
    assert rate.expected_s("a" * 50, 2.0) == pytest.approx(1.0)
    rate.spoken("你好，世界。", 1.0)  # four characters
    rate.spoken("……", 0.0)
    assert rate.expected_s("大家好！", 1.0) == pytest.approx(0.6)
    rate.spoken("x" * 10_000, 1.0)  # an engine that says nothing
    assert rate.expected_s("a" * 50, 1.0) == pytest.approx(2.0)


def test_playback_begins_with_the_first_audio() -> None:
    clock = Clock()
    playback = Playback(1_000, clock.monotonic)
    clock.now += 50
    assert playback.lead_s() == 0.0
    assert playback.lead_s(3.0) == 3.0
    playback.sent(4_000)
    clock.now += 1
    assert playback.lead_s() == 3.0
    assert playback.lead_s(2.0) == 3.0
    assert playback.lead_s(6.0) == 5.0
    clock.now += 10
    assert playback.lead_s(6.0) == 0.0
