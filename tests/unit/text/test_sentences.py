from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.text.sentences import SentenceSplitter, split_sentences


@pytest.mark.parametrize(
    "text",
    [
        # Each line is one expected sentence; they are joined before they are split.
        "你好。|今天天气不错！|你呢？",
        "价格是3.14元。|圆周率约等于3.14159。",
        "他说：“你好。”|然后走了。",
        "（真的吗？）|是的。",
        "我……|我不知道。",
        "真的吗？！|太好了！！！",
        "等等...|好的。",
        "请访问http://example.com/a?b=1&c=d.e看看。|好的。",
        "发邮件到a.b@example.com。|谢谢。",
        "第一；|第二。",
        "Node.js很好。|Python3.11也好。",
        "他用的是OK.|好的",
        "1.苹果，2.香蕉。|3.橙子",
    ],
)
def test_chinese(text: str) -> None:
    sentences = text.split("|")
    assert split_sentences("".join(sentences)) == sentences


@pytest.mark.parametrize(
    "text",
    [
        "Hello world.|How are you?|Fine!",
        "Dr. Smith met Mr. Jones.|They talked.",
        "J. R. Smith wrote it.|So do I.|He does too.",
        "It costs $3.14 today.|Or 1,234.50 tomorrow.",
        "See https://example.com/x.html?y=1!z for more.|Thanks.",
        "Mail bob@example.co.uk.|Now.",
        'He said "Hi there."|Then he left.',
        "It is 5 p.m. now.|We left at 5 p.m.|The end.",
        "Apples, pears, etc. are fruit.|Ask Foo Inc.|They know.",
        "No. 5 is alive.|I said no.|Then I left.",
        "1. Apples are red.|It was in 2026.|Then it ended.",
        "Wait... what?|Yes.",
        "In the U.S. it rains.|Good.",
        "Version 1.2.3 is out.|Use ../path or a.b.",
        "What?!|No!!!",
    ],
)
def test_english(text: str) -> None:
    sentences = text.split("|")
    assert split_sentences(" ".join(sentences)) == sentences


def test_missing_space_after_an_english_sentence() -> None:
    assert split_sentences("Hi!How are you?Fine") == ["Hi!", "How are you?", "Fine"]


def test_line_breaks_end_sentences() -> None:
    assert split_sentences("标题\n第一段\r\n\r\n第二段 ") == ["标题", "第一段", "第二段"]


def test_straight_quotes_open_and_close() -> None:
    assert split_sentences('"走吧。"他说。"好。"') == ['"走吧。"', "他说。", '"好。"']


@pytest.mark.parametrize("text", ["", "  \n ", "。。。", "……！？", "--- ***", "👍"])
def test_nothing_to_speak(text: str) -> None:
    assert split_sentences(text) == []


def test_punctuation_alone_is_dropped() -> None:
    assert split_sentences("你好。 ……\n——\n再见。") == ["你好。", "再见。"]


def test_long_sentence_is_cut_at_a_comma() -> None:
    assert split_sentences("一二三四五六七，八九十一二三四", 10) == [
        "一二三四五六七，",
        "八九十一二三四",
    ]


def test_long_sentence_is_cut_between_words() -> None:
    assert split_sentences("alpha beta gamma delta", 12) == ["alpha beta", "gamma delta"]


def test_long_sentence_is_cut_before_a_number() -> None:
    assert split_sentences("一二三四五六七八3.14159六", 12) == ["一二三四五六七八", "3.14159六"]


def test_comma_in_a_number_is_no_place_to_cut() -> None:
    assert split_sentences("一共有一二1,234,567个", 12) == ["一共有一二", "1,234,567个"]


def test_hard_cut() -> None:
    assert split_sentences("一" * 25, 10) == ["一" * 10, "一" * 10, "一" * 5]
    assert split_sentences("a" * 25, 10) == ["a" * 10, "a" * 10, "a" * 5]


def test_accents_stay_with_their_letter() -> None:
    text = "e\N{COMBINING ACUTE ACCENT}" * 30
    for sentence in split_sentences(text, 9):
        assert sentence.startswith("e")


def test_a_sentence_comes_out_as_soon_as_the_next_begins() -> None:
    splitter = SentenceSplitter()
    assert splitter.feed("你好。") == []
    assert splitter.feed("今") == ["你好。"]
    assert splitter.feed("天") == []
    assert splitter.flush() == ["今天"]
    assert splitter.flush() == []


def test_after_flush_a_new_text_begins() -> None:
    splitter = SentenceSplitter()
    splitter.feed("3")
    assert splitter.flush() == ["3"]
    assert splitter.feed(".14是数。好") == [".14是数。"]


@pytest.mark.parametrize("text", ["你好。", "你好！！", "他说：“好。”", "我……", "真的？)", "a；"])
def test_a_sentence_settles_at_what_ends_it_in_any_case(text: str) -> None:
    splitter = SentenceSplitter()
    assert splitter.feed(text) == []
    assert splitter.may_settle
    assert splitter.settle() == [text]
    assert not splitter.may_settle
    assert splitter.settle() == splitter.flush() == []


@pytest.mark.parametrize(
    "text", ["", "你好", "3.", "U.S.", "Yes!", "What?", "a;", "你好，", "(a", "你好。然", "Wait..."]
)
def test_nothing_settles_where_more_may_follow(text: str) -> None:
    splitter = SentenceSplitter()
    splitter.feed(text)
    assert not splitter.may_settle
    assert splitter.settle() == []
    assert splitter.feed("14") == []


def test_a_quote_that_is_late_begins_the_next_sentence() -> None:
    splitter = SentenceSplitter()
    splitter.feed("“好。")
    assert splitter.settle() == ["“好。"]
    assert splitter.feed("”他说。") + splitter.flush() == ["”他说。"]


def test_what_cannot_be_spoken_is_dropped_when_it_settles() -> None:
    splitter = SentenceSplitter()
    splitter.feed("……")
    assert splitter.may_settle
    assert splitter.settle() == []
    assert splitter.flush() == []


def test_too_small_a_limit() -> None:
    with pytest.raises(ValueError):
        SentenceSplitter(7)


mixed = st.text(
    st.sampled_from(list("你好一二。！？；…，、.!?;,: \n\"'”“)a bDr3145JI@/"))
    | st.characters(codec="utf-8"),
    max_size=120,
)


@settings(max_examples=300, deadline=None)
@given(text=mixed, cuts=st.lists(st.integers(0, 120)), limit=st.integers(8, 60))
def test_any_pieces_give_the_same_sentences(text: str, cuts: list[int], limit: int) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    splitter = SentenceSplitter(limit)
    found: list[str] = []
    for first, last in pairwise(edges):
        found += splitter.feed(text[first:last])
    assert found + splitter.flush() == split_sentences(text, limit)


@settings(max_examples=300, deadline=None)
@given(text=mixed, limit=st.integers(8, 60))
def test_settling_anywhere_loses_nothing(text: str, limit: int) -> None:
    splitter = SentenceSplitter(limit)
    found: list[str] = []
    for character in text:
        found += splitter.feed(character)
        settles = splitter.may_settle
        settled = splitter.settle()
        assert settles or not settled
        found += settled
    kept = [char for char in "".join(found + splitter.flush()) if char.isalnum()]
    assert kept == [char for char in text if char.isalnum()]


@settings(max_examples=300, deadline=None)
@given(text=mixed, limit=st.integers(8, 60))
def test_nothing_that_can_be_spoken_is_lost(text: str, limit: int) -> None:
    sentences = split_sentences(text, limit)
    kept = [char for char in "".join(sentences) if char.isalnum()]
    assert kept == [char for char in text if char.isalnum()]
    for sentence in sentences:
        assert 0 < len(sentence) <= limit
        assert sentence == sentence.strip()
        assert sentence in text


def test_a_long_text_in_one_piece() -> None:
    assert split_sentences("一二三四五六七八九十" * 10_000) == ["一二三四五六七八九十" * 10] * 1_000
