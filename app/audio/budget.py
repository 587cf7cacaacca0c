"""What one file may cost: bytes, decoded audio, time, broken packets.

Nothing that a file says about itself is believed: samples are counted as they come, and time is
measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app.audio.damage import Damage
from app.core.errors import AudioTooLong, BadAudio

Clock = Callable[[], float]
"""Seconds from an arbitrary start; never goes back."""

_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of one file.

    ``max_bytes``: its size. ``max_audio_ms``: decoded audio, per channel; ``padding_ms`` more may
    come of an encoder's padding, which is decoded before it is cut off. ``wall_s``: seconds of
    work; the time in which the consumer deals with a block is not counted. Broken packets have
    the limits of :class:`~app.audio.damage.Damage`.
    """

    max_bytes: int
    max_audio_ms: int
    wall_s: float
    padding_ms: int = 0


class Spending:
    """What has been spent of a :class:`Budget`; its clock runs from the start. Not for use by two
    threads at once."""

    def __init__(self, budget: Budget, clock: Clock = time.monotonic) -> None:
        self._budget = budget
        self._clock = clock
        self._audio_ns = 0
        self.damage = Damage()
        self._left_s = budget.wall_s
        self._since: float | None = clock()

    @property
    def expired(self) -> bool:
        """Whether the time is used up."""
        return self._time_left() < 0

    def check_size(self, size: int) -> None:
        """Take the file's ``size`` in bytes into account.

        Raises:
            AudioTooLong: more than the budget.
        """
        if size > self._budget.max_bytes:
            raise AudioTooLong.of_bytes(self._budget.max_bytes)

    def check_time(self) -> None:
        """Raises BadAudio when the time is used up."""
        if self.expired:
            raise too_slow()

    def pause(self) -> None:
        """The consumer has the floor: its time is not counted."""
        self._left_s, self._since = self._time_left(), None

    def resume(self) -> None:
        """Work goes on."""
        self._since = self._clock()

    def count_audio(self, samples: int, sample_rate: int) -> None:
        """``samples`` of each channel at ``sample_rate`` (Hz) were decoded.

        Raises:
            AudioTooLong: more in all than the budget.
        """
        # Rounded down, so that exactly the limit is never too long.
        self._audio_ns += samples * _NS // sample_rate
        limit_ms = self._budget.max_audio_ms
        if self._audio_ns > (limit_ms + self._budget.padding_ms) * 1_000_000:
            raise AudioTooLong.lasting(limit_ms)

    def _time_left(self) -> float:
        if self._since is None:
            return self._left_s
        return self._left_s - (self._clock() - self._since)


def too_slow() -> BadAudio:
    """The error of a file whose time is used up. Not DeadlineExceeded, which clients try again: it
    would cost as much the next time."""
    return BadAudio("Decoding took too long: send shorter audio, or 16-bit wav or pcm.")
