"""When to start a step that takes long, and how many streams a device carries.

A step for n streams takes about ``a + b * n``, and ``a`` is worth several ``b``: the more streams
share a step, the more of them a device carries. Their chunks of audio become full at different
times, though. So a step is held back for those that are about to join, but never so long that the
oldest one's answer comes later than it should (:class:`LatestStart`).

Pure policy, like ``batcher.py``: a test simulates hours of many streams with a fake clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.serving.batcher import AT_ONCE, Batcher, K

USABLE: Final = 0.8
"""Share of a chunk's own length in which a step has to be over, waiting for it included, and of
a device's time that calibration gives away. The rest is a reserve for what the model of the step
does not know: the VAD, the second pass, speech that has more words than the calibration's noise."""

MAX_HOLD: Final = 0.4
"""Of a chunk's length: how long the oldest stream waits for others at most."""

WORTH_STEPS: Final = 8.0
"""A stream that joins saves the fixed cost of a step of its own; so many times that cost is as
long as anybody is kept waiting. With steps of milliseconds that is a tick."""

SHARING_PAYS: Final = 0.5
"""Share of its time that the device would be busy if every stream had its steps for itself. From
here on the hold is worth its full length; with less to do, it is shorter in proportion: answers
that come sooner are then better than a device that rests more."""

LATE: Final = 1 / 8
"""Of a chunk's length: a stream that is later than this is not waited for; its client pauses."""

_MEMORY: Final = 0.98
"""What a step still counts after the next one: the model looks back about 50 steps."""

_OUTLIER: Final = 3.0
"""A step that took more than so many times what was expected counts as that: a single stall of
the machine changes little, and a lasting change still gets through. After one that took so many
times less, what was seen before counts half: it was the exception."""

_MIN_SPREAD: Final = 0.25
"""Least variance of the batch sizes (streams squared) from which a slope can be told."""


class StepTime:
    """``a + b * n``: the seconds of a step for n streams, from the steps that were seen.

    Least squares with exponential forgetting. While all steps have about the same number of
    streams, the ratio of ``a`` to ``b`` stays what it was, and only the whole is scaled. Neither
    is ever negative. Before the first step all is 0.
    """

    def __init__(self) -> None:
        self.fixed_s = 0.0
        self.per_stream_s = 0.0
        # Sums over the steps, each with its weight: 1, n, n², seconds, n * seconds.
        self._weight = self._n = self._nn = self._s = self._ns = 0.0

    def predicted(self, streams: int) -> float:
        """Seconds of a step for so many streams."""
        return self.fixed_s + self.per_stream_s * streams

    def observe(self, streams: int, seconds: float) -> None:
        """A step of so many streams took so long."""
        expected = self.predicted(streams)
        keep = 0.5 if seconds * _OUTLIER < expected else _MEMORY
        if expected:
            seconds = min(seconds, _OUTLIER * expected)
        new = (1.0, streams, streams**2, seconds, streams * seconds)
        old = (self._weight, self._n, self._nn, self._s, self._ns)
        self._weight, self._n, self._nn, self._s, self._ns = (
            before * keep + added for before, added in zip(old, new, strict=True)
        )
        self._fit()

    def most(self, seconds: float) -> int | None:
        """The most streams whose step fits into so many seconds, 0 if not even one does; None if
        there is no limit to be seen."""
        if self.fixed_s >= seconds > 0:
            return 0
        if not self.per_stream_s:
            return None
        # A little more, so that what fits exactly is not lost by rounding.
        return int((seconds - self.fixed_s) / self.per_stream_s + 1e-9)

    def _fit(self) -> None:
        mean_n, mean_s = self._n / self._weight, self._s / self._weight
        spread = self._nn / self._weight - mean_n**2
        if spread >= _MIN_SPREAD:
            slope = (self._ns / self._weight - mean_n * mean_s) / spread
            self.per_stream_s = min(max(slope, 0.0), mean_s / mean_n)
            self.fixed_s = max(mean_s - self.per_stream_s * mean_n, 0.0)
            return
        expected = self.fixed_s + self.per_stream_s * mean_n
        if expected:
            self.fixed_s *= mean_s / expected
            self.per_stream_s *= mean_s / expected
        else:  # nothing is known about sharing: as if it gained nothing
            self.per_stream_s = mean_s / mean_n


def learnt(steps: Sequence[tuple[int, float]]) -> StepTime:
    """A model from steps, each as its streams and seconds."""
    model = StepTime()
    for streams, seconds in steps:
        model.observe(streams, seconds)
    return model


def sustained(model: StepTime, step_s: float, max_batch: int | None, most: int) -> int:
    """How many streams a device carries while all of them speak.

    Each of them wants a step in every ``step_s``; ``max_batch`` of them share one at most, and
    ``most`` is what the engine can have open. At least 1, also of a device that is too slow.
    """
    usable_s = USABLE * step_s
    fitting = model.most(usable_s)
    batch = min(each for each in (fitting, max_batch, most) if each is not None)
    if batch < 1:
        return 1
    seconds = model.predicted(batch)
    if not seconds:
        return most
    return max(1, min(int(batch * usable_s / seconds + 1e-9), most))


class LatestStart(Batcher[K]):
    """Starts a step as late as the oldest stream's deadline allows, if others are about to join.

    Whoever has had a step is expected to be ready again ``step_s`` after it was ready last: that
    is how fast people speak. If nobody is expected in time, the step starts at once; so a stream
    that is alone never waits, nor does anybody for a client that pauses. Somebody in a hurry
    starts a step at once and takes all along that are ready. A stream that always has audio
    (a flood) is in each step once at most, and the last in the queue after it.
    """

    def __init__(self, step_s: float, max_batch: int | None, tick_s: float) -> None:
        """``step_s``: the seconds of audio that a step takes of a stream. ``tick_s``: streams that
        get ready within this time share a step even if a step costs next to nothing."""
        super().__init__(max_batch, tick_s)
        self.step_time = StepTime()
        self._step_s = step_s
        self._late_s = LATE * step_s
        # When each stream should be ready next. Streams are added as time goes by, and each is
        # expected equally long after that: the first is the earliest.
        self._expected: dict[K, float] = {}

    def add(self, key: K, now: float, *, urgent: bool = False) -> None:
        if key not in self._ready:
            self._expected.pop(key, None)
            self._expected[key] = now + self._step_s
        super().add(key, now, urgent=urgent)

    def discard(self, key: K) -> None:
        """``key`` is gone, or has no open sentence any more: nobody waits for it."""
        super().discard(key)
        self._expected.pop(key, None)

    def due(self, now: float) -> float | None:
        oldest = self.oldest
        if oldest is None:
            return None
        cap = self.cap()
        if self._urgent or (cap is not None and len(self._ready) >= cap):
            return AT_ONCE
        latest = oldest + self._hold()
        coming = self._next_expected(now)
        if latest <= now or coming is None or coming > latest:
            return AT_ONCE
        return min(latest, coming + self._late_s)

    def cap(self) -> int | None:
        """As many as fit into the time that a step may take. Where that is hardly one, because the
        device is too slow or has become so, as many as share a step of twice a single one's time:
        fewer would put everybody further behind."""
        single_s = self.step_time.predicted(1)
        fitting = self.step_time.most(max(USABLE * self._step_s, 2 * single_s))
        caps = [each for each in (fitting, self._max_batch) if each is not None]
        return max(1, min(caps)) if caps else None

    def took(self, streams: int, seconds: float) -> None:
        self.step_time.observe(streams, seconds)

    def _hold(self) -> float:
        """Seconds that the oldest stream may wait, so that one more can join."""
        left = USABLE * self._step_s - self.step_time.predicted(len(self._ready) + 1)
        worth = max(self._tick_s, WORTH_STEPS * self.step_time.fixed_s)
        alone = len(self._expected) * self.step_time.predicted(1) / self._step_s
        return min(left, min(worth, MAX_HOLD * self._step_s) * min(1.0, alone / SHARING_PAYS))

    def _next_expected(self, now: float) -> float | None:
        """When the next stream should be ready; those that are too late are not expected."""
        while self._expected:
            key, at = next(iter(self._expected.items()))
            if at + self._late_s > now:
                return at
            del self._expected[key]
        return None
