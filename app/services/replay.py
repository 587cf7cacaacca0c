"""A recognition stream that outlives its worker.

The audio since the last final is kept (while nobody speaks, only the last 400 ms of it). When the
worker dies, a new stream at another replica gets that audio again, and its events are moved to
where they belong: a sentence that the client knows to be open goes on, and what was final is not
heard twice. The client notices a delay.

In the same way a stream leaves a worker that is about to end, or one that carries more than others,
but of its own accord: between two sentences, and only for a place that it was granted before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import msgspec
import structlog

from app.core import metrics
from app.core.errors import EngineLost, EngineUnavailable, Overloaded, SpeechError
from app.core.speech import (
    RecognitionEvent,
    RecognitionOptions,
    SentenceBegan,
    SentenceChanged,
    SentenceEnded,
    Word,
)
from app.services.losses import LossCount
from app.serving.handles import RecognitionHandle
from app.serving.pool import Pool

log = structlog.get_logger(__name__)

PREROLL_MS: Final = 400
"""Kept from before what the worker has looked at: a sentence may be found to have begun there."""

GRID_MS: Final = 10
"""A repeated stream begins on this grid, so that engines that work in blocks see the same ones."""

LONGEST_KEPT_S: Final = 90
"""A sentence is cut after 60 s; beyond this, the oldest audio is given up."""

MOVE_TIMEOUT_S: Final = 60.0
"""A stream whose worker has died waits so long for another one. Two large models take some seconds
to load, and several times that on a busy machine or from a cold disk; a first attempt may fail. No
audio is taken from the client meanwhile, so waiting costs no memory beyond what is kept anyway, and
an error would not bring anybody the text sooner."""

_ASK_AGAIN_S: Final = 0.1


class ReplayedRecognition:
    """Has the methods of a :class:`RecognitionHandle`, and goes on when that one is lost."""

    def __init__(
        self, pool: Pool, options: RecognitionOptions, log_id: str, handle: RecognitionHandle
    ) -> None:
        self._pool = pool
        self._options = options
        self._log_id = log_id
        self._handle = handle
        self.sample_rate = handle.sample_rate
        self._losses = LossCount()
        self._ask_from = 0.0  # when it may try again to leave a worker that ends
        self._unsent: deque[bytes] = deque()  # of what is kept, while it is being sent again
        self._settled = asyncio.Event()  # cleared while the stream moves to another replica
        self._settled.set()
        self._error: Exception | None = None
        self._ended = False
        self._kept: deque[bytes] = deque()
        self._kept_from = 0  # position (samples) of the first kept one
        self._needed_from = 0  # position that a repetition would begin at, on the grid
        self._sent = 0  # position after the last
        self._offset = 0  # position where the handle's stream began
        self._begun_ms: int | None = None  # of the sentence that is open for the client
        self._last_text = ""
        self._final_until_ms = 0

    # Audio

    @property
    def has_credit(self) -> bool:
        """Whether audio may be sent now."""
        return self._error is None and self._settled.is_set() and self._handle.has_credit

    async def wait_for_credit(self) -> None:
        """Wait until audio may be sent. Raises SpeechError when the task has failed."""
        while True:
            await self._settled.wait()
            if self._error is not None:
                raise self._error
            handle = self._handle
            try:
                await handle.wait_for_credit()
                return
            except SpeechError as error:
                # The reader of the events moves the stream, or has done so by now.
                if handle is self._handle:
                    if not isinstance(error, EngineLost):
                        raise
                    self._settled.clear()

    def send(self, pcm: bytes) -> None:
        """Audio (s16le); kept until it is final."""
        self._kept.append(pcm)
        self._sent += len(pcm) // 2
        self._forget_old()
        if self._settled.is_set():
            self._handle.send(pcm)
        else:
            self._unsent.append(pcm)

    def finish(self) -> None:
        """No more audio."""
        self._ended = True
        if self._settled.is_set():
            self._handle.finish()

    def configure(self, max_sentence_silence_ms: int) -> None:
        """Change the end-of-sentence silence."""
        self._options = msgspec.structs.replace(
            self._options, max_sentence_silence_ms=max_sentence_silence_ms
        )
        if self._settled.is_set():
            self._handle.configure(max_sentence_silence_ms)

    def tell_source_rate(self, source_rate: int) -> None:
        """The audio that follows is made from what came at this rate (Hz)."""
        if source_rate == self._options.source_rate:
            return
        self._options = msgspec.structs.replace(self._options, source_rate=source_rate)
        if self._settled.is_set():
            self._handle.tell_source_rate(source_rate)

    def cancel(self) -> None:
        """Forget the task, here and in the worker."""
        self._handle.cancel()
        self._kept.clear()

    def abort(self, error: SpeechError) -> None:
        """The task has failed on our side; :meth:`events` raises ``error``."""
        self._error = error
        self._handle.abort(error)
        self._kept.clear()

    # Events

    async def events(self, *, progress: bool) -> AsyncGenerator[RecognitionEvent | int, None]:
        """As :meth:`RecognitionHandle.events`, in the client's time.

        Raises:
            EngineLost: the worker died, and no other took the stream in time.
            SpeechError: the task failed.
        """
        told = 0
        while True:
            handle = self._handle
            try:
                async with aclosing(handle.events(progress=progress)) as events:
                    async for event in events:
                        if not isinstance(event, int):
                            for moved in self._moved(event):
                                yield moved
                        elif progress and (position := self._offset + event) > told:
                            told = position
                            yield position
                        if self._may_leave(event) and await self._left():
                            break
                if handle is self._handle:
                    if self._begun_ms is not None:
                        # The second hearing found no end for what the first had begun.
                        yield self._close(self._begun_ms, self._ms(self._sent))
                    return
            except EngineLost as lost:
                await self._move(lost)

    def _moved(self, event: RecognitionEvent) -> list[RecognitionEvent]:
        offset_ms = self._ms(self._offset)
        match event:
            case SentenceBegan(start_ms):
                if self._begun_ms is not None:
                    return []  # the client knows
                self._begun_ms = start_ms + offset_ms
                return [SentenceBegan(self._begun_ms)]
            case SentenceChanged(text, end_ms, words):
                self._last_text = text
                return [SentenceChanged(text, end_ms + offset_ms, _later(words, offset_ms))]
            case SentenceEnded(start_ms, end_ms):
                began_ms = start_ms + offset_ms if self._begun_ms is None else self._begun_ms
                self._begun_ms, self._last_text = None, ""
                self._final_until_ms = end_ms + offset_ms
                self._forget_old()
                moved = msgspec.structs.replace(
                    event,
                    start_ms=began_ms,
                    end_ms=end_ms + offset_ms,
                    words=_later(event.words, offset_ms),
                )
                return [moved]

    def _close(self, began_ms: int, end_ms: int) -> SentenceEnded:
        text, self._last_text, self._begun_ms = self._last_text, "", None
        return SentenceEnded(began_ms, end_ms, text)

    # Moving

    def _may_leave(self, event: RecognitionEvent | int) -> bool:
        """Whether the stream should try to go elsewhere now: between two sentences."""
        if self._begun_ms is not None or self._ended:
            return False
        if self._handle.should_leave:
            now = asyncio.get_running_loop().time()
            if now < self._ask_from:
                return False
            self._ask_from = now + _ASK_AGAIN_S
            return True
        return isinstance(event, SentenceEnded) and self._pool.better_to_move(self._replica)

    @property
    def _replica(self) -> str:
        return self._handle.replica.name

    async def _left(self) -> bool:
        """Go elsewhere, if there is room. What the old worker says meanwhile is not read any more:
        the new one hears the same audio."""
        options = self._options
        try:
            handle = await self._pool.move_recognition(
                options, self._log_id, self._replica, must=self._handle.should_leave
            )
        except (Overloaded, EngineUnavailable):
            return False
        if self._ended:  # meanwhile, and the worker knows: it is as good as done there
            handle.cancel()
            return False
        log.info("stream goes to another worker", task_id=self._log_id, replica=handle.replica.name)
        metrics.MOVED.inc()
        self._settled.clear()
        try:
            await self._continue_at(handle, options)
        except EngineLost:
            raise  # the reader of the events moves on
        except BaseException as error:
            self._error = error if isinstance(error, Exception) else EngineLost()
            raise
        finally:
            self._settled.set()
        return True

    async def _move(self, lost: EngineLost) -> None:
        """Open the stream elsewhere, and send what is kept."""
        self._settled.clear()
        self._forget_old()
        self._unsent.clear()
        log.warning("worker lost, repeating the stream elsewhere", task_id=self._log_id)
        metrics.REPEATED.labels("asr").inc()
        loop = asyncio.get_running_loop()
        until = loop.time() + MOVE_TIMEOUT_S
        try:
            self._count_loss(lost)
            while True:
                try:
                    options = self._options
                    handle = await self._pool.open_recognition(options, self._log_id, accepted=True)
                    await self._continue_at(handle, options)
                    return
                except (Overloaded, EngineUnavailable, EngineLost):
                    if loop.time() >= until:
                        raise lost from None
                await asyncio.sleep(_ASK_AGAIN_S)
        except BaseException as error:
            self._error = error if isinstance(error, Exception) else lost
            raise
        finally:
            self._settled.set()

    def _count_loss(self, lost: EngineLost) -> None:
        if self._losses.is_last(self._offset + self._handle.processed_samples):
            log.error("workers die under this stream, giving it up", task_id=self._log_id)
            raise lost

    async def _continue_at(self, handle: RecognitionHandle, options: RecognitionOptions) -> None:
        """Send what is kept to the new ``handle``, which was opened with ``options``."""
        if self._error is not None:
            handle.cancel()
            raise self._error
        self._forget_old()
        self._cut_to_grid()
        old, self._handle, self._offset = self._handle, handle, self._kept_from
        old.cancel()
        self._unsent = deque(self._kept)
        while self._unsent:
            await handle.wait_for_credit()
            handle.send(self._unsent.popleft())
        if self._options is not options:  # changed while the worker was asked
            handle.configure(self._options.max_sentence_silence_ms)
            handle.tell_source_rate(self._options.source_rate)
        if self._ended:
            handle.finish()

    def _forget_old(self) -> None:
        """Drop what no repetition would need. Whole frames only, while all is well."""
        needed = max(
            self._samples(self._final_until_ms), self._sent - LONGEST_KEPT_S * self.sample_rate
        )
        if not self._handle.has_events:  # else one of them may be of audio before `processed`
            processed = self._offset + self._handle.processed_samples
            begun = processed if self._begun_ms is None else self._samples(self._begun_ms)
            needed = max(needed, begun - self._samples(PREROLL_MS))
        self._needed_from = max(self._needed_from, needed - needed % self._samples(GRID_MS))
        while self._kept and self._kept_from + len(self._kept[0]) // 2 <= self._needed_from:
            self._kept_from += len(self._kept.popleft()) // 2

    def _cut_to_grid(self) -> None:
        """Drop the rest of what is not needed, so that a repetition begins on the grid."""
        drop = self._needed_from - self._kept_from
        if self._kept and drop > 0:
            self._kept[0] = self._kept[0][2 * drop :]
            self._kept_from = self._needed_from

    def _samples(self, ms: int) -> int:
        return ms * self.sample_rate // 1000

    def _ms(self, samples: int) -> int:
        return samples * 1000 // self.sample_rate


def _later(words: tuple[Word, ...], offset_ms: int) -> tuple[Word, ...]:
    if not offset_ms:
        return words
    return tuple(
        Word(word.text, word.start_ms + offset_ms, word.end_ms + offset_ms) for word in words
    )
