"""RMS and verdict of each block agree with what the gate lets through."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audio.gate import BLOCK_SAMPLES, NearFieldGate
from app.audio.levels import Levels, Verdict, measure
from app.audio.pcm import Int16
from app.audio.threshold import rounded, suggest

THRESHOLD = 0.01


def blocks(*levels: float) -> Int16:
    """One block per level, with that RMS (in thresholds)."""
    signs = np.resize(np.array([1, -1]), BLOCK_SAMPLES)
    parts = [np.rint(signs * level * THRESHOLD * 32_768) for level in levels]
    return np.concatenate([np.empty(0), *parts]).astype(np.int16)


def measured(*levels: float, threshold: float = THRESHOLD, hold_ms: int = 300) -> Levels:
    return measure([blocks(*levels)], threshold, hold_ms)


@pytest.mark.parametrize(
    ("levels", "verdicts"),
    [
        ([0.5, 0.9], "gg"),
        ([2.1, 0.7, 0.5, 0.7], "ohgh"),
        ([2.1, 0.5, 0.5, 0.5, 0.7], "ogggg"),
        # Held back first; the next one decides, or the end.
        ([1.1, 0.9], "gg"),
        ([1.1, 1.1, 0.7], "ooh"),
        ([0.5, 1.1], "go"),
    ],
)
def test_verdicts(levels: list[float], verdicts: str) -> None:
    assert "".join(each.value[0] for each in measured(*levels).verdicts) == verdicts


def test_rms_is_that_of_each_block() -> None:
    found = measured(0.5, 2.0, 30.0)
    assert found.rms == pytest.approx([0.005, 0.02, 0.3], rel=0.01)
    assert found.seconds == pytest.approx(0.3)


@given(
    levels=st.lists(st.sampled_from([0.0, 0.5, 0.7, 1.1, 2.1]), max_size=15),
    extra=st.integers(0, BLOCK_SAMPLES - 1),
    step=st.integers(1, 5_000),
    threshold=st.sampled_from([0.0, THRESHOLD]),
)
def test_what_passes_is_what_the_gate_lets_through(
    levels: list[float], extra: int, step: int, threshold: float
) -> None:
    samples = blocks(*levels, 0.8)[: len(levels) * BLOCK_SAMPLES + extra]
    pieces = [samples[at : at + step] for at in range(0, samples.size, step)]
    found = measure(pieces, threshold, 300)
    gate = NearFieldGate(threshold, 300)
    out = np.concatenate([gate.feed(samples), gate.flush()])
    assert len(found.verdicts) == len(found.rms) == -(-samples.size // BLOCK_SAMPLES)
    for index, verdict in enumerate(found.verdicts):
        part = slice(index * BLOCK_SAMPLES, (index + 1) * BLOCK_SAMPLES)
        kept = np.array_equal(out[part], samples[part])
        if verdict is Verdict.GATED:
            assert not out[part].any()
        else:
            assert kept
    assert found.openings == gate.openings
    assert len(found.passed) + len(found.gated) == len(found.verdicts)


def test_columns_are_the_loudest_block_of_each() -> None:
    found = measured(2.1, 0.7, 0.1, 0.1, 3.0)
    each, columns = found.columns(3)
    assert each == 2
    assert [column.rms for column in columns] == [found.rms[0], found.rms[2], found.rms[4]]
    assert [column.verdict for column in columns] == [Verdict.OPEN, Verdict.GATED, Verdict.OPEN]
    assert found.columns(5)[0] == 1
    assert found.columns(1) == (5, [columns[2]])


def test_nothing_has_no_blocks() -> None:
    found = measure([], THRESHOLD, 300)
    assert found.verdicts == () and found.seconds == 0


# --- the suggested threshold -----------------------------------------------------------------


def speech_over(background: float, speech: float = 10.0, threshold: float = THRESHOLD) -> Levels:
    """Half speech and half background, both in hundredths of full scale."""
    return measured(*[background] * 20, *[speech] * 20, threshold=threshold, hold_ms=800)


def test_a_threshold_that_fits_is_kept() -> None:
    found = suggest(speech_over(0.1))
    assert found.threshold == THRESHOLD
    assert "0.0017" in found.reason and "0.05" in found.reason


def test_a_threshold_within_the_background_is_raised_until_it_stays_out() -> None:
    found = suggest(speech_over(0.9))
    assert found.threshold == pytest.approx(0.016, abs=0.001)
    assert found.threshold is not None
    again = speech_over(0.9, threshold=found.threshold)
    assert again.verdicts.count(Verdict.GATED) == 20
    assert suggest(again).threshold == found.threshold


def test_a_threshold_above_the_speech_is_lowered_until_it_opens() -> None:
    high = speech_over(0.1, threshold=0.2)
    assert len(high.passed) == 0
    found = suggest(high)
    assert found.threshold == pytest.approx(0.0495, abs=0.001)
    assert found.threshold is not None
    assert len(speech_over(0.1, threshold=found.threshold).passed) == 20


@pytest.mark.parametrize(
    ("levels", "reason"),
    [
        (measured(*np.linspace(0.8, 4.0, 20), *[10.0] * 20), "too near"),
        (measured(*[1.0] * 40), "hardly varies"),
        (measured(*[0.0] * 40), "hardly varies"),
        (speech_over(0.5, 1.5), "hardly varies"),
        (measured(*[0.1] * 9, *[10.0] * 10), "2 s or more"),
    ],
)
def test_no_suggestion_without_a_reason_for_one(levels: Levels, reason: str) -> None:
    found = suggest(levels)
    assert found.threshold is None
    assert reason in found.reason


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.5, "0.5"),
        (0.0123, "0.012"),
        (0.00002, "0.00002"),
        (0.0999, "0.1"),
    ],
)
def test_levels_for_people(value: float, text: str) -> None:
    assert rounded(value) == text
