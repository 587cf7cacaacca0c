"""What a task is to hear: passages at the requested rate, speed, pitch and volume, with the pauses
between them, and what there is to say about each.

Each passage is finished by itself: its audio depends on nothing that was said before it, so that a
text in pieces sounds like the same text sent whole, and the end of a passage is told when all of
it is out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Final

import numpy as np

from app.audio import prosody
from app.audio.pcm import EMPTY, Int16, joined
from app.audio.resample import Resampler
from app.core import metrics
from app.core.speech import Mark, SpeechBegan, SpeechEnded, SpeechEvent, SynthesisRequest
from app.engines.base import SynthesizerCapabilities
from app.services.passages import Passage, Script
from app.services.playback import Playback
from app.services.spoken import Speaking, SpokenPassage
from app.services.subtitles import subtitles
from app.serving.pool import Pool

_SILENCE_AT_ONCE_S: Final = 1


class Rendering:
    """One task's script as samples. ``samples``: how many have come out so far."""

    def __init__(
        self,
        pool: Pool,
        request: SynthesisRequest,
        script: Script,
        capabilities: SynthesizerCapabilities,
        executor: ThreadPoolExecutor,
    ) -> None:
        self._request = request
        self._script = script
        self._capabilities = capabilities
        self._executor = executor
        self._playback = Playback(request.sample_rate)
        self._speaking = Speaking(pool, request, script, self._playback)
        self._sentences = 0
        self.samples = 0

    @property
    def accepted(self) -> bool:
        """Whether a worker has taken the first sentence."""
        return self._speaking.accepted

    @property
    def ms(self) -> int:
        """How much audio has come out so far."""
        return round(self.samples * 1000 / self._request.sample_rate)

    async def parts(self) -> AsyncGenerator[Int16 | SpeechEvent, None]:
        """Samples, none empty, at the requested rate, and the events of each sentence around its
        own. Raises as :meth:`Speaking.passages`."""
        async with aclosing(self._speaking.passages()) as passages:
            async for spoken in passages:
                async with aclosing(self._passage(spoken)) as parts:
                    async for part in parts:
                        yield part

    async def _passage(self, spoken: SpokenPassage) -> AsyncGenerator[Int16 | SpeechEvent, None]:
        """One, and the silence after it. Of a silence alone there is nothing to say."""
        passage, marks, begin_ms = spoken.passage, list[Mark](), self.ms
        finish = _Finish(passage, self._capabilities, self._request.sample_rate, self._executor)
        if passage.text:
            self._sentences += 1
            yield SpeechBegan(self._sentences, passage.text_index, passage.text)
        async with aclosing(spoken.samples()) as pieces:
            async for piece, new_marks in pieces:
                marks += new_marks
                samples = await finish.feed(piece)
                if len(samples):
                    self._count(samples)
                    yield samples
        samples = await finish.flush()
        if len(samples):
            self._count(samples)
            yield samples
        end_ms = self.ms
        for block in self._silence(passage):
            yield block
        if passage.text:
            found = subtitles(passage.text, marks, finish.speed, begin_ms, end_ms)
            told = found if self._request.subtitles else ()
            yield SpeechEnded(self._sentences, begin_ms, end_ms, told)

    def _silence(self, passage: Passage) -> Iterator[Int16]:
        rate = self._request.sample_rate
        missing = passage.pause_ms * rate // 1000
        while missing:
            block = np.zeros(min(missing, rate * _SILENCE_AT_ONCE_S), np.int16)
            missing -= len(block)
            self._count(block)
            yield block

    def _count(self, samples: Int16) -> None:
        """They are about to go out."""
        if not self.samples and self._script.began_at is not None:
            metrics.FIRST_AUDIO.observe(time.monotonic() - self._script.began_at)
        self.samples += len(samples)
        metrics.AUDIO_OUT.inc(len(samples) / self._request.sample_rate)
        self._playback.sent(len(samples))


class _Finish:
    """What is done to the engine's audio of one passage: what the engine did not do itself of
    speed, pitch and volume, in a thread; then the requested rate. ``speed``: what is done here of
    it."""

    def __init__(
        self,
        passage: Passage,
        capabilities: SynthesizerCapabilities,
        sample_rate: int,
        executor: ThreadPoolExecutor,
    ) -> None:
        self.speed = 1.0 if capabilities.exact_speed else passage.speed
        pitch = 1.0 if capabilities.exact_pitch else passage.pitch
        volume = 1.0 if capabilities.exact_volume else passage.volume
        rate = capabilities.sample_rate
        self._executor = executor
        self._settings = (rate, self.speed, pitch, volume)
        self._needed = prosody.needed(self.speed, pitch, volume)
        self._prosody: prosody.Prosody | None = None
        self._resampler = Resampler(rate, sample_rate)

    async def feed(self, samples: Int16) -> Int16:
        """The next samples of the engine."""
        if self._needed:
            samples = await self._in_thread(lambda: self._chain().feed(samples))
        return self._resampler.feed(samples)

    async def flush(self) -> Int16:
        """What is still inside."""
        rest = EMPTY
        if self._needed:
            rest = self._resampler.feed(await self._in_thread(lambda: self._chain().flush()))
        return joined([rest, self._resampler.flush()])

    def _chain(self) -> prosody.Prosody:
        if self._prosody is None:
            self._prosody = prosody.Prosody(*self._settings)
        return self._prosody

    async def _in_thread(self, work: Callable[[], Int16]) -> Int16:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
