"""Sentences in smaller parts, and the marks between their words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.speech import SentenceEnded, Word
from app.text.captions import Caption, captions


def spoken(text: str, *words: str, start_ms: int = 1_000, end_ms: int = 9_000) -> SentenceEnded:
    """A sentence whose words last 100 ms each, from 1,100 ms on."""
    times = [(start_ms + 100 * (at + 1), start_ms + 100 * (at + 2)) for at in range(len(words))]
    each = tuple(Word(word, *time) for word, time in zip(words, times, strict=True))
    return SentenceEnded(start_ms, end_ms, text, words=each)


def texts(parts: list[Caption]) -> list[str]:
    return [part.text for part in parts]


def marks(parts: list[Caption]) -> list[str]:
    return [word.marks for part in parts for word in part.words]


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("北京的天气。", ["北京", "的", "天气"], ["", "", "。"]),
        ("Turn it on, please.", ["turn", "it", "on", "please"], ["", "", ",", "."]),
        ("“好”，他说：“走！”", ["好", "他", "说", "走"], ["”，", "", "：", "！”"]),
        ("(a) b …", ["a", "b"], [")", "…"]),
        # Figures are not written as they are spoken.
        ("北京，100天。", ["北京", "一百", "天"], ["，", "", "。"]),
        ("北京100，天。", ["北京", "一百", "天"], ["", "，", "。"]),
        ("100，天", ["一百", "天"], ["，", ""]),
        ("今天，50%。", ["今天", "百分", "之", "五十"], ["，", "", "", "。"]),
        ("100。", ["一百"], ["。"]),
        # One mark, and nothing in its place that was not found: it is the word's before it.
        ("好。", ["好", "嗯"], ["。", ""]),
        ("", ["好"], [""]),
        # A word that is missing is not the same word far behind.
        ("好" + "a" * 40 + "嗯，", ["好", "嗯"], ["", "，"]),
    ],
)
def test_what_follows_a_word(text: str, words: list[str], expected: list[str]) -> None:
    assert marks(captions(spoken(text, *words))) == expected


def test_without_a_reason_to_cut_it_stays_whole() -> None:
    (part,) = captions(spoken(" 好，走。 ", "好", "走"))
    assert (part.text, part.start_ms, part.end_ms) == ("好，走。", 1_000, 9_000)
    assert [each.word for each in part.words] == [
        Word("好", 1_100, 1_200),
        Word("走", 1_200, 1_300),
    ]


def test_what_has_no_word_times_stays_whole() -> None:
    (part,) = captions(spoken("好，走。" * 20), marks="，", max_chars=4)
    assert part == Caption("好，走。" * 20, 1_000, 9_000)


def test_marks_end_a_part() -> None:
    sentence = spoken("好，走吧，再见。", "好", "走", "吧", "再见")
    parts = captions(sentence, marks="，")
    assert texts(parts) == ["好，", "走吧，", "再见。"]
    assert [(part.start_ms, part.end_ms) for part in parts] == [
        (1_000, 1_200),
        (1_200, 1_400),
        (1_400, 9_000),
    ]
    assert texts(captions(sentence, marks="；")) == ["好，走吧，再见。"]


def test_a_part_is_no_longer_than_it_may_be() -> None:
    sentence = spoken("今天天气很好，我们去公园。", *"今天天气很好我们去公园")
    assert texts(captions(sentence, max_chars=8)) == ["今天天气很好，", "我们去公园。"]
    assert texts(captions(sentence, max_chars=4)) == ["今天天气", "很好，", "我们去公", "园。"]
    assert texts(captions(sentence, max_chars=50)) == ["今天天气很好，我们去公园。"]


def test_words_are_not_cut() -> None:
    sentence = spoken("one extraordinary thing", "one", "extraordinary", "thing")
    assert texts(captions(sentence, max_chars=4)) == ["one", "extraordinary", "thing"]


def test_an_opening_quote_goes_with_what_it_opens() -> None:
    sentence = spoken("他说：“走。”", "他", "说", "走")
    assert texts(captions(sentence, marks="：")) == ["他说：", "“走。”"]


def test_beside_a_word_that_is_not_in_the_text_there_is_no_cut() -> None:
    sentence = spoken("买100个，好。", "买", "一百", "个", "好")
    assert texts(captions(sentence, max_chars=4)) == ["买100个，", "好。"]


def test_capitals_that_become_two_characters() -> None:
    # In lower case the first has two characters, which would move all that follows.
    assert texts(captions(spoken("İ a, b", "a", "b"), marks=",")) == ["İ a,", "b"]


ALPHABET = "好走吧ab1 ，。,.“”İ%"


@given(
    text=st.text(ALPHABET, max_size=60),
    words=st.lists(st.text(ALPHABET, max_size=4), max_size=20),
    ends=st.sampled_from(["", "，", "。,"]),
    limit=st.none() | st.integers(4, 50),
)
def test_nothing_is_lost_and_all_is_in_order(
    text: str, words: list[str], ends: str, limit: int | None
) -> None:
    sentence = spoken(text, *words)
    parts = captions(sentence, marks=ends, max_chars=limit)
    together = "".join(part.text for part in parts)
    assert together.replace(" ", "") == text.replace(" ", "")
    kept = [Word(word.text.strip(), word.start_ms, word.end_ms) for word in sentence.words]
    assert [each.word for part in parts for each in part.words] == [w for w in kept if w.text]
    assert (parts[0].start_ms, parts[-1].end_ms) == (1_000, 9_000)
    edges = [time for part in parts for time in (part.start_ms, part.end_ms)]
    assert edges == sorted(edges)
    if text.strip():
        assert all(part.text for part in parts)
