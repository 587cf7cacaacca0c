"""Lengths of time as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli.durations import duration, seconds
from app.core.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("0h", 0),
        ("90s", 90),
        ("45m", 2700),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("1D 1H", 90_000),
    ],
)
def test_what_people_write(text: str, expected: int) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "1h2", "1w", "1.5.2h", "１h"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(InvalidRequest, match="is no length of time"):
        seconds(text)


@given(st.integers(0, 10**9))
def test_there_and_back(length_s: int) -> None:
    assert seconds(duration(length_s)) == length_s
