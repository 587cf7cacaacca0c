"""What a client wants left out is left out of interim and final results, and of their words."""

from __future__ import annotations

import pytest

from app.core.speech import (
    RecognitionOptions,
    RecognitionRequest,
    SentenceBegan,
    SentenceChanged,
    SentenceEnded,
    Word,
    WordFilter,
)
from app.services.wording import Wording, wording

FILTER = WordFilter(removed=("开始",), masked=("坏人",))


def test_who_asks_for_nothing_gets_the_text_as_it_is() -> None:
    assert wording(RecognitionRequest()) is None


@pytest.mark.parametrize("request_", [{"disfluency": True}, {"word_filter": FILTER}])
def test_what_is_not_touched_is_the_same_object(request_: dict[str, object]) -> None:
    worded = Wording(RecognitionRequest(**request_)).worded  # type: ignore[arg-type]  # of a test
    for event in (
        SentenceBegan(0),
        SentenceChanged("好的", 100, (Word("好的", 0, 100),)),
        SentenceEnded(0, 100, "好的。"),
        SentenceEnded(0, 100, ""),
    ):
        assert worded(event) is event


def test_interim_and_final_results_and_their_words_are_worded_alike() -> None:
    worded = Wording(RecognitionRequest(disfluency=True, word_filter=FILTER)).worded
    words = tuple(Word(text, 10 * index, 10 * index + 10) for index, text in enumerate("嗯抓坏人"))
    kept = (Word("抓", 10, 20), Word("*", 20, 30), Word("*", 30, 40))
    assert worded(SentenceChanged("嗯抓坏人", 40, words)) == SentenceChanged("抓**", 40, kept)
    ended = SentenceEnded(0, 40, "嗯，抓坏人。", words, confidence=0.5, emotion="angry")
    assert worded(ended) == SentenceEnded(0, 40, "抓**。", kept, confidence=0.5, emotion="angry")


def test_a_word_that_fillers_interrupt_is_found() -> None:
    worded = Wording(RecognitionRequest(disfluency=True, word_filter=FILTER)).worded
    assert worded(SentenceChanged("现在开嗯始", 10)) == SentenceChanged("现在", 10)


def test_a_sentence_of_which_nothing_is_left_is_empty() -> None:
    worded = Wording(RecognitionRequest(disfluency=True)).worded
    assert worded(SentenceEnded(0, 40, "嗯。", (Word("嗯", 0, 40),))) == SentenceEnded(0, 40, "")


def test_fillers_are_those_of_the_language_that_was_heard() -> None:
    portuguese = RecognitionRequest(disfluency=True, options=RecognitionOptions(language="pt"))
    worded = Wording(portuguese).worded
    assert worded(SentenceChanged("um dia", 10)) == SentenceChanged("um dia", 10)
    assert worded(SentenceEnded(0, 1, "um day", language="en")) == SentenceEnded(
        0, 1, "day", language="en"
    )
    any_language = Wording(RecognitionRequest(disfluency=True)).worded
    heard = SentenceEnded(0, 1, "um dia", language="pt")
    assert any_language(heard) is heard
