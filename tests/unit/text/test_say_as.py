"""Texts that are read character by character."""

from __future__ import annotations

import pytest

from app.text.say_as import spoken


@pytest.mark.parametrize(
    ("text", "kind", "chinese", "english"),
    [
        ("110", "digits", "一一零", "one one zero"),
        ("１２", "digits", "一二", "one two"),
        ("3月5日", "digits", "三月五日", "three 月 five 日"),
        (
            "010-1122 3",
            "telephone",
            "零幺零，幺幺二二，三",
            "zero one zero, one one two two, three",
        ),
        ("+86", "telephone", "加号八六", "plus eight six"),
        ("AB1", "characters", "A B 一", "A B one"),
        ("x-2", "id", "x 杠 二", "x dash two"),
        ("好，a?", "punctuation", "好逗号a问号", "好，aquestion mark"),
        ("12", "cardinal", "12", "12"),
        ("2026-01-02", "date", "2026-01-02", "2026-01-02"),
        ("12", "", "12", "12"),
        ("12", "no such thing", "12", "12"),
        (" 1 ", " Digits ", " 一 ", "one"),
        ("", "telephone", "", ""),
        ("---", "telephone", "", ""),
    ],
)
def test_each_kind(text: str, kind: str, chinese: str, english: str) -> None:
    assert spoken(text, kind, "zh-CN") == chinese
    assert spoken(text, kind, "en-US") == english


@pytest.mark.parametrize(("language", "said"), [("zh-HK", "一"), ("yue", "一"), ("ja-JP", "one")])
def test_by_the_language_of_the_voice(language: str, said: str) -> None:
    assert spoken("1", "digits", language) == said
