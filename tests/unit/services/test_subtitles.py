"""When each character is heard, from the engine's marks."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.core.speech import Mark, Subtitle
from app.services.subtitles import subtitles


def test_each_mark_holds_until_the_next_one() -> None:
    marks = [Mark(0, 0), Mark(1, 200), Mark(2, 400)]
    assert subtitles("你好。", marks, 1.0, 1_000, 1_600) == (
        Subtitle("你", 1_000, 1_200, 0, 1),
        Subtitle("好", 1_200, 1_400, 1, 2),
        Subtitle("。", 1_400, 1_600, 2, 3),
    )


def test_speed_that_was_applied_later() -> None:
    found = subtitles("ab", [Mark(0, 0), Mark(1, 300)], 1.5, 50, 450)
    assert [(each.begin_ms, each.end_ms) for each in found] == [(50, 250), (250, 450)]


def test_words_end_before_the_space_and_the_comma_behind_them() -> None:
    found = subtitles("Hello, my world!", [Mark(0, 10), Mark(7, 300), Mark(10, 400)], 1.0, 0, 900)
    assert [(each.text, each.begin_index, each.end_index) for each in found] == [
        ("Hello", 0, 5), ("my", 7, 9), ("world", 10, 15),
    ]  # fmt: skip
    assert found[0].begin_ms == 10


def test_an_engine_without_marks_tells_nothing() -> None:
    assert subtitles("你好", [], 1.0, 0, 400) == ()


marks = st.lists(st.builds(Mark, st.integers(-3, 30), st.integers(-100, 5_000)), max_size=30)


@given(
    text=st.text(max_size=20), marks=marks, begin=st.integers(0, 9_999), ms=st.integers(0, 3_000)
)
def test_whatever_the_engine_says_they_ascend_inside_the_sentence(
    text: str, marks: list[Mark], begin: int, ms: int
) -> None:
    found = subtitles(text, marks, 1.3, begin, begin + ms)
    for each in found:
        assert begin <= each.begin_ms <= each.end_ms <= begin + ms
        assert each.text == text[each.begin_index : each.end_index] != ""
    for each, following in pairwise(found):
        assert each.end_ms == following.begin_ms
        assert each.end_index <= following.begin_index
    if found:
        assert found[-1].end_ms == begin + ms
