"""The order and the admission of sentences, with a fake clock."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import Overloaded
from app.serving.worker.speaking_queue import (
    MAX_FIRST_AUDIO_S,
    RUN_AHEAD_S,
    Pace,
    SpeakingQueue,
)


def queue_of(slots: int = 1, max_waiting: int = 100) -> SpeakingQueue[str]:
    return SpeakingQueue(slots, max_waiting)


def taken(queue: SpeakingQueue[str], now: float) -> str | None:
    sentence = queue.take(now)
    return None if sentence is None else sentence.key


def emptied(queue: SpeakingQueue[str], now: float) -> list[str]:
    """What is spoken by one slot after the other, everything taking no time."""
    keys = []
    while (key := taken(queue, now)) is not None:
        keys.append(key)
        queue.finished(key, now, completed=True)
    return keys


# Order


def test_who_needs_it_first_is_first_and_ties_go_in_order() -> None:
    queue = queue_of()
    queue.add("far", 10, 50.0, 0.0)
    queue.add("soon", 10, 3.0, 0.0)
    queue.add("caller", 10, None, 0.0)
    queue.add("late", 10, 0.0, 0.0)
    assert emptied(queue, 0.0) == ["caller", "late", "soon", "far"]


def test_a_deadline_stands_still_so_that_nobody_starves() -> None:
    queue = queue_of()
    queue.add("book", 10, 3.0, 0.0)
    order = []
    for second in range(6):
        queue.add(f"caller {second}", 10, 0.0, float(second))
        order.append(taken(queue, float(second)))
        queue.finished(str(order[-1]), float(second), completed=True)
    assert order == ["caller 0", "caller 1", "caller 2", "book", "caller 3", "caller 4"]


def test_one_slot_is_never_idle_while_anybody_waits() -> None:
    queue = queue_of(slots=1)
    queue.add("far", 10, 1_000.0, 0.0)
    assert queue.due() == float("-inf")
    assert taken(queue, 0.0) == "far"
    assert queue.due() is None


def test_what_is_far_ahead_leaves_one_of_several_slots_free() -> None:
    queue = queue_of(slots=2)
    for name in ("book 1", "book 2"):
        queue.add(name, 10, 30.0, 0.0)
    assert taken(queue, 0.0) == "book 1"
    assert taken(queue, 0.0) is None
    queue.add("caller", 10, None, 0.0)
    assert taken(queue, 0.0) == "caller"
    queue.finished("caller", 1.0, completed=True)
    assert taken(queue, 1.0) is None
    assert queue.due() == 30.0 - RUN_AHEAD_S
    assert taken(queue, 19.99) is None
    assert taken(queue, 20.0) == "book 2"


def test_what_is_not_far_ahead_takes_every_slot() -> None:
    queue = queue_of(slots=2)
    for name in ("a", "b"):
        queue.add(name, 10, RUN_AHEAD_S, 0.0)
    assert [taken(queue, 0.0), taken(queue, 0.0)] == ["a", "b"]


def test_what_is_cancelled_while_it_waits_is_gone() -> None:
    queue = queue_of()
    for name in ("a", "b", "c"):
        queue.add(name, 10, 0.0, 0.0)
    queue.cancel("b")
    queue.cancel("b")
    assert len(queue) == 2
    assert emptied(queue, 0.0) == ["a", "c"]


@given(st.lists(st.floats(0, 100), max_size=30), st.integers(1, 4))
def test_everything_is_spoken_once_in_the_order_of_need(leads: list[float], slots: int) -> None:
    queue = queue_of(slots)
    for number, lead in enumerate(leads):
        queue.add(str(number), 10, lead, 0.0)
    keys = [int(key) for key in emptied(queue, 1_000.0)]
    assert keys == sorted(range(len(leads)), key=lambda number: leads[number])


# Admission; one character takes 10 ms before anything was measured


def test_a_text_is_refused_when_its_first_audio_would_come_too_late() -> None:
    queue = queue_of()
    queue.add("running", 150, None, 0.0)
    assert taken(queue, 0.0) == "running"
    queue.add("waits 1.5 s", 100, None, 0.0)
    assert queue.wait_s(0.0) == pytest.approx(2.5)
    with pytest.raises(Overloaded):
        queue.add("waits 2.5 s", 10, None, 0.0)
    assert len(queue) == 1
    queue.add("waits 2 s", 10, None, 0.5)


def test_what_is_needed_later_does_not_count_and_what_was_accepted_is_not_refused() -> None:
    queue = queue_of()
    queue.add("running", 100, None, 0.0)
    assert taken(queue, 0.0) == "running"
    for number in range(50):
        queue.add(f"book {number}", 200, 5.0 + number, 0.0)
    assert queue.wait_s(0.0) == pytest.approx(1.0)
    queue.add("caller", 100, None, 0.0)
    for number in range(20):
        queue.add(f"accepted {number}", 200, 0.0, 0.0)
    with pytest.raises(Overloaded):
        queue.add("another", 10, None, 0.0)


def test_the_hard_bound_holds_for_everybody() -> None:
    queue = queue_of(max_waiting=2)
    queue.add("a", 1, 0.0, 0.0)
    queue.add("b", 1, 100.0, 0.0)
    for lead_s in (None, 0.0, 100.0):
        with pytest.raises(Overloaded):
            queue.add("c", 1, lead_s, 0.0)


def test_work_is_shared_by_the_slots() -> None:
    queue = queue_of(slots=3)
    for number in range(3):
        queue.add(f"running {number}", 100 * (number + 1), None, 0.0)
        taken(queue, 0.0)
    assert queue.wait_s(0.0) == pytest.approx(1.0)
    queue.add("a", 150, None, 0.0)  # from 1 s to 2.5 s
    assert queue.wait_s(0.0) == pytest.approx(2.0)
    queue.add("b", 150, None, 0.0)  # from 2 s on
    assert queue.wait_s(0.0) == pytest.approx(2.5)


def test_a_free_slot_is_never_refused_however_slow_the_engine_is() -> None:
    queue = queue_of(slots=2)
    for number in range(3):
        queue.add("slow", 10, None, 0.0)
        taken(queue, 0.0)
        queue.spoke("slow", 30.0)
        queue.finished("slow", 60.0, completed=True)
        assert queue.pace.s_to_first_piece == pytest.approx(30.0), number
    queue.add("first", 10, None, 0.0)
    assert taken(queue, 0.0) == "first"
    queue.add("second", 10, None, 0.0)
    assert taken(queue, 0.0) == "second"
    with pytest.raises(Overloaded):
        queue.add("third", 10, None, 0.0)


def test_the_time_to_the_first_piece_counts() -> None:
    queue = queue_of()
    queue.add("a", 100, None, 0.0)
    taken(queue, 0.0)
    queue.spoke("a", 0.75)
    queue.spoke("a", 0.9)  # of its first piece only
    queue.finished("a", 1.0, completed=True)
    assert queue.pace.s_per_character == pytest.approx(0.01)
    queue.add("b", 150, None, 1.0)
    taken(queue, 1.0)
    with pytest.raises(Overloaded):
        queue.add("c", 10, None, 1.0)  # 1.5 s and 0.75 s
    queue.add("c", 10, None, 1.3)


def test_it_learns_how_fast_the_engine_is() -> None:
    pace = Pace(0.01)
    assert pace.s_per_character == pytest.approx(0.01)
    pace.completed(100, 10.0)
    assert 0.05 < pace.s_per_character < 0.1
    for _ in range(30):
        pace.completed(100, 10.0)
    assert pace.s_per_character == pytest.approx(0.1, rel=0.05)
    for _ in range(60):
        pace.completed(100, 0.1)
    assert pace.s_per_character == pytest.approx(0.001, rel=0.2)


def test_a_sentence_that_takes_longer_is_evidence_while_it_runs() -> None:
    queue = queue_of()
    queue.add("running", 100, None, 0.0)
    taken(queue, 0.0)
    assert queue.wait_s(0.5) == pytest.approx(0.5)
    before = queue.pace.s_per_character
    queue.add("waiting", 100, 0.0, 0.5)
    waits = [queue.wait_s(now) for now in (2.0, 4.0, 8.0)]
    assert waits == sorted(waits)
    assert waits[0] > 2.0  # as much as it is late, and the next one at the pace that shows now
    assert queue.wait_s(8.0) > 7.0 + 3.0
    assert queue.pace.s_per_character == before
    with pytest.raises(Overloaded):
        queue.add("caller", 10, None, 4.0)


def test_a_cancelled_sentence_is_about_to_free_its_slot_and_tells_no_time() -> None:
    queue = queue_of()
    queue.add("interrupted", 600, None, 0.0)
    taken(queue, 0.0)
    with pytest.raises(Overloaded):
        queue.add("caller", 10, None, 0.1)
    queue.cancel("interrupted")
    queue.add("caller", 10, None, 0.1)
    queue.finished("interrupted", 50.0, completed=True)
    assert queue.pace.s_per_character == pytest.approx(0.01)
    assert taken(queue, 50.0) == "caller"


def test_a_failure_tells_no_time() -> None:
    queue = queue_of()
    queue.add("a", 100, None, 0.0)
    taken(queue, 0.0)
    queue.finished("a", 0.0, completed=False)
    assert queue.pace.s_per_character == pytest.approx(0.01)


def test_a_queue_that_is_served_gives_what_it_promised() -> None:
    """Whoever is admitted on two slots that take 10 ms a character starts within 2 s."""
    queue = queue_of(slots=2)
    queued: dict[str, float] = {}
    ends: list[tuple[float, str]] = []
    waited: list[float] = []
    now, refused = 0.0, 0
    for number in range(300):
        now += 0.1  # twenty characters' time for two slots; the texts have 50
        while ends and ends[0][0] <= now:
            at, key = heapq.heappop(ends)
            queue.finished(key, at, completed=True)
            _start(queue, at, queued, ends, waited)
        try:
            queue.add(str(number), 50, None, now)
            queued[str(number)] = now
        except Overloaded:
            refused += 1
        _start(queue, now, queued, ends, waited)
    assert refused > 50
    assert len(waited) > 100
    assert 1.0 < max(waited) <= MAX_FIRST_AUDIO_S + 0.01


def _start(
    queue: SpeakingQueue[str],
    now: float,
    queued: dict[str, float],
    ends: list[tuple[float, str]],
    waited: list[float],
) -> None:
    while (sentence := queue.take(now)) is not None:
        waited.append(now - queued[sentence.key])
        heapq.heappush(ends, (now + 0.01 * sentence.characters, sentence.key))
