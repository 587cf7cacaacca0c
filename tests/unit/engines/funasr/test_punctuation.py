"""Punctuation: batches, long texts, and how marks are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.engines.funasr.punctuation import (
    CtPunctuator,
    Marked,
    _settled,
    load_punctuator,
    written_final,
    written_interim,
)
from app.engines.funasr.settings import FunasrOptions
from app.engines.funasr.splitting import WORDS_FILE
from tests.support import random_offline

TEXTS = [
    "一丁丂七丄丅丆万丈三上下丌不与",
    "",
    "hello world",
    "丌hello world不与hello",
    *("".join(chr(0x4E00 + k * step % 290) for k in range(step * 9)) for step in (1, 7, 23, 29)),
    " ".join(("hello", "world", "一丁七")[k * k % 3] for k in range(90)),
    "  ",
]


def load(folder: Path, *, realtime: bool) -> CtPunctuator:
    options = FunasrOptions(threads=1)
    return load_punctuator(folder, "cpu", options, lambda _: None, realtime=realtime)


@pytest.mark.parametrize("realtime", [False, True])
def test_a_batch_gives_what_each_gives_alone(tmp_path: Path, realtime: bool) -> None:
    punctuator = load(random_offline.punctuation(tmp_path, realtime=realtime), realtime=realtime)
    alone = [punctuator.punctuate([text])[0] for text in TEXTS]
    assert list(punctuator.punctuate(TEXTS)) == alone
    assert list(punctuator.punctuate(TEXTS[::-1])) == alone[::-1]
    assert alone[1] == ""
    for text, found in zip(TEXTS, alone, strict=True):
        kept = [char for char in found.lower() if char.isalnum()]
        assert kept == [char for char in text if char.isalnum()]
    assert sum(found.count("，") for found in alone) > 10


def test_nothing_to_do(tmp_path: Path) -> None:
    punctuator = load(random_offline.punctuation(tmp_path, realtime=False), realtime=False)
    assert list(punctuator.punctuate([])) == []
    assert list(punctuator.punctuate(["", " "])) == ["", " "]


@pytest.mark.parametrize(
    "text", ["안녕 하세요", "これはテストです", "ça va très bien", "привет мир", "你好 안녕"]
)
def test_other_languages_stay_as_they_are(tmp_path: Path, text: str) -> None:
    punctuator = load(random_offline.punctuation(tmp_path, realtime=False), realtime=False)
    first, second = punctuator.punctuate([text, "一丁七"])
    assert first == text
    assert second != "一丁七"


def test_whole_words_are_tokens_where_the_model_has_a_list(tmp_path: Path) -> None:
    folder = random_offline.punctuation(tmp_path, realtime=False)
    punctuator = load(folder, realtime=False)
    assert punctuator._split("一丁七") == ["一", "丁", "七"]
    (folder / WORDS_FILE).write_text("一丁\n", "utf-8")
    assert load(folder, realtime=False)._split("一丁七") == ["一丁", "七"]


def marked(*pairs: str) -> list[Marked]:
    """``你/，`` is a token with a mark."""
    return [Marked(pair.partition("/")[0], pair.partition("/")[2]) for pair in pairs]


@pytest.mark.parametrize(
    ("pairs", "final", "interim"),
    [
        (["你", "好"], "你好。", "你好"),
        (["你", "好/，"], "你好。", "你好"),
        (["你", "好/、"], "你好。", "你好"),
        (["你", "好/？"], "你好？", "你好"),
        (["你/，", "好/。"], "你，好。", "你，好"),
        (["hello", "world"], "Hello world.", "hello world"),
        (["hello/，", "world/，"], "Hello, world.", "hello, world"),
        (["hello/。", "are", "you/？"], "Hello. Are you?", "hello. are you"),
        (["hello", "world/、"], "Hello world。", "hello world"),
        (["你/，", "hello", "好"], "你，hello好。", "你，hello好"),
        (["你/。", "hello/，", "好"], "你。Hello,好。", "你。hello,好"),
        (["NBA", "iPhone"], "NBA iPhone.", "NBA iPhone"),
        (["3", "5/，", "个"], "3 5,个。", "3 5,个"),
    ],
)
def test_marks_are_written(pairs: list[str], final: str, interim: str) -> None:
    assert written_final(marked(*pairs)) == final
    assert written_interim(marked(*pairs)) == interim


def test_what_is_settled_ends_with_the_last_stop() -> None:
    marks = ["", "", "。", "", "？", "", "。"]
    assert _settled(marks) == (5, marks)


def test_first_two_and_last_tokens_settle_nothing() -> None:
    marks = ["。", "。", "", "，", "。"]
    assert _settled(marks) == (0, marks)


def test_very_long_text_is_cut_at_a_comma() -> None:
    marks = ["，" if place in (50, 120) else "" for place in range(201)]
    count, found = _settled(marks)
    assert count == 121
    assert found[120] == "。"
    assert found[50] == "，"
    assert _settled(marks[:200]) == (0, marks[:200])
    assert _settled([""] * 300)[0] == 0
