"""Fillers, repetitions and unwanted words: what goes, what stays, and how the rest reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.joining import join_sentences
from app.core.speech import Word, WordFilter
from app.text.fillers import fillers, has_fillers
from app.text.leaving_out import changed
from app.text.word_filter import finder


def smooth(text: str) -> str:
    return changed(text, (), fillers)[0]


def filtered(text: str, *, removed: tuple[str, ...] = (), masked: tuple[str, ...] = ()) -> str:
    return changed(text, (), finder(WordFilter(removed=removed, masked=masked)))[0]


def timed(*texts: str) -> tuple[Word, ...]:
    return tuple(Word(text, index * 100, index * 100 + 100) for index, text in enumerate(texts))


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("嗯我想订一张票", "我想订一张票"),
        ("嗯，我想订一张票。", "我想订一张票。"),
        ("我想，嗯，订一张票。", "我想，订一张票。"),
        ("我想嗯订一张票", "我想订一张票"),
        ("我想订一张票，嗯。", "我想订一张票。"),
        ("好的。嗯，我想。", "好的。我想。"),
        ("嗯。好的。", "好的。"),
        ("嗯，呃，啊，好的。", "好的。"),
        ("嗯嗯嗯", ""),
        ("嗯。", ""),
        ("啊，我知道了。", "我知道了。"),
        ("我我我想，我想", "我想，我想"),
        ("我，嗯，我想", "我想"),
        ("然后，然后我们我们走了", "然后我们走了"),
        ("这个这个问题", "这个问题"),
        ("Um, I think so.", "I think so."),
        ("Uh, the the cat sat.", "The cat sat."),
        ("I, um, think so.", "I, think so."),
        ("I uh think so", "I think so"),
        ("I think so, uh.", "I think so."),
        ("Yes. Um, I do.", "Yes. I do."),
        ("I I I know", "I know"),
        ("给我um一个", "给我一个"),
    ],
)
def test_what_nobody_wants_to_read_is_left_out(text: str, rest: str) -> None:
    assert smooth(text) == rest


@pytest.mark.parametrize(
    "text",
    [
        "看看这些妈妈天天慢慢做的菜，谢谢。",
        "幺幺零幺幺",
        "他的金额有限额，好啊，走吧。",
        "呃逆怎么治",
        "唔该晒",
        "I think that that is what he had had.",
        "uh-huh",
        "The human hum of a drum and an umbrella",
        "hmmph",
        "no no no",
        "",
        "。",
    ],
)
def test_what_is_meant_stays(text: str) -> None:
    assert smooth(text) == text


@pytest.mark.parametrize(
    ("language", "known"),
    [(None, True), ("zh", True), ("zh-CN", True), ("EN-us", True), ("yue", True), ("pt", False)],
)
def test_the_languages_whose_fillers_are_known(language: str | None, known: bool) -> None:
    assert has_fillers(language) is known


def test_words_are_masked_by_as_many_asterisks() -> None:
    assert filtered("帮我测试一下", masked=("测试",)) == "帮我**一下"
    assert filtered("Damn it, DAMN!", masked=("damn",)) == "**** it, ****!"


def test_words_are_left_out() -> None:
    assert filtered("现在开始测试", removed=("开始",)) == "现在测试"
    assert filtered("please stop it now", removed=("stop it",)) == "please now"
    assert filtered("开始，我们走。", removed=("开始",)) == "我们走。"
    assert filtered("开始。", removed=("开始",)) == ""


def test_latin_words_are_whole_words_and_the_longest_counts() -> None:
    assert filtered("a contest of the test", masked=("test",)) == "a contest of the ****"
    assert filtered("测test试", masked=("test",)) == "测****试"
    assert filtered("北京大学生", masked=("北京", "北京大学")) == "****生"
    assert filtered("c++ (x)", masked=("c++", "(x)")) == "*** ***"


def test_a_word_in_both_lists_is_removed() -> None:
    assert filtered("说坏话了", removed=("坏话",), masked=("坏话",)) == "说了"


def test_the_words_of_the_text_follow_it() -> None:
    find = finder(WordFilter(removed=("开始",), masked=("坏人",)))
    words = timed("现", "在", "开", "始", "抓", "坏", "人")
    text, kept = changed("现在开始，抓坏人。", words, find)
    assert text == "现在，抓**。"
    assert [(word.text, word.start_ms) for word in kept] == [
        ("现", 0), ("在", 100), ("抓", 400), ("*", 500), ("*", 600),
    ]  # fmt: skip


def test_of_a_word_that_is_found_in_part_the_rest_stays() -> None:
    text, kept = changed("嗯我想", timed("嗯我", "想"), fillers)
    assert (text, [word.text for word in kept]) == ("我想", ["我", "想"])


def test_words_that_are_written_otherwise_are_looked_through_by_themselves() -> None:
    find = finder(WordFilter(removed=("开始",)))
    words = timed("二", "十", "点", "开", "始")
    text, kept = changed("20:00开始", words, find)
    assert text == "20:00"
    assert [word.text for word in kept] == ["二", "十", "点"]


def test_words_with_spaces_and_none_keep_their_places() -> None:
    find = finder(WordFilter(masked=("stop",)))
    text, kept = changed("now stop that", timed("now ", " Stop", "that", ""), find)
    assert text == "now **** that"
    assert [word.text for word in kept] == ["now ", " ****", "that"]


TEXTS = st.text("嗯呃啊我你,，。.! abuhmtheTHEİßi*\ud800 1", max_size=40)


@given(TEXTS, st.lists(TEXTS.filter(bool), max_size=4), st.lists(TEXTS, max_size=6))
def test_any_text_is_shortened_in_order_and_never_fails(
    text: str, unwanted: list[str], words: list[str]
) -> None:
    for find in (fillers, finder(WordFilter(removed=tuple(unwanted)))):
        rest, kept = changed(text, timed(*words), find)
        assert len(rest) <= len(text)
        assert len(kept) <= len(words)
        assert [word.start_ms for word in kept] == sorted({word.start_ms for word in kept})
        whole = join_sentences(words)
        changed(whole, timed(*words), find)
