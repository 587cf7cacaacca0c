"""The second pass: whole sentences once more, and punctuation, in a thread of their own.

A sentence comes here after the last feed of its first pass, or without one. It gets its final text
from the offline part, if there is one, then punctuation, then figures (``writing.py``). Where a
first pass has left a text, that goes out instead when the second one is not done by the sentence's
deadline, fails, or hears nothing. Which sentences are heard together, and when:
``refine_queue.py``.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from app.audio.pcm import Float32, Int16, to_float
from app.core import metrics
from app.core.speech import RecognitionOptions, Word
from app.engines.base import Hypothesis, OfflineRecognizer, Punctuator, Segment
from app.serving.worker.refine_queue import RefineQueue
from app.serving.worker.writing import Finish, finished_texts

log = structlog.get_logger(__name__)

SECOND_PASS_BUDGET_S: Final = 0.6
"""Time that a final text may take after the first pass, see :class:`Refiner`, unless the owner has
said otherwise (``ASR_SECOND_PASS_BUDGET_MS``)."""

LENGTH_SHARE: Final = 0.1
"""Of a sentence's length, added to that: for a long one more patience, and more to gain."""

_SHORTEST_RUN_S: Final = 0.1
"""A batch may take half the budget, and so long at least; see :class:`RefineQueue`."""

_NICENESS: Final = 10
"""Of the thread, on Linux: what is left of the CPU when the first pass has had its share."""

_NOBODY: Final = Hypothesis("")


@dataclass(slots=True, eq=False)
class Refinement:
    """A sentence on its way to its final text.

    ``samples``: its audio at 16 kHz; None where only punctuation is wanted. ``first``: what the
    first pass heard, and ``first_needs`` what that text still needs; ``fallback``: the same as it
    goes out if it has to. Both None without a first pass. ``second_needs``: of the offline part's
    texts. ``settled`` gets the result, once, on the event loop: a hypothesis whose text is final,
    its times from the first of ``samples``; or, without ``first``, the error.
    """

    options: RecognitionOptions
    log_id: str
    settled: Callable[[Hypothesis | Exception], None]
    seconds: float
    samples: Int16 | None = None
    first: Hypothesis | None = None
    fallback: Hypothesis | None = None
    first_needs: Finish = field(default_factory=Finish)
    second_needs: Finish = field(default_factory=Finish)
    since: float = 0.0  # loop time of its submission

    @property
    def live(self) -> bool:
        """Whether somebody waits for the text."""
        return self.options.live


class Refiner:
    """All sentences of a worker that wait for their final texts.

    ``offline``: None where there is only punctuation to do. ``budget_s``: so long after the first
    pass, and a tenth of the sentence's length besides, its text goes out as it is. ``on_room`` is
    called when :meth:`has_room` may have changed. ``yields``: the thread gets less of the CPU than
    the others. ``batches`` counts what was done.
    """

    def __init__(
        self,
        offline: OfflineRecognizer | None,
        punctuator: Punctuator | None,
        *,
        budget_s: float,
        on_room: Callable[[], None],
        yields: bool,
    ) -> None:
        self._offline = offline
        self._punctuator = punctuator
        self._budget_s = budget_s
        self._on_room = on_room
        max_batch_s = float("inf")
        self._longest = sys.maxsize  # samples
        if offline is not None:
            max_batch_s = offline.capabilities.max_batch_s
            self._longest = int(
                offline.capabilities.max_segment_s * offline.capabilities.sample_rate
            )
        self._queue: RefineQueue[Refinement] = RefineQueue(
            max_batch_s, max(budget_s / 2, _SHORTEST_RUN_S)
        )
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0  # uvloop's handles do not all know it
        self._running = False
        self.batches = 0
        self._executor = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="refine", initializer=_yield_cpu if yields else None
        )
        self._queue_seconds = metrics.QUEUE.labels("refine")
        self._seconds = metrics.STEPS.labels("refine")
        self._sentences = metrics.STEP_STREAMS.labels("refine")

    def work(self) -> dict[Hashable, int]:
        """The batches, while one runs: for the heartbeat, from its thread."""
        return {"refine": self.batches} if self._running else {}

    def has_room(self, seconds: float, *, live: bool) -> bool:
        """Whether a sentence of so many seconds may wait here. Where it may not, one without a
        first pass has to wait elsewhere."""
        return self._queue.has_room(seconds, live=live)

    def submit(self, job: Refinement) -> None:
        """Bring a sentence to its final text. Where there is no room for it, the first pass' text
        goes out at once."""
        now = job.since = self._loop.time()
        if job.fallback is not None and not self.has_room(job.seconds, live=job.live):
            self._give_up(job, job.fallback)
            return
        deadline = now + self._budget_s + LENGTH_SHARE * job.seconds if job.live else None
        # Only what is heard counts for the length of a batch.
        heard_s = job.seconds if job.samples is not None else 0.0
        self._queue.add(job, heard_s, deadline=deadline, expires=job.fallback is not None)
        self._wake.set()
        self._watch()

    def discard(self, job: Refinement) -> None:
        """Nobody wants it any more."""
        self._queue.discard(job)
        self._watch()

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while jobs := self._queue.take(self._loop.time()):
                    await self._refine(jobs)
                self._on_room()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def _refine(self, jobs: list[Refinement]) -> None:
        self.batches += 1
        self._running = True
        began = self._loop.time()
        self._queue_seconds.observe(began - min(job.since for job in jobs))
        answers = await self._in_thread(jobs)
        self._running = False
        took_s = self._loop.time() - began
        self._seconds.observe(took_s)
        self._sentences.observe(len(jobs))
        wanted = set(self._queue.done(took_s))
        self._watch()
        for job, answer in zip(jobs, answers, strict=True):
            if job in wanted:
                job.settled(answer)
        self._on_room()

    async def _in_thread(self, jobs: list[Refinement]) -> list[Hypothesis | Exception]:
        try:
            return await self._loop.run_in_executor(self._executor, self._answers, jobs)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # in what is ours: the models' own are in the answers
            log.exception("no final texts", sentences=len(jobs))
            return [job.fallback or job.first or error for job in jobs]

    # Deadlines

    def _watch(self) -> None:
        """Have the timer go off at the next deadline."""
        expiry = self._queue.next_expiry()
        if self._timer is not None:
            if self._timer_due == expiry:
                return
            self._timer.cancel()
            self._timer = None
        if expiry is not None:
            self._timer = self._loop.call_at(expiry, self._expire)
            self._timer_due = expiry

    def _expire(self) -> None:
        self._timer = None
        for job in self._queue.expired(self._loop.time()):
            self._give_up(job, job.fallback or _NOBODY)
        self._wake.set()
        self._watch()
        self._on_room()

    @staticmethod
    def _give_up(job: Refinement, fallback: Hypothesis) -> None:
        metrics.SECOND_PASS_SKIPPED.inc()
        job.settled(fallback)

    # In the thread

    def _answers(self, jobs: Sequence[Refinement]) -> list[Hypothesis | Exception]:
        """Each sentence's final hypothesis, or its error."""
        chosen = [_better(job, second) for job, second in zip(jobs, self._heard(jobs), strict=True)]
        good = [each for each in chosen if not isinstance(each, Exception)]
        texts = iter(finished_texts(good, self._punctuator))
        return [
            each if isinstance(each, Exception) else replace(each[0], text=next(texts))
            for each in chosen
        ]

    def _heard(self, jobs: Sequence[Refinement]) -> list[Hypothesis | Exception | None]:
        """What the offline part hears; None for those that are not for it."""
        given = [job for job in jobs if job.samples is not None]
        if self._offline is None or not given:
            return [None] * len(jobs)
        segments = [Segment(self._audio(job), job.options) for job in given]
        try:
            found = list(self._offline.recognize(segments))
            if len(found) != len(given):
                raise ValueError(f"{len(found)} hypotheses for {len(given)} sentences")
        except Exception as error:
            found = [error] * len(given)
        answers = iter(found)
        return [None if job.samples is None else self._placed(job, next(answers)) for job in jobs]

    def _audio(self, job: Refinement) -> Float32:
        """The sentence, as long as the model is good for: without some of its pre-roll, if need
        be, since the sentences themselves are never longer."""
        assert job.samples is not None
        return to_float(job.samples[-self._longest :])

    def _placed(self, job: Refinement, found: Hypothesis | Exception) -> Hypothesis | Exception:
        """With times that count from the first sample, also from one that was not heard."""
        if isinstance(found, Exception) or job.samples is None:
            return found
        missing = max(len(job.samples) - self._longest, 0)
        if not missing or self._offline is None:
            return found
        later_ms = missing * 1000 // self._offline.capabilities.sample_rate
        words = tuple(
            Word(word.text, word.start_ms + later_ms, word.end_ms + later_ms)
            for word in found.words
        )
        return replace(found, words=words)


def _better(
    job: Refinement, second: Hypothesis | Exception | None
) -> tuple[Hypothesis, Finish] | Exception:
    """Whose text goes out, and what it still needs; the error if there is none."""
    first = job.first
    if first is None:
        return (
            (second or _NOBODY, job.second_needs) if not isinstance(second, Exception) else second
        )
    if isinstance(second, Exception):
        log.error(
            "second pass failed, the first one's text goes out",
            task_id=job.log_id,
            exc_info=second,
        )
        return first, job.first_needs
    if second is None or (first.text and not second.text):
        return first, job.first_needs
    merged = replace(
        second,
        words=second.words or first.words,
        language=second.language or first.language,
        emotion=second.emotion or first.emotion,
        events=second.events or first.events,
    )
    return merged, job.second_needs


def _yield_cpu() -> None:
    """Lower the priority of the calling thread, and of those that a library starts in it: it must
    not delay interim results. Elsewhere than on Linux that would lower the whole process'."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
