"""The batching policy, with a fake clock."""

from __future__ import annotations

from app.serving.batcher import AT_ONCE, Batcher


def test_nobody_ready_nothing_due() -> None:
    batcher: Batcher[str] = Batcher(None, tick_s=0.02)
    assert batcher.due(1.0) is None
    assert batcher.oldest is None
    assert batcher.take(1.0) == []


def test_the_first_step_is_due_at_once_and_the_next_a_tick_later() -> None:
    batcher: Batcher[str] = Batcher(None, tick_s=0.02)
    batcher.add("a", 5.0)
    assert batcher.due(5.0) == AT_ONCE
    assert batcher.take(5.0) == ["a"]
    batcher.add("b", 5.001)
    assert batcher.due(5.001) == 5.02


def test_an_urgent_stream_does_not_wait_for_the_tick() -> None:
    batcher: Batcher[str] = Batcher(None, tick_s=0.02)
    batcher.add("a", 5.0)
    batcher.take(5.0)
    batcher.add("b", 5.001)
    batcher.add("c", 5.001, urgent=True)
    assert batcher.due(5.001) == AT_ONCE
    assert batcher.take(5.001) == ["b", "c"]
    batcher.add("d", 5.002)
    assert batcher.due(5.002) == 5.021


def test_oldest_first_up_to_the_cap_and_the_rest_next() -> None:
    batcher: Batcher[int] = Batcher(2, tick_s=0.02)
    for key in (3, 1, 2):
        batcher.add(key, key / 10)
    batcher.add(3, 0.9)
    assert batcher.oldest == 0.3
    assert batcher.take(1.0) == [3, 1]
    assert len(batcher) == 1
    assert batcher.oldest == 0.2
    assert batcher.take(1.02) == [2]


def test_who_is_gone_is_not_stepped_and_is_urgent_no_more() -> None:
    batcher: Batcher[str] = Batcher(None, tick_s=0.02)
    batcher.add("a", 1.0)
    batcher.take(1.0)
    batcher.add("b", 1.0, urgent=True)
    batcher.add("c", 1.0)
    batcher.discard("b")
    batcher.discard("unknown")
    assert batcher.due(1.0) == 1.02
    assert batcher.take(1.02) == ["c"]
