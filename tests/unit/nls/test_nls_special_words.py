from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidRequest
from app.core.speech import WordFilter
from app.nls.special_words import word_filter

FILTER = {
    "system_reserved_filter": True,
    "filter_with_empty": {"word_list": ["开始", " 发生 ", "", "开始"]},
    "filter_with_signed": {"word_list": ["测试"]},
    "other": 1,
}
TEXT = (
    '{"system_reserved_filter": true, "filter_with_empty": {"word_list": ["开始", " 发生 ", "",'
    ' "开始"]}, "filter_with_signed": {"word_list": ["测试"]}, "other": 1}'
)


@pytest.mark.parametrize("given", [FILTER, TEXT], ids=["object", "text"])
def test_both_spellings(given: object) -> None:
    assert word_filter(given) == WordFilter(removed=("开始", "发生"), masked=("测试",))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"system_reserved_filter": True},
        {"filter_with_empty": None},
        {"filter_with_empty": {}},
        {"filter_with_signed": {"word_list": ["  "]}},
        "{}",
    ],
)
def test_no_words_are_no_filter(given: object) -> None:
    assert word_filter(given) is None


@pytest.mark.parametrize(
    "given",
    [
        5,
        True,
        [],
        "words",
        "[",
        "[]",
        "\ud800",
        "[" * 100_000,
        {"filter_with_empty": ["x"]},
        {"filter_with_empty": {"word_list": "x"}},
        {"filter_with_signed": {"word_list": [1]}},
    ],
    ids=lambda given: repr(given)[:30],
)
def test_what_is_no_filter(given: object) -> None:
    with pytest.raises(InvalidRequest, match="Invalid special_word_filter: expected an object"):
        word_filter(given)


@pytest.mark.parametrize("name", ["filter_with_empty", "filter_with_signed"])
def test_lists_are_bounded(name: str) -> None:
    words = [f"w{number}" for number in range(32)]
    assert word_filter({name: {"word_list": [*words, "w0"]}})
    assert word_filter({name: {"word_list": ["x" * 64]}})
    for wrong in ([*words, "w32"], ["x" * 65]):
        with pytest.raises(InvalidRequest, match="at most 32 words of 64 characters"):
            word_filter({name: {"word_list": wrong}})


@given(st.text() | st.recursive(st.none() | st.text(), lambda x: st.dictionaries(st.text(), x)))
def test_anything_is_a_filter_or_the_clients_mistake(given_value: object) -> None:
    try:
        found = word_filter(given_value)
    except InvalidRequest:
        return
    assert found is None or found.removed or found.masked
