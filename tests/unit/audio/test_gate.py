import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audio.gate import BLOCK_SAMPLES, NearFieldGate
from app.audio.pcm import Int16

THRESHOLD = 0.01
FULL = THRESHOLD * 32_768


def blocks(*levels: float) -> Int16:
    """One block per level, with that RMS (in thresholds)."""
    signs = np.resize(np.array([1, -1]), BLOCK_SAMPLES)
    return np.concatenate([np.rint(signs * level * FULL) for level in levels]).astype(np.int16)


def run(gate: NearFieldGate, samples: Int16, step: int) -> Int16:
    out = [gate.feed(samples[i : i + step]) for i in range(0, samples.size, step)]
    return np.concatenate([*out, gate.flush()])


def passed(samples: Int16) -> list[bool]:
    """Which blocks are not silent."""
    return [
        bool(samples[i : i + BLOCK_SAMPLES].any()) for i in range(0, samples.size, BLOCK_SAMPLES)
    ]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([0.5, 0.9, 0.5], [0, 0, 0]),
        ([2.1, 0.5, 0.7, 0.61], [1, 0, 1, 1]),
        # 300 ms of gated blocks close it, so 0.7 is then too quiet.
        ([2.1, 0.5, 0.5, 0.7], [1, 0, 0, 1]),
        ([2.1, 0.5, 0.5, 0.5, 0.7], [1, 0, 0, 0, 0]),
        # The count starts again with each block that passes.
        ([2.1, 0.5, 0.5, 0.7, 0.5, 0.5, 0.7], [1, 0, 0, 1, 0, 0, 1]),
        ([0.7, 2.1, 0.7], [0, 1, 1]),
        # Between one and two thresholds, the next block decides, or the end.
        ([1.1, 0.9, 0.7], [0, 0, 0]),
        ([1.1, 1.1, 0.7], [1, 1, 1]),
        ([1.1, 2.1], [1, 1]),
        ([1.1, 0.5, 1.1, 0.5], [0, 0, 0, 0]),
        ([0.5, 1.1], [0, 1]),
    ],
)
def test_which_blocks_pass(levels: list[float], expected: list[int]) -> None:
    samples = blocks(*levels)
    out = run(NearFieldGate(THRESHOLD, hold_ms=300), samples, 1_000)
    assert passed(out) == [bool(flag) for flag in expected]
    kept = np.repeat(np.array(expected), BLOCK_SAMPLES)
    assert np.array_equal(out, samples * kept)


@given(
    levels=st.lists(st.sampled_from([0.0, 0.5, 0.7, 1.1, 2.1]), max_size=12),
    extra=st.integers(0, BLOCK_SAMPLES - 1),
    step=st.integers(1, 5_000),
)
def test_result_does_not_depend_on_the_split(levels: list[float], extra: int, step: int) -> None:
    samples = blocks(*levels, 0.8)[: len(levels) * BLOCK_SAMPLES + extra]
    whole_gate, gate = NearFieldGate(THRESHOLD, 200), NearFieldGate(THRESHOLD, 200)
    whole = run(whole_gate, samples, max(1, samples.size))
    split = run(gate, samples, step)
    assert split.size == samples.size
    assert np.array_equal(split, whole)
    assert (gate.passed_ms, gate.gated_ms) == (whole_gate.passed_ms, whole_gate.gated_ms)


def test_undecided_blocks_come_out_when_they_are_complete() -> None:
    gate = NearFieldGate(THRESHOLD, 300)
    quiet = blocks(0.5, 0.5)
    assert gate.feed(quiet[:1_599]).size == 0
    assert gate.feed(quiet[1_599:1_700]).size == BLOCK_SAMPLES
    assert gate.flush().size == 100


def test_a_block_that_is_loud_enough_already_comes_out_at_once() -> None:
    gate = NearFieldGate(THRESHOLD, 300)
    # A quarter of a block with four times the level has the energy of a block at two thresholds.
    loud = blocks(4.1, 0.1)
    assert gate.feed(loud[:380]).size == 0
    assert gate.feed(loud[380:500]).size == 500
    assert gate.feed(loud[500:600]).size == 100
    assert gate.feed(loud[600:]).size == 1_000 + BLOCK_SAMPLES


@pytest.mark.parametrize(("level", "heard"), [(0.9, False), (1.1, True)])
def test_last_partial_block_is_judged_by_its_own_level(level: float, heard: bool) -> None:
    gate = NearFieldGate(THRESHOLD, 300)
    gate.feed(blocks(level)[:200])
    assert bool(gate.flush().any()) is heard


def test_counts() -> None:
    gate = NearFieldGate(THRESHOLD, 300)
    run(gate, blocks(0.1, 2.1, 0.1, 0.1)[: 3 * BLOCK_SAMPLES + 800], 333)
    assert gate.passed_ms == 100
    assert gate.gated_ms == 250


def test_hold_can_be_changed_while_running() -> None:
    gate = NearFieldGate(THRESHOLD, 100)
    gate.configure(hold_ms=1_000)
    assert passed(gate.feed(blocks(2.1, 0.1, 0.1, 0.7))) == [True, False, False, True]


def test_threshold_zero_lets_everything_through() -> None:
    gate = NearFieldGate(0.0, 300)
    run(gate, np.zeros(BLOCK_SAMPLES * 2, np.int16), 100)
    assert gate.gated_ms == 0


def test_input_is_not_changed() -> None:
    quiet = blocks(0.5)
    before = quiet.copy()
    NearFieldGate(THRESHOLD, 300).feed(quiet)
    assert np.array_equal(quiet, before)


def test_full_scale_is_judged_right() -> None:
    gate = NearFieldGate(0.99, 300)
    assert gate.feed(np.full(2 * BLOCK_SAMPLES, -32_768, np.int16)).any()


@pytest.mark.parametrize("step", [7, 160, BLOCK_SAMPLES, 100_000])
def test_openings_are_counted_however_the_audio_is_cut(step: int) -> None:
    gate = NearFieldGate(THRESHOLD, 300)
    # Opens, stays open over a short hole, closes, and opens again with a weak block's successor.
    run(gate, blocks(2.1, 0.5, 0.7, 0.5, 0.5, 0.5, 0.7, 1.1, 1.1, 0.5), step)
    assert gate.openings == 2
