"""Text into the tokens of the punctuation models."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.errors import EngineNotUsable
from app.engines.funasr.splitting import WORDS_FILE, WordList, read_words, split_characters


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("  ", []),
        ("打开wifi了", ["打", "开", "wifi", "了"]),
        ("hello world 3点", ["hello", "world", "3", "点"]),
        ("it's 好", ["it's", "好"]),
    ],
)
def test_characters(text: str, tokens: list[str]) -> None:
    assert split_characters(text) == tokens


def test_as_few_words_as_possible() -> None:
    words = WordList([("今天", 1), ("天气", 1), ("今天天气", 1), ("很好", 1)])
    assert words.split("今天天气很好") == ["今天天气", "很好"]
    assert words.split("天气今天好") == ["天气", "今天", "好"]


def test_the_longer_word_first() -> None:
    words = WordList([("中国", 1), ("中国人", 1), ("人民", 1)])
    assert words.split("中国人民") == ["中国人", "民"]
    assert WordList([("中国人", 1), ("国人", 1), ("中国", 1)]).split("中国人国") == ["中国人", "国"]


def test_frequencies_decide() -> None:
    frequent = [("研究", 900), ("研究生", 5), ("生命", 900), ("命", 5)]
    assert WordList(frequent).split("研究生命") == ["研究", "生命"]
    rare = [("研究", 5), ("研究生", 90_000), ("生命", 5), ("命", 90_000)]
    assert WordList(rare).split("研究生命") == ["研究生", "命"]


def test_latin_and_figures_stay_whole() -> None:
    words = WordList([("打开", 1)])
    tokens = ["打开", "wifi", "hello", "123", "打开", "，", "好"]
    assert words.split("打开wifi hello 123打开，好") == tokens
    assert words.split("") == []


def test_file(tmp_path: Path) -> None:
    assert read_words(tmp_path) is None
    path = tmp_path / WORDS_FILE
    path.write_text("今天\n天气 20 n\n\n", "utf-8")
    words = read_words(tmp_path)
    assert words is not None
    assert words.split("今天天气") == ["今天", "天气"]
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(EngineNotUsable, match="models verify"):
        read_words(tmp_path)
