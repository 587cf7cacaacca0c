"""Token ids become words and text."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import sentencepiece

from app.core.errors import EngineNotUsable
from app.engines.funasr.tokens import (
    SENTENCEPIECE_FILE,
    PieceList,
    SpelledWord,
    TokenList,
    read_pieces,
    spaced,
)

NAMES = [
    "<blank>",
    "<s>",
    "</s>",
    "你",
    "好",
    "hel@@",
    "lo",
    "world",
    "a",
    "p",
    "3",
    "<unk>",
    "it's",
]


def ids(*names: str) -> list[int]:
    return [NAMES.index(name) for name in names]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ((), ""),
        (("你", "好"), "你好"),
        (("hel@@", "lo", "world"), "hello world"),
        (("你", "hel@@", "lo", "好"), "你hello好"),
        (("world", "你", "world"), "world你world"),
        (("hel@@",), "hel"),
        (("hel@@", "你", "lo"), "hel你lo"),
        (("<s>", "你", "<unk>", "</s>"), "你"),
        (("hel@@", "</s>", "lo"), "hello"),
        (("a", "p", "p", "你", "a", "好"), "APP你a好"),
        (("a", "world", "a", "a"), "a world AA"),
        (("3", "3", "world", "3"), "33 world 3"),
        (("it's", "world"), "it's world"),
    ],
)
def test_text(names: tuple[str, ...], text: str) -> None:
    assert TokenList(NAMES).text(ids(*names)) == text


def test_words_tell_their_tokens() -> None:
    words = TokenList(NAMES).words(ids("你", "hel@@", "lo", "</s>", "a", "p"))
    assert words == [SpelledWord("你", 0, 0), SpelledWord("hello", 1, 2), SpelledWord("AP", 4, 5)]


def test_spaces() -> None:
    assert spaced([]) == ""
    assert spaced(["1", "2", "a", "好", "b", "c"]) == "12 a好b c"


PIECES = [
    "<unk>",
    "<s>",
    "▁hel",
    "lo",
    "▁world",
    "你",
    "，",
    "<|zh|>",
    "<0xE4>",
    "<0xBD>",
    "<0xA0>",
    "▁",
]


def test_pieces() -> None:
    pieces = PieceList(PIECES)
    spoken = [7, 11, 5, 6, 2, 3, 4, 8, 9, 10]
    assert pieces.tag(7) == "zh"
    assert pieces.tag(5) is None
    assert pieces.text(spoken) == "你， hello world你"
    assert pieces.words(spoken) == [
        SpelledWord("你", 2, 2),
        SpelledWord("hello", 4, 5),
        SpelledWord("world", 6, 6),
        SpelledWord("你", 7, 9),
    ]


def test_pieces_of_half_a_character() -> None:
    assert PieceList(PIECES).text([5, 8]) == "你\ufffd"


def test_sentencepiece(tmp_path: Path) -> None:
    """A model of the kind that SenseVoice has gives the text that SentencePiece itself gives."""
    sentences = ["hello world", "你好 world", "你 hello", "天 气 很 好 hello"] * 20
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=written,
        vocab_size=60,
        model_type="bpe",
        hard_vocab_limit=False,
        user_defined_symbols=["<|zh|>", "<|HAPPY|>"],
        minloglevel=2,
    )
    (tmp_path / SENTENCEPIECE_FILE).write_bytes(written.getvalue())
    own = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    pieces = read_pieces(tmp_path)
    assert len(pieces) == len(own)
    for sentence in ("hello world", "你好 world", "天气 hello"):
        spoken = own.encode(sentence)
        assert pieces.text(spoken) == sentence
    tagged = own.encode("<|zh|><|HAPPY|>hello")
    assert [pieces.tag(token) for token in tagged if pieces.tag(token)] == ["zh", "HAPPY"]
    assert pieces.text(tagged) == "hello"


def test_list_in_place_of_sentencepiece(tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_text(json.dumps(PIECES), "utf-8")
    assert read_pieces(tmp_path).text([2, 3]) == "hello"


def test_damaged_sentencepiece(tmp_path: Path) -> None:
    (tmp_path / SENTENCEPIECE_FILE).write_bytes(b"no model at all")
    with pytest.raises(EngineNotUsable, match=r"models verify"):
        read_pieces(tmp_path)
