"""Times of tokens from what the predictor divides."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.engines.funasr.times import TokenClock


def _shares(*tokens: dict[int, float]) -> NDArray[np.float32]:
    """Of chunks of 10 rows and 5 ahead: each token's shares by place, 0 for the open one, 1 … 15
    for the rows, 16 for the tail."""
    found = np.zeros((len(tokens), 17), np.float32)
    for row, token in zip(found, tokens, strict=True):
        for place, share in token.items():
            row[place] = share
    return found


def test_a_token_begins_with_its_first_row_and_ends_where_it_fires() -> None:
    clock = TokenClock(10, 5)
    # Place 6 is the stream's first row: the five before it are of nothing.
    shares = _shares({6: 0.5, 7: 0.5}, {7: 0.2, 8: 0.5, 9: 0.3}, {})
    assert clock.chunk(shares, 2) == [(0, 120), (120, 240)]


def test_rows_of_nothing_before_the_stream_are_at_its_beginning() -> None:
    assert TokenClock(10, 5).chunk(_shares({1: 0.6, 2: 0.4}, {}), 1) == [(0, 0)]


def test_a_word_does_not_begin_in_the_silence_before_it() -> None:
    shares = _shares({6: 0.01, 7: 0.01, 8: 0.02, 9: 0.5, 10: 0.46}, {})
    assert TokenClock(10, 5).chunk(shares, 1) == [(180, 300)]


def test_a_token_that_is_open_over_chunks() -> None:
    clock = TokenClock(10, 5)
    assert clock.chunk(_shares({9: 0.3}), 0) == []
    assert clock.chunk(_shares({0: 0.3, 3: 0.2}), 0) == []
    # The third chunk begins five rows before its 1200 ms.
    assert clock.chunk(_shares({0: 0.5, 1: 0.3, 2: 0.2}, {2: 0.03, 8: 0.4}), 1) == [(180, 1020)]
    assert clock.chunk(_shares({0: 0.5, 1: 0.5}, {}), 1) == [(1320, 1560)]


def test_a_token_that_was_heard_nowhere_clearly_is_where_it_fires() -> None:
    shares = _shares({0: 0.9, **{place: 0.03 for place in range(6, 10)}}, {})
    assert TokenClock(10, 5).chunk(shares, 1) == [(180, 240)]


def test_the_tail_adds_no_time() -> None:
    clock = TokenClock(10, 5)
    assert clock.chunk(_shares({6: 0.5, 7: 0.3, 16: 0.2}, {16: 0.25}), 1) == [(0, 120)]
