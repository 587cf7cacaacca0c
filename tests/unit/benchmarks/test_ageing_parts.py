"""What the benchmark of a long session computes."""

from __future__ import annotations

import pytest

from benchmarks import ageing


def test_the_last_eighth_is_compared_with_the_first() -> None:
    cpu = [0.0, 2.0, 5.0, 8.0, 11.0, 14.0, 17.0, 20.0, 22.5]
    memory = [100.0, 120.0, 121.0, 122.0, 123.0, 124.0, 125.0, 126.0, 127.0]
    figures = ageing.compare(40, list(zip(cpu, memory, strict=True)), 0)
    assert [figure.value for figure in figures] == pytest.approx([1.25, 24.0, 30.0, 7.0, 0.0])


def test_a_part_is_of_whole_sentences() -> None:
    for minutes in (ageing.MINUTES, ageing.FULL_MINUTES):
        assert minutes * 60 % (ageing.SENTENCE_S * ageing.PARTS_OF_SESSION) == 0
