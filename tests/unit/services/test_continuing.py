"""A sentence that is spoken twice: which samples of the second time are used."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audio.pcm import Int16
from app.core.errors import EngineFailed, EngineLost, SpeechError
from app.core.speech import Mark
from app.services.continuing import ContinuedSpeech
from app.services.losses import MAX_LOSSES
from app.serving.handles import SpeechHandle

RATE = 1_000  # so that the fade has ten samples


class Attempt:
    """Gives its pieces, then fails or ends."""

    sample_rate = RATE

    def __init__(self, samples: Int16, sizes: list[int], error: SpeechError | None) -> None:
        self._samples, self._sizes, self._error = samples, sizes, error

    async def pieces(self) -> AsyncGenerator[tuple[bytes, tuple[()]], None]:
        position = 0
        for size in self._sizes:
            yield self._samples[position : position + size].tobytes(), ()
            position += size
        if self._error is not None:
            raise self._error
        if position < len(self._samples):
            yield self._samples[position:].tobytes(), ()

    def cancel(self) -> None:
        pass


async def collect(*attempts: Attempt) -> Int16:
    waiting = [cast(SpeechHandle, attempt) for attempt in attempts]

    async def reopen() -> SpeechHandle:
        return waiting.pop(0)

    speech = ContinuedSpeech(waiting.pop(0), reopen, "id")
    parts = [part async for part, _ in speech.samples()]
    assert all(len(part) for part in parts)
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)


WHOLE: Any = (np.arange(200) * 37 % 5_000).astype(np.int16)
cuts = st.lists(st.integers(1, 60), max_size=5)


@given(deaths=st.lists(cuts, max_size=4), last=cuts)
async def test_the_same_speech_is_continued_to_the_sample(
    deaths: list[list[int]], last: list[int]
) -> None:
    dead = [Attempt(WHOLE, sizes, EngineLost()) for sizes in deaths]
    assert np.array_equal(await collect(*dead, Attempt(WHOLE, last, None)), WHOLE)


async def test_other_speech_is_faded_in() -> None:
    first, second = np.full(200, 1_000, np.int16), np.full(200, 3_000, np.int16)
    heard = await collect(Attempt(first, [100], EngineLost()), Attempt(second, [50, 60], None))
    assert len(heard) == 200
    assert set(heard[:90]) == {1_000}
    assert set(heard[100:]) == {3_000}
    fade = heard[90:100].astype(int)
    assert fade[0] == 1_000
    assert fade[-1] == 3_000
    assert (np.diff(fade) > 0).all()


async def test_speech_that_is_shorter_the_second_time_ends_where_the_first_did() -> None:
    shorter = Attempt(WHOLE[:60], [], None)
    heard = await collect(Attempt(WHOLE, [100], EngineLost()), shorter)
    assert np.array_equal(heard, WHOLE[:100])


async def test_an_engine_that_fails_on_the_sentence_is_not_asked_again() -> None:
    with pytest.raises(EngineFailed):
        await collect(Attempt(WHOLE, [20], EngineFailed()), Attempt(WHOLE, [], None))


async def test_a_sentence_that_kills_every_worker_is_given_up() -> None:
    deadly = [Attempt(WHOLE, [50], EngineLost()) for _ in range(MAX_LOSSES + 1)]
    with pytest.raises(EngineLost):
        await collect(*deadly, Attempt(WHOLE, [], None))
    survived = [Attempt(WHOLE, [50], EngineLost()) for _ in range(MAX_LOSSES)]
    assert np.array_equal(await collect(*survived, Attempt(WHOLE, [], None)), WHOLE)


async def test_a_sentence_that_kills_at_once_is_given_up() -> None:
    deadly = [Attempt(WHOLE, [], EngineLost()) for _ in range(MAX_LOSSES)]
    assert np.array_equal(await collect(*deadly, Attempt(WHOLE, [], None)), WHOLE)
    deadly = [Attempt(WHOLE, [], EngineLost()) for _ in range(MAX_LOSSES + 1)]
    with pytest.raises(EngineLost):
        await collect(*deadly, Attempt(WHOLE, [], None))


async def test_losses_count_anew_when_more_was_spoken() -> None:
    farther = [Attempt(WHOLE, [20 + number], EngineLost()) for number in range(3 * MAX_LOSSES)]
    assert np.array_equal(await collect(*farther, Attempt(WHOLE, [], None)), WHOLE)


async def test_even_the_samples_that_are_held_back_count() -> None:
    farther = [Attempt(WHOLE, [1 + number], EngineLost()) for number in range(9)]
    assert len(farther) > MAX_LOSSES
    assert np.array_equal(await collect(*farther, Attempt(WHOLE, [], None)), WHOLE)


class Marked(Attempt):
    """Tells one mark for each 20 samples, with the piece that they fall into; ``late``: by how many
    ms later than in the first attempt."""

    def __init__(
        self, samples: Int16, sizes: list[int], error: SpeechError | None, late: int = 0
    ) -> None:
        super().__init__(samples, sizes, error)
        self._late = late

    async def pieces(self) -> AsyncGenerator[tuple[bytes, Any], None]:
        position = 0
        async for pcm, _ in super().pieces():
            after = position + len(pcm) // 2
            marks = [
                Mark(at // 20, at + self._late) for at in range(position, after) if at % 20 == 0
            ]
            yield pcm, tuple(marks)
            position = after


@given(deaths=st.lists(cuts, max_size=4), last=cuts)
async def test_each_mark_is_told_once_and_with_its_audio(
    deaths: list[list[int]], last: list[int]
) -> None:
    attempts = [Marked(WHOLE, sizes, EngineLost(), 1) for sizes in deaths]
    waiting = [cast(SpeechHandle, each) for each in [*attempts, Marked(WHOLE, last, None, 2)]]

    async def reopen() -> SpeechHandle:
        return waiting.pop(0)

    told: list[Mark] = []
    given_samples = 0
    async for samples, marks in ContinuedSpeech(waiting.pop(0), reopen, "id").samples():
        given_samples += len(samples)
        told += marks
        # All marks of what was given, and perhaps of what is held back.
        assert len(told) >= (given_samples + 19) // 20
    assert [mark.index for mark in told] == [*range(10)]
    # Those of the audio that a dead worker had told before it died are the dead worker's.
    assert all(mark.start_ms - 20 * mark.index in (1, 2) for mark in told)
    if not deaths:
        assert {mark.start_ms - 20 * mark.index for mark in told} == {2}
