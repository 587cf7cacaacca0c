"""A client's hotwords, as the runtime takes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.errors import EngineNotUsable
from app.engines.sherpa import folder as folder_module
from app.engines.sherpa.hotwords import Hotwords
from app.engines.sherpa.kinds import FoundModel


def spelling(folder: Path, *symbols: str, vocabulary: str | None = None) -> Hotwords:
    if vocabulary is not None:
        (folder / "bpe.vocab").write_text(vocabulary, "utf-8")
    return Hotwords(FoundModel("transducer", folder, {}, True, ("<blk>", *symbols, "<unk>")))


def test_weights_are_limited_and_doubles_left_out(tmp_path: Path) -> None:
    hotwords = spelling(tmp_path, "你", "好")
    assert hotwords.written([("你好", 2), ("你", 9.0), ("好", 0.1), ("你好", 3), ("你你", -6)]) == (
        "你好 :2.00/你 :4.00/好 :0.50"
    )


def test_what_cannot_be_heard_is_left_out(tmp_path: Path) -> None:
    hotwords = spelling(tmp_path, "你", "好", "▁A", "B")
    assert hotwords.unit == "cjkchar"
    assert hotwords.written([("你们", 2), ("ab", 2), ("", 2), (" ", 2), ("/:#@", 2)]) == ""


def test_latin_words_are_taken_with_a_vocabulary(tmp_path: Path) -> None:
    hotwords = spelling(tmp_path, "你", "▁A", "B", vocabulary="▁A\t-1.5\nB\t-2\n")
    assert hotwords.unit == "cjkchar+bpe"
    assert hotwords.written([("ab", 2), ("你 ab", 2), ("ac", 2)]) == "AB :2.00/你 AB :2.00"


def test_a_vocabulary_in_lower_case(tmp_path: Path) -> None:
    hotwords = spelling(tmp_path, "▁a", "b", vocabulary="▁a\t-1.5\nb\t-2\n")
    assert hotwords.unit == "bpe"
    assert hotwords.written([("AB", 2)]) == "ab :2.00"


@pytest.mark.parametrize("content", ["", "<html>", "▁A\tx", "\xff\xfe\x00"])
def test_a_damaged_vocabulary_is_refused(content: str, tmp_path: Path) -> None:
    with pytest.raises(EngineNotUsable, match=r"bpe\.vocab is not usable: [^\n]+$"):
        spelling(tmp_path, "▁A", vocabulary=content)


def test_a_vocabulary_that_is_far_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "_MOST_TEXT_BYTES", 10)
    with pytest.raises(EngineNotUsable, match=r"bpe\.vocab is not usable: it has more than 10 "):
        spelling(tmp_path, "▁A", vocabulary="▁A\t-1.5\nB\t-2\n")
