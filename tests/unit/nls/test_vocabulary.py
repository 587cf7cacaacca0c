"""WordWeights, as clients of the cloud's vocabulary interface write them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidRequest
from app.nls.vocabulary import MAX_WORDS, word_weights


def test_words_and_weights() -> None:
    assert word_weights('{"苹果": 3, "New York": -6}') == {"苹果": 3, "New York": -6}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"a": "3"}',
        '{"a": 1.5}',
        '{"a": null}',
        '{"a": 6}',
        '{"a": -7}',
        '{" ": 1}',
        '{"a\\u0000b": 1}',
        json.dumps({"x" * 65: 1}),
        json.dumps({str(number): 1 for number in range(MAX_WORDS + 1)}),
        "[" * 100_000,
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        word_weights(text)
    assert len(error.value.text) < 200


@given(st.text() | st.dictionaries(st.text(), st.integers()).map(json.dumps))
def test_anything_is_a_vocabulary_or_refused(text: str) -> None:
    try:
        words = word_weights(text)
    except InvalidRequest:
        return
    assert words
    assert all(-6 <= weight <= 5 for weight in words.values())
