from __future__ import annotations

import pytest

from app.core.joining import join_sentences


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        ([], ""),
        (["", " "], ""),
        (["hello.", "", "good bye. "], "hello. good bye."),
        (["今天天气很好。", "明天呢？"], "今天天气很好。明天呢？"),
        (["今天", "good"], "今天good"),
        (["good", "今天"], "good今天"),
        (["3", "4"], "3 4"),
        (["안녕하세요", "세계"], "안녕하세요 세계"),
    ],
)
def test_a_space_only_between_scripts_that_use_one(texts: list[str], joined: str) -> None:
    assert join_sentences(iter(texts)) == joined
