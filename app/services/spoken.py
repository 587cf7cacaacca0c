"""Passages to the engine's audio, one after the other. Two are under way at a time: while one is
being heard the next one is being made, so that there is no gap between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Final

from app.audio.pcm import Int16
from app.core.errors import EngineLost, EngineUnavailable, Overloaded
from app.core.speech import Mark, SynthesisRequest, Utterance
from app.services.continuing import ContinuedSpeech
from app.services.passages import Passage, Script
from app.services.playback import Playback, SpeechRate
from app.serving.handles import SpeechHandle
from app.serving.pool import Pool

ACCEPTED_TIMEOUT_S: Final = 30.0
"""A sentence of a text that was accepted waits so long for room, it is not refused."""

_ASK_AGAIN_S: Final = 0.1


class SpokenPassage:
    """A passage that a worker speaks, or a silence, which nobody need speak."""

    def __init__(
        self, passage: Passage, speech: ContinuedSpeech | None, begun: Callable[[], None]
    ) -> None:
        self.passage = passage
        self._speech = speech
        self._begun = begun

    async def samples(self) -> AsyncGenerator[tuple[Int16, tuple[Mark, ...]], None]:
        """See :meth:`ContinuedSpeech.samples`."""
        if self._speech is None:
            self._begun()
            return
        async with aclosing(self._speech.samples()) as pieces:
            async for piece in pieces:
                self._begun()
                yield piece

    def cancel(self) -> None:
        """Forget it, here and in the worker."""
        if self._speech is not None:
            self._speech.cancel()


class Speaking:
    """The passages of a task in a pool's workers. ``playback`` tells how far the listener may be;
    whoever passes the audio on keeps it up to date."""

    def __init__(
        self, pool: Pool, request: SynthesisRequest, script: Script, playback: Playback
    ) -> None:
        self._pool = pool
        self._request = request
        self._script = script
        self._playback = playback
        self._rate = SpeechRate()
        self._upcoming: asyncio.Task[SpokenPassage | None] | None = None
        self._next_at_s = 0.0  # of the whole audio: where the passage after this one will begin
        self.accepted = False
        """Whether a worker has taken the first sentence: from then on none is refused."""

    async def passages(self) -> AsyncGenerator[SpokenPassage, None]:
        """Each is to be heard to its end before the next one is asked for. Closing the generator
        leaves nothing in the workers.

        Raises:
            Overloaded: no worker has room for the first sentence.
            EngineUnavailable: none is ready, or became so in time.
            SpeechError: what the script raises.
        """
        current: SpokenPassage | None = None
        try:
            current = await self._open_next()
            while current is not None:
                began_s, passage = self._playback.sent_s, current.passage
                expected_s = self._rate.expected_s(passage.text, passage.speed)
                self._next_at_s = began_s + expected_s + passage.pause_ms / 1000
                yield current
                spoken_s = self._playback.sent_s - began_s - passage.pause_ms / 1000
                self._rate.spoken(passage.text, spoken_s * passage.speed)
                self._next_at_s = self._playback.sent_s
                self._look_ahead()
                assert self._upcoming is not None
                current = None
                current = await self._upcoming
                self._upcoming = None
        finally:
            self._script.close()
            if current is not None:
                current.cancel()
            await self._forget_upcoming()

    def _look_ahead(self) -> None:
        """Ask for the next passage, once."""
        if self._upcoming is None:
            self._upcoming = asyncio.create_task(self._open_next())

    async def _forget_upcoming(self) -> None:
        if self._upcoming is None:
            return
        self._upcoming.cancel()
        (opened,) = await asyncio.gather(self._upcoming, return_exceptions=True)
        if isinstance(opened, SpokenPassage):
            opened.cancel()  # granted in the moment of its cancellation

    async def _open_next(self) -> SpokenPassage | None:
        passage = await self._script.take()
        if passage is None:
            return None
        if not passage.text:
            return SpokenPassage(passage, None, self._look_ahead)
        if self.accepted:
            handle = await self._open_later(passage, lambda: self._playback.lead_s(self._next_at_s))
        else:
            handle = await self._open(passage, None)
            self.accepted = True
        reopen = partial(self._open_later, passage, self._playback.lead_s)
        speech = ContinuedSpeech(handle, reopen, self._request.task_id)
        return SpokenPassage(passage, speech, self._look_ahead)

    async def _open_later(self, passage: Passage, lead_s: Callable[[], float]) -> SpeechHandle:
        """The text was accepted: what is still to be spoken of it waits for a worker with room.
        ``lead_s``: see :meth:`Playback.lead_s`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + ACCEPTED_TIMEOUT_S
        while True:
            try:
                return await self._open(passage, lead_s())
            except (Overloaded, EngineUnavailable, EngineLost):
                if loop.time() >= until:
                    raise
            await asyncio.sleep(_ASK_AGAIN_S)

    async def _open(self, passage: Passage, lead_s: float | None) -> SpeechHandle:
        utterance = Utterance(
            text=passage.text,
            voice=passage.voice.name,
            language=passage.voice.language,
            speed=passage.speed,
            pitch=passage.pitch,
            volume=passage.volume,
            prompt=self._request.prompt,
        )
        return await self._pool.open_synthesis(utterance, self._request.task_id, lead_s)
