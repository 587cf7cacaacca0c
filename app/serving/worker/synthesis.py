"""Synthesis: a bounded queue of utterances, and as many threads as the engine allows. Who is
admitted, and who is next, is decided in ``speaking_queue.py``.

An utterance is at most ``MAX_UTTERANCE_CHARS`` long, so the audio that waits for a slow reader's
credit is bounded too and the engine never has to wait in the middle of a sentence.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import msgspec

from app.audio.pcm import Int16
from app.core import metrics
from app.core.errors import EngineUnavailable, InvalidText, TooMuchUnread
from app.core.speech import Mark, Utterance
from app.engines.base import Synthesizer
from app.serving.protocol import AUDIO_OUT_CREDIT_S
from app.serving.worker.speaking_queue import Sentence, SpeakingQueue
from app.serving.worker.tasks import SpeechSink, client_error
from app.text.normalise import Normalizer

MAX_UTTERANCE_CHARS: Final = 600
MAX_QUEUE: Final = 256
"""Sentences of accepted texts that wait at the same time: far more than admission lets come, so
that it bounds memory and nothing else."""

MAX_UNREAD_BYTES: Final = 256 * 1024 * 1024
"""Audio that waits for its readers, all together; a sentence has a megabyte or two at the most."""

_MAX_PIECE_BYTES: Final = 256 * 1024


class SpeakingTask:
    """One utterance: its audio that waits for credit, and whether it was cancelled."""

    def __init__(
        self, owner: Synthesis, utterance: Utterance, sink: SpeechSink, log_id: str, credit: int
    ) -> None:
        self._owner = owner
        self.utterance = utterance
        self.log_id = log_id
        self._sink = sink
        self._credit = credit
        self._waiting: deque[tuple[bytes, tuple[Mark, ...]]] = deque()
        self._complete = False
        self.cancelled = False  # read by the engine's thread
        self._over = False
        self.pieces = 0  # of the engine

    def credit(self, samples: int) -> None:
        """The reader has taken so many samples."""
        self._credit += samples
        self._pump()

    def cancel(self) -> None:
        """Forget the utterance; its sink is called no more."""
        self.cancelled = True
        self._end()

    def piece(self, pcm: bytes, marks: tuple[Mark, ...]) -> None:
        """Audio from the engine."""
        if self._over:
            return
        for start in range(0, len(pcm), _MAX_PIECE_BYTES):
            part = pcm[start : start + _MAX_PIECE_BYTES]
            self._waiting.append((part, marks if start == 0 else ()))
            self._owner.unread_bytes += len(part)
        self._pump()

    def complete(self) -> None:
        """The engine has finished."""
        self._complete = True
        self._pump()

    def fail(self, error: BaseException) -> None:
        """The engine has failed."""
        if not self._over:
            self._end()
            self._sink.failed(client_error(error, "synthesis", self.log_id))

    def _pump(self) -> None:
        """Send what the credit allows; a piece may overdraw it, so that it is never stuck."""
        if self._over:
            return
        while self._waiting and self._credit > 0:
            pcm, marks = self._waiting.popleft()
            self._owner.unread_bytes -= len(pcm)
            self._credit -= len(pcm) // 2
            self._sink.speech(pcm, marks)
        if self._complete and not self._waiting:
            self._end()
            self._sink.done()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._owner.unread_bytes -= sum(len(pcm) for pcm, _ in self._waiting)
            self._waiting.clear()
            self._owner.over(self)


class Synthesis:
    """All utterances of one synthesiser. ``pieces`` counts the engine's pieces, ``active`` the
    utterances that it has not finished."""

    def __init__(
        self,
        engine: Synthesizer,
        threads: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``threads`` limits what the engine allows; 0 does not. ``clock`` gives the seconds that
        the engine's speed is measured in."""
        self.engine = engine
        self.capabilities = engine.capabilities
        self._normalizer = None if self.capabilities.normalizes_text else Normalizer()
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        allowed = self.capabilities.max_parallel
        self._parallel = min(threads, allowed) if threads else allowed
        self._queue: SpeakingQueue[SpeakingTask] = SpeakingQueue(
            self._parallel, MAX_QUEUE, self.capabilities.ms_per_character / 1000
        )
        self._look_again: asyncio.TimerHandle | None = None
        self._executor = ThreadPoolExecutor(self._parallel, thread_name_prefix="speak")
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self.pieces = 0
        self.unread_bytes = 0  # audio that waits for the credit of its readers

    @property
    def parallel(self) -> int:
        """Utterances that are spoken at the same time."""
        return self._parallel

    @property
    def capacity(self) -> int:
        """Utterances that are accepted at once."""
        return self._parallel + MAX_QUEUE

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            await self._failure
        finally:
            if self._look_again is not None:
                self._look_again.cancel()
            for task in self._queue.running:
                task.cancelled = True
            self._executor.shutdown(wait=False, cancel_futures=True)

    def work(self) -> dict[Hashable, int]:
        """What is outstanding (``app/serving/control.py``): each utterance that the engine speaks,
        with its pieces, because one thread may hang while others go on. Called from the heartbeat's
        thread; copying a dict is atomic."""
        return {task: task.pieces for task in self._queue.running.copy()}

    def open(
        self, utterance: Utterance, sink: SpeechSink, log_id: str, lead_s: float | None = None
    ) -> SpeakingTask:
        """Accept an utterance. ``lead_s``: None for the first one of a new text, otherwise the
        seconds of audio that the listener has still to play before it.

        Raises:
            FirstAudioTooLate: the queue is full, or a new text would have to wait too long.
            TooMuchUnread: a new text, and too much waits for its readers already.
            InvalidText: longer than an utterance may be.
        """
        if len(utterance.text) > MAX_UTTERANCE_CHARS:
            raise InvalidText(f"one sentence may have at most {MAX_UTTERANCE_CHARS} characters")
        if self._failure.done():
            raise EngineUnavailable
        if lead_s is None and self.unread_bytes > MAX_UNREAD_BYTES:
            raise TooMuchUnread
        credit = int(AUDIO_OUT_CREDIT_S * self.capabilities.sample_rate)
        task = SpeakingTask(self, utterance, sink, log_id, credit)
        self._queue.add(task, len(utterance.text), lead_s, self._clock())
        self._start_next()
        return task

    def over(self, task: SpeakingTask) -> None:
        """``task`` was cancelled or is complete."""
        self._queue.cancel(task)

    def _start_next(self) -> None:
        """Start what is due, and look again when the next one is."""
        if self._look_again is not None:
            self._look_again.cancel()
            self._look_again = None
        if self._failure.done():
            return  # the threads are gone
        while (sentence := self._queue.take(self._clock())) is not None:
            self._start(sentence)
        due = self._queue.due()
        if due is not None:
            self._look_again = self._loop.call_later(due - self._clock(), self._start_next)

    def _start(self, sentence: Sentence[SpeakingTask]) -> None:
        """It has waited from ``sentence.queued_at`` to ``sentence.started_at``."""
        metrics.QUEUE.labels("speak").observe(sentence.started_at - sentence.queued_at)
        task = sentence.key
        future = self._loop.run_in_executor(self._executor, self._speak, task)
        future.add_done_callback(partial(self._finished, task))

    def _finished(self, task: SpeakingTask, done: asyncio.Future[None]) -> None:
        completed = not done.cancelled() and done.exception() is None
        self._queue.finished(task, self._clock(), completed=completed)
        if not done.cancelled():
            error = done.exception()
            if error is not None:
                task.fail(error)
            else:
                task.complete()
        self._start_next()

    def _speak(self, task: SpeakingTask) -> None:
        """In a thread: run the engine over one utterance."""
        if task.cancelled:
            return
        utterance = self._normalized(task.utterance)
        # The engine's marks count the characters of what it was given.
        has_marks = utterance.text == task.utterance.text
        pieces = self.engine.synthesize(utterance)
        try:
            for piece in pieces:
                if task.cancelled:
                    return
                marks = piece.marks if has_marks else ()
                self._loop.call_soon_threadsafe(self._came, task, piece.samples, marks)
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()

    def _came(self, task: SpeakingTask, samples: Int16, marks: tuple[Mark, ...]) -> None:
        self.pieces += 1
        task.pieces += 1
        self._queue.spoke(task, self._clock())
        if len(samples):
            task.piece(samples.tobytes(), marks)

    def _normalized(self, utterance: Utterance) -> Utterance:
        if self._normalizer is None or not self._normalizer.needs(utterance.text):
            return utterance
        text = self._normalizer.normalize(utterance.text, utterance.language or "")
        return msgspec.structs.replace(utterance, text=text)
