"""A threshold for the near-field gate, from a recording with both speech and background in it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.audio.gate import BLOCK_MS, OPEN_FACTOR, SURE_FACTOR
from app.audio.levels import Float64, Levels

MIN_BLOCKS: Final = 20

MIN_CONTRAST: Final = 4.0
"""Between the medians of the loud and the quiet blocks (12 dB): with less there is only one kind of
sound in the recording."""

_FAR_PERCENT: Final = 95
"""Of the quiet blocks, that must stay out for good."""

_FLOOR: Final = 1e-5
"""RMS that counts as silence: a third of the smallest step of 16 bits."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """``threshold`` is None where the recording gives none; ``reason`` says why it is this one, or
    what to do. It is the measured gate's own wherever that fits."""

    threshold: float | None
    reason: str


def suggest(levels: Levels) -> Suggestion:
    """The threshold nearest to the present one that keeps the quiet blocks out even while a
    sentence is open, and that half of the loud ones would open alone."""
    if len(levels.rms) < MIN_BLOCKS:
        seconds = MIN_BLOCKS * BLOCK_MS / 1000
        return Suggestion(None, f"record {seconds:g} s or more, with speech and background")
    quiet, loud = _two_kinds(levels.rms)
    if not quiet.size or np.median(loud) < MIN_CONTRAST * max(float(np.median(quiet)), _FLOOR):
        return Suggestion(
            None,
            "the level hardly varies; record speech and, without it, background of a few seconds",
        )
    background = float(np.percentile(quiet, _FAR_PERCENT))
    speech = float(np.median(loud))
    low, high = background / OPEN_FACTOR, speech / SURE_FACTOR
    if low > high:
        return Suggestion(
            None,
            f"the background (up to {rounded(background)}) is too near to the speech "
            f"({rounded(speech)}): bring the microphone nearer, or make the background quieter",
        )
    return Suggestion(
        _nearest(levels.threshold, low, high),
        f"background stays out from {rounded(low)} on (its blocks reach {rounded(background)}), "
        f"and speech opens the gate up to {rounded(high)} (its median is {rounded(speech)})",
    )


def _two_kinds(rms: Float64) -> tuple[Float64, Float64]:
    """The quiet and the loud blocks: Otsu's method on the level in dB, which makes the difference
    between the two means as large as it can be for their sizes."""
    ordered = np.sort(np.maximum(rms, _FLOOR))
    decibels = np.log(ordered)
    count = len(decibels)
    below = np.arange(1, count)
    sums = np.cumsum(decibels)[:-1]
    difference = sums / below - (decibels.sum() - sums) / (count - below)
    split = int(np.argmax(below * (count - below) * difference**2)) + 1
    return ordered[:split], ordered[split:]


def _nearest(value: float, low: float, high: float) -> float:
    """``value``, or the bound that it is beyond, to two digits inside of it."""
    if value < low:
        return min(_two_digits(low, math.ceil), high)
    if value > high:
        return max(_two_digits(high, math.floor), low)
    return value


def _two_digits(value: float, whole: Callable[[float], int]) -> float:
    digits = 1 - math.floor(math.log10(value))
    return round(whole(value * 10.0**digits) / 10.0**digits, digits)


def exactly(value: float) -> str:
    """A threshold for people: all of its digits, never in powers of ten."""
    return np.format_float_positional(value, trim="-")


def rounded(value: float) -> str:
    """A level for people: two digits that count, never in powers of ten."""
    if value <= 0:
        return "0"
    digits = max(0, 1 - math.floor(math.log10(value)))
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{value:.0f}"
