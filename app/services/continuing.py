"""A sentence of synthesis that outlives its worker: it is spoken again elsewhere, and continued
from the sample that was already passed on, with a short cross-fade, since no engine promises to
speak twice alike."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Final

import numpy as np
import structlog

from app.audio.pcm import EMPTY, Int16
from app.core import metrics
from app.core.errors import EngineLost
from app.core.speech import Mark
from app.services.losses import LossCount
from app.serving.handles import SpeechHandle

log = structlog.get_logger(__name__)

FADE_MS: Final = 10
"""Held back of what was spoken, to be faded into what is spoken again."""


class ContinuedSpeech:
    """The audio of one sentence. ``reopen`` asks for the sentence again, and waits for a worker."""

    def __init__(
        self, handle: SpeechHandle, reopen: Callable[[], Awaitable[SpeechHandle]], log_id: str
    ) -> None:
        self._handle = handle
        self._reopen = reopen
        self._log_id = log_id
        self._fade = FADE_MS * handle.sample_rate // 1000
        self._passed = 0  # samples given to the reader
        self._tail = EMPTY  # those after them, held back
        self._marks: list[Mark] = []  # that are still to be given
        self._marked = -1  # the last place in the text that any of them told
        self._losses = LossCount()

    async def samples(self) -> AsyncGenerator[tuple[Int16, tuple[Mark, ...]], None]:
        """Mono, as the engine speaks, none empty; with the marks that have come since, each place
        in the text once, in ascending order.

        Raises:
            EngineLost: the worker died, and no other took the sentence in time, or too many died
                of it.
            SpeechError: the sentence failed.
        """
        while True:
            try:
                async with aclosing(self._spoken()) as pieces:
                    async for piece in pieces:
                        yield piece, self._new_marks()
                break
            except EngineLost as lost:
                self._count_loss(lost)
                log.warning("worker lost, speaking the sentence elsewhere", task_id=self._log_id)
                metrics.REPEATED.labels("tts").inc()
                self._handle = await self._reopen()
        if len(self._tail):
            yield self._tail, self._new_marks()

    def cancel(self) -> None:
        """Forget the sentence, here and in the worker."""
        self._handle.cancel()

    def _count_loss(self, lost: EngineLost) -> None:
        if self._losses.is_last(self._passed + len(self._tail)):
            log.error("workers die under this sentence, giving it up", task_id=self._log_id)
            raise lost

    async def _spoken(self) -> AsyncGenerator[Int16, None]:
        """One attempt, from where the last one ended."""
        skip, unfaded, held = self._passed, self._tail, EMPTY
        async with aclosing(self._handle.pieces()) as pieces:
            async for pcm, marks in pieces:
                self._note(marks)
                samples = np.frombuffer(pcm, dtype=np.int16)
                skip, samples = max(skip - len(samples), 0), samples[skip:]
                held = np.concatenate([held, samples])
                if len(held) < len(unfaded):
                    continue
                if len(unfaded):
                    held, unfaded = _faded(unfaded, held), EMPTY
                ready, held = held[: -self._fade], held[-self._fade :]
                self._passed += len(ready)
                self._tail = held
                if len(ready):
                    yield ready

    def _note(self, marks: Iterable[Mark]) -> None:
        """Those of an earlier attempt hold: their audio was passed on."""
        for mark in marks:
            if mark.index > self._marked:
                self._marked = mark.index
                self._marks.append(mark)

    def _new_marks(self) -> tuple[Mark, ...]:
        marks, self._marks = tuple(self._marks), []
        return marks


def _faded(old: Int16, new: Int16) -> Int16:
    """``new``, whose beginning is faded in over all of ``old``."""
    share = np.linspace(0.0, 1.0, len(old))
    mixed = np.rint(old + (new[: len(old)].astype(np.float64) - old) * share)
    return np.concatenate([mixed.astype(np.int16), new[len(old) :]])
