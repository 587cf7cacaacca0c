"""Batches of similar length."""

from __future__ import annotations

import numpy as np
import pytest

from app.engines.buckets import buckets


def test_nothing() -> None:
    assert buckets([], 100) == []


def test_one_that_is_too_long_goes_alone() -> None:
    assert buckets([500, 10], 100) == [[1], [0]]


def test_similar_lengths_go_together() -> None:
    assert buckets([10, 12, 11, 10], 1_000) == [[0, 3, 2, 1]]


def test_a_ragged_batch_is_cut() -> None:
    # Three tens and a thirty would be 45 of 120 padding.
    assert buckets([10, 30, 10, 10], 1_000) == [[0, 2, 3], [1]]


def test_padding_counts_as_length() -> None:
    assert buckets([8, 8, 10], 24) == [[0, 1], [2]]
    assert buckets([8, 8, 10], 30) == [[0, 1, 2]]


@pytest.mark.parametrize("seed", range(20))
def test_every_place_once_and_within_the_limits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 1_000, rng.integers(1, 60)).tolist()
    found = buckets(lengths, 3_000)
    assert sorted(place for bucket in found for place in bucket) == list(range(len(lengths)))
    for bucket in found:
        padded = len(bucket) * max(lengths[place] for place in bucket)
        useful = sum(lengths[place] for place in bucket)
        assert len(bucket) == 1 or padded <= 3_000
        assert useful >= 0.75 * padded
