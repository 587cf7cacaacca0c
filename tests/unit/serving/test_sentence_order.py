"""The order of a stream's events, whichever sentence has its final text first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.core.speech import RecognitionEvent, SentenceBegan, SentenceChanged, SentenceEnded
from app.serving.worker.ordering import Place, SentenceOrder


def ended(number: int) -> SentenceEnded:
    return SentenceEnded(number, number, f"final {number}")


def changed(number: int, text: str) -> SentenceChanged:
    return SentenceChanged(f"{number} {text}", number)


def test_the_next_sentence_is_held_with_its_newest_interim_result() -> None:
    told: list[RecognitionEvent] = []
    order = SentenceOrder(told.append)
    first = order.began(SentenceBegan(1))
    order.changed(first, changed(1, "a"))
    second = order.began(SentenceBegan(2))
    order.changed(second, changed(2, "a"))
    order.changed(second, changed(2, "b"))
    assert told == [SentenceBegan(1), changed(1, "a")]
    assert order.held_from_ms == 2
    order.ended(first, ended(1))
    assert told[2:] == [ended(1), SentenceBegan(2), changed(2, "b")]
    assert order.held_from_ms is None
    order.changed(second, changed(2, "c"))
    order.ended(second, ended(2))
    assert told[5:] == [changed(2, "c"), ended(2)]
    assert len(order) == 0


def test_final_texts_that_came_too_early_follow_at_once() -> None:
    told: list[RecognitionEvent] = []
    order = SentenceOrder(told.append)
    places = [order.began(SentenceBegan(number)) for number in range(3)]
    order.changed(places[1], changed(1, "never shown"))
    order.ended(places[2], ended(2))
    order.ended(places[1], ended(1))
    assert told == [SentenceBegan(0)]
    order.ended(places[0], ended(0))
    assert told[1:] == [ended(0), SentenceBegan(1), ended(1), SentenceBegan(2), ended(2)]


@given(st.lists(st.tuples(st.sampled_from("bce"), st.integers(0, 5)), max_size=40))
def test_any_order_of_work_gives_the_order_of_events(work: list[tuple[str, int]]) -> None:
    told: list[RecognitionEvent] = []
    order = SentenceOrder(told.append)
    places: list[Place] = []
    for what, which in work:
        open_now = [place for place in places if place.ended is None]
        if what == "b":
            places.append(order.began(SentenceBegan(len(places))))
        elif open_now:
            place = open_now[which % len(open_now)]
            number = place.began.start_ms
            if what == "c":
                order.changed(place, changed(number, "x"))
            else:
                order.ended(place, ended(number))
    for place in places:
        if place.ended is None:
            order.ended(place, ended(place.began.start_ms))
    current: int | None = None
    finals = []
    for event in told:
        match event:
            case SentenceBegan(number):
                assert current is None
                current = number
            case SentenceChanged(_, number):
                assert current == number
            case SentenceEnded(number):
                assert current == number
                finals.append(number)
                current = None
    assert finals == list(range(len(places)))
