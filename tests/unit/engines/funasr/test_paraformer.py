"""The offline Paraformer: times of its tokens."""

from __future__ import annotations

from app.engines.funasr.paraformer import Spoken, timed


def test_a_token_lasts_until_the_next_one() -> None:
    found = timed([5, 6, 7], [3, 5, 9], 900)
    assert found == Spoken([5, 6, 7], [90, 210, 450], [210, 450, 900])


def test_the_end_of_the_sentence_ends_the_last_token() -> None:
    assert timed([5, 2], [3, 7], 900) == Spoken([5], [90], [330])


def test_a_long_pause_is_no_part_of_a_token() -> None:
    assert timed([5, 6], [2, 40], 3_000) == Spoken([5, 6], [30, 2310], [750, 3_000])


def test_nothing_is_outside_of_the_audio() -> None:
    assert timed([5, 6], [0, 30], 1_000) == Spoken([5, 6], [0, 1_000], [720, 1_000])
    assert timed([], [], 1_000) == Spoken([], [], [])
