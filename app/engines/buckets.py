"""Batches of similar length: padding is computed like audio, so a ragged batch is a waste."""

from __future__ import annotations

from collections.abc import Sequence

from app.engines.base import MAX_PADDING


def buckets(
    lengths: Sequence[int],
    longest_total: int,
    max_padding: float = MAX_PADDING,
    most: int | None = None,
) -> list[list[int]]:
    """The places in ``lengths``, in batches: the shortest first, those of one batch ascending.

    No batch is longer than ``longest_total``, padding included, unless it is a single input; at
    most the share ``max_padding`` of it is padding; and it has at most ``most`` inputs, None for
    any number.
    """
    found: list[list[int]] = []
    useful = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[place]
        size = len(found[-1]) + 1 if found else 0
        padded = size * length
        fits = padded <= longest_total and (most is None or size <= most)
        if found and fits and useful + length >= (1.0 - max_padding) * padded:
            found[-1].append(place)
            useful += length
        else:
            found.append([place])
            useful = length
    return found
