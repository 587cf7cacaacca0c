"""Which sentences the second pass hears next, by a fake clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.serving.worker.refine_queue import (
    LIVE_IN_A_ROW,
    MAX_BATCH,
    MAX_WAITING,
    MAX_WAITING_S,
    RefineQueue,
)


def queue(max_batch_s: float = 60.0, max_run_s: float = 10.0) -> RefineQueue[str]:
    return RefineQueue(max_batch_s, max_run_s)


def live(tested: RefineQueue[str], key: str, seconds: float, deadline: float) -> None:
    tested.add(key, seconds, deadline=deadline, expires=True)


def bulk(tested: RefineQueue[str], key: str, seconds: float) -> None:
    tested.add(key, seconds, deadline=None)


def teach(tested: RefineQueue[str], pace: float) -> None:
    """A second of audio takes ``pace`` seconds."""
    bulk(tested, "taught", 10.0)
    assert tested.take(0.0) == ["taught"]
    tested.done(10.0 * pace)


def test_the_earliest_deadline_goes_first_whenever_it_came() -> None:
    tested = queue()
    for key, seconds, deadline in [("later", 1.0, 3.0), ("first", 8.0, 1.0), ("last", 20.0, 5.0)]:
        live(tested, key, seconds, deadline)
    order = []
    while batch := tested.take(0.0):
        order += batch
        tested.done(0.1)
    assert order == ["first", "later", "last"]


def test_a_batch_has_no_more_padding_than_a_quarter() -> None:
    tested = queue()
    live(tested, "four", 4.0, 1.0)
    live(tested, "three", 3.0, 2.0)
    live(tested, "one", 1.0, 3.0)
    assert set(tested.take(0.0)) == {"four", "three"}  # 7 of 8; with the third 8 of 12
    tested.done(0.1)
    assert tested.take(0.0) == ["one"]


def test_a_batch_has_no_more_audio_than_the_model_wants_padding_included() -> None:
    tested = queue(max_batch_s=10.0)
    for number in range(4):
        live(tested, str(number), 3.0, 10.0 + number)
    assert tested.take(0.0) == ["0", "1", "2"]
    tested.done(0.1)
    live(tested, "huge", 50.0, 9.0)
    assert tested.take(0.0) == ["huge"]  # alone, it is taken all the same


@given(st.lists(st.floats(0.1, 60.0), min_size=1, max_size=30), st.booleans())
def test_every_batch_keeps_the_limits_and_everybody_comes_once(
    lengths: list[float], is_live: bool
) -> None:
    tested: RefineQueue[int] = RefineQueue(40.0, 10.0)
    for number, seconds in enumerate(lengths):
        tested.add(number, seconds, deadline=float(number) if is_live else None)
    seen: list[int] = []
    while batch := tested.take(0.0):
        assert tested.done(0.1) == batch
        seen += batch
        audio = [lengths[number] for number in batch]
        padded = len(audio) * max(audio)
        assert len(batch) == 1 or (padded <= 40.0 and sum(audio) >= 0.75 * padded)
    assert sorted(seen) == list(range(len(lengths)))


def test_files_have_their_turn_after_four_live_batches_and_no_earlier() -> None:
    tested = queue()
    bulk(tested, "file", 30.0)
    order = []
    for number in range(7):
        live(tested, f"live {number}", 2.0, 100.0)
        order += tested.take(float(number))
        tested.done(0.1)
    assert order.index("file") == LIVE_IN_A_ROW
    assert order[:LIVE_IN_A_ROW] == [f"live {number}" for number in range(LIVE_IN_A_ROW)]


def test_files_fill_what_a_live_batch_leaves_free() -> None:
    tested = queue(max_batch_s=9.0)
    bulk(tested, "file", 3.0)
    bulk(tested, "long file", 9.0)
    live(tested, "a", 3.0, 1.0)
    live(tested, "b", 3.0, 2.0)
    assert tested.take(0.0) == ["a", "b", "file"]


def test_the_oldest_file_goes_first() -> None:
    tested = queue()
    for key, seconds in [("a", 30.0), ("b", 2.0), ("c", 29.0)]:
        bulk(tested, key, seconds)
    assert tested.take(0.0) == ["a", "c"]


def test_what_expires_is_given_up_waiting_or_running() -> None:
    tested = queue(max_batch_s=1.0)
    live(tested, "runs", 1.0, 1.0)
    live(tested, "waits", 1.0, 2.0)
    tested.add("patient", 1.0, deadline=0.5)
    assert tested.take(0.0) == ["patient"]
    assert tested.done(0.1) == ["patient"]
    assert tested.take(0.1) == ["runs"]
    assert tested.next_expiry() == 1.0
    assert tested.expired(0.9) == []
    assert tested.expired(1.0) == ["runs"]
    assert tested.next_expiry() == 2.0
    assert tested.done(1.5) == []  # its result comes too late
    assert tested.expired(2.0) == ["waits"]
    assert tested.next_expiry() is None
    assert tested.take(2.0) == []


def test_what_was_discarded_is_gone_waiting_or_running() -> None:
    tested = queue(max_batch_s=1.0)
    for key in ("runs", "waits"):
        live(tested, key, 1.0, 1.0)
    assert tested.take(0.0) == ["runs"]
    for key in ("runs", "waits", "unknown"):
        tested.discard(key)
    assert (tested.done(0.1), tested.take(0.2), tested.next_expiry()) == ([], [], None)


def test_a_batch_grows_no_further_than_its_earliest_deadline_allows() -> None:
    tested = queue()
    teach(tested, 0.1)
    for number in range(8):
        live(tested, str(number), 2.0, 0.65 + number)
    assert len(tested.take(0.0)) == 3  # 0.6 s of the 0.65 s that there are


def test_a_batch_of_files_does_not_keep_the_others_for_long() -> None:
    tested = queue(max_run_s=0.35)
    teach(tested, 0.1)
    for number in range(8):
        bulk(tested, str(number), 1.0)
    assert tested.take(0.0) == ["0", "1", "2"]


def test_who_cannot_be_in_time_is_not_begun() -> None:
    tested = queue(max_batch_s=2.0)
    teach(tested, 0.5)
    live(tested, "hopeless", 2.0, 0.9)
    live(tested, "in time", 2.0, 1.1)
    assert tested.take(0.0) == ["in time"]
    tested.done(1.0)
    assert tested.take(0.0) == []
    assert tested.expired(0.9) == ["hopeless"]


def test_a_wrong_guess_does_not_keep_everybody_out_for_ever() -> None:
    tested = queue()
    teach(tested, 100.0)  # the very first batch, with all that a library does then
    for number in range(50):
        live(tested, str(number), 2.0, number + 0.8)
        if tested.take(number):
            break
        assert tested.expired(number + 0.8) == [str(number)]
    else:
        raise AssertionError("nobody was begun")
    tested.done(0.1)
    live(tested, "next", 2.0, 100.8)
    assert tested.take(100.0) == ["next"]


def test_a_file_goes_before_who_cannot_be_in_time() -> None:
    tested = queue(max_batch_s=2.0)
    teach(tested, 0.5)
    live(tested, "hopeless", 2.0, 0.9)
    bulk(tested, "file", 2.0)
    assert tested.take(0.0) == ["file"]


def test_under_too_much_work_some_are_in_time_and_not_none() -> None:
    """Sentences of 2 s come every 0.4 s and take 0.5 s each: four in five can be done."""
    tested = queue(max_batch_s=2.0)
    teach(tested, 0.25)
    now, in_time, came, busy_until = 0.0, 0, 0, 0.0
    for tick in range(4_000):
        now = tick / 100
        tested.expired(now)
        if tick % 40 == 0:
            live(tested, f"{tick}", 2.0, now + 0.85)
            came += 1
        if now >= busy_until:
            in_time += len(tested.done(0.5)) if busy_until else 0
            busy_until = now + 0.5 if tested.take(now) else 0.0
    assert in_time > 0.7 * came


def test_sentences_without_audio_share_a_batch_up_to_a_number() -> None:
    tested = queue(max_batch_s=float("inf"))
    for number in range(MAX_BATCH + 1):
        live(tested, str(number), 0.0, 1.0)
    assert len(tested.take(0.0)) == MAX_BATCH
    tested.done(0.1)
    assert len(tested.take(0.0)) == 1


@pytest.mark.parametrize("is_live", [True, False])
def test_a_lane_is_bounded_and_the_other_one_does_not_care(is_live: bool) -> None:
    tested = queue()
    deadline = 1.0 if is_live else None
    assert tested.has_room(MAX_WAITING_S * 2, live=is_live)  # nobody is there
    tested.add("most", MAX_WAITING_S - 10, deadline=deadline)
    assert tested.has_room(10, live=is_live)
    assert not tested.has_room(11, live=is_live)
    assert tested.has_room(MAX_WAITING_S, live=not is_live)
    tested.discard("most")
    for number in range(MAX_WAITING):
        assert tested.has_room(0, live=is_live)
        tested.add(str(number), 0, deadline=deadline)
    assert not tested.has_room(0, live=is_live)
