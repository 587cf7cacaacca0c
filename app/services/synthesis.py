"""Synthesis: a text in, encoded audio out, sentence by sentence.

    text ─► sentences ─► replica ─► rate, pitch, volume ─► the requested rate ─► format ─► bytes

The next sentence is synthesised while this one is being sent; what a slow reader has not taken
waits in the worker, bounded by the credit and the length of a sentence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from app.audio import prosody
from app.audio.encode import open_encoder
from app.audio.pcm import Int16
from app.audio.resample import Resampler
from app.core import metrics
from app.core.errors import EngineLost, EngineUnavailable, InvalidText, Overloaded
from app.core.speech import SynthesisRequest, Utterance, Voice
from app.engines.base import SynthesizerCapabilities
from app.services.continuing import ContinuedSpeech
from app.services.playback import Playback, SpeechRate
from app.serving.handles import SpeechHandle
from app.serving.leases import TaskLease, unlimited
from app.serving.pool import Pool
from app.text.sentences import split_sentences
from app.voices.catalogue import VoiceCatalogue

MAX_SENTENCE_CHARS: Final = 200
MAX_PIECE_BYTES: Final = 32 * 1024
"""Of one piece of encoded audio; half of what a client's frame may have (nls-protocol.md 1.8)."""

_ENCODED_AT_ONCE: Final = MAX_PIECE_BYTES // 2 - 64
"""Samples. As PCM they fit into one piece, with a header in front."""

ACCEPTED_TIMEOUT_S: Final = 30.0
"""A sentence of a text that was accepted waits so long for room, it is not refused."""

_ASK_AGAIN_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class _Plan:
    """A checked request. ``began``: when it came (``time.monotonic``)."""

    began: float
    request: SynthesisRequest
    voice: Voice
    sentences: list[str]


class SynthesisService:
    """Speaks texts. ``threads`` bounds the rate/pitch/volume and encoding work that runs at once;
    each text is spoken under a ``lease``."""

    def __init__(
        self, pool: Pool, voices: VoiceCatalogue, threads: int, *, lease: TaskLease = unlimited
    ) -> None:
        self._pool = pool
        self._lease = lease
        self._voices = voices
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="synthesis")

    def check(self, request: SynthesisRequest) -> None:
        """Refuse what can be refused before any work is done (an unknown voice only once an
        engine is ready, which knows its voices).

        Raises:
            InvalidText: empty, or nothing in it can be spoken.
            UnknownVoice, UnsupportedFormat, UnsupportedSampleRate: as they say.
        """
        open_encoder(request.format, request.sample_rate)
        _sentences(request.text)
        if self._pool.ready("tts"):
            self._voices.resolve(request.voice)

    async def speak(self, request: SynthesisRequest) -> AsyncGenerator[bytes, None]:
        """The audio in the requested format, as it comes, in pieces of at most 32 KiB, none empty;
        the format's header comes with the first audio, in the same piece.

        Close the generator (``aclosing``) to cancel. Raises what :meth:`check` raises, Overloaded
        and EngineUnavailable before the first piece; EngineFailed or DeadlineExceeded at any time.
        """
        plan = await self._plan(request)
        encoding = _Encoding(request, self._executor)
        async with self._lease(request.appkey), aclosing(self._samples(plan)) as samples:
            header = await encoding.header(None)
            async for block in samples:
                for start in range(0, len(block), _ENCODED_AT_ONCE):
                    encoded = await encoding.encode(block[start : start + _ENCODED_AT_ONCE])
                    if encoded:
                        for piece in _pieces(header + encoded):
                            yield piece
                        header = b""
            for piece in _pieces(header + await encoding.finish()):
                yield piece

    async def whole(self, request: SynthesisRequest) -> bytes:
        """All of the audio at once, with a header that tells its true length. For short texts.

        Raises what :meth:`speak` raises.
        """
        plan = await self._plan(request)
        encoding = _Encoding(request, self._executor)
        total, encoded = 0, []
        async with self._lease(request.appkey), aclosing(self._samples(plan)) as samples:
            async for block in samples:
                total += len(block)
                encoded.append(await encoding.encode(block))
            encoded.append(await encoding.finish())
            return await encoding.header(total) + b"".join(encoded)

    def close(self) -> None:
        """Stop the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _plan(self, request: SynthesisRequest) -> _Plan:
        began = time.monotonic()
        self.check(request)
        await self._pool.wait_ready("tts")
        voice = self._voices.resolve(request.voice)
        return _Plan(began, request, voice, _sentences(request.text))

    async def _samples(self, plan: _Plan) -> AsyncGenerator[Int16, None]:
        """All sentences at the requested rate, speed, pitch and volume."""
        capabilities = self._pool.synthesizer()
        if capabilities is None:
            raise EngineUnavailable
        finish = _Finish(plan.request, capabilities, self._executor)
        playback = Playback(plan.request.sample_rate)
        began: float | None = plan.began
        async with aclosing(self._spoken(plan, playback)) as pieces:
            async for piece in pieces:
                samples = await finish.feed(piece)
                if began is not None and len(samples):
                    metrics.FIRST_AUDIO.observe(time.monotonic() - began)
                    began = None
                if len(samples):
                    metrics.AUDIO_OUT.inc(len(samples) / plan.request.sample_rate)
                    playback.sent(len(samples))
                    yield samples
        samples = await finish.flush()
        if len(samples):
            metrics.AUDIO_OUT.inc(len(samples) / plan.request.sample_rate)
            yield samples

    async def _spoken(self, plan: _Plan, playback: Playback) -> AsyncGenerator[Int16, None]:
        """All sentences as the engine speaks them; two of them are under way at a time."""
        first = await self._open(plan, 0, None)
        current: ContinuedSpeech | None = self._continued(plan, 0, first, playback)
        upcoming: asyncio.Task[SpeechHandle] | None = None
        last = len(plan.sentences) - 1
        rate = SpeechRate()
        try:
            for index in range(last + 1):
                if current is None:
                    assert upcoming is not None
                    current = self._continued(plan, index, await upcoming, playback)
                    upcoming = None
                began_s = playback.sent_s
                async with aclosing(current.samples()) as pieces:
                    async for samples in pieces:
                        if upcoming is None and index < last:
                            upcoming = self._upcoming(plan, index + 1, playback, rate)
                        yield samples
                if upcoming is None and index < last:
                    upcoming = self._upcoming(plan, index + 1, playback, rate)
                rate.spoken(plan.sentences[index], playback.sent_s - began_s)
                current = None
        finally:
            if current is not None:
                current.cancel()
            if upcoming is not None:
                upcoming.cancel()
                (opened,) = await asyncio.gather(upcoming, return_exceptions=True)
                if isinstance(opened, SpeechHandle):
                    opened.cancel()  # granted in the moment of its cancellation

    def _continued(
        self, plan: _Plan, index: int, handle: SpeechHandle, playback: Playback
    ) -> ContinuedSpeech:
        reopen = partial(self._open_later, plan, index, playback.lead_s)
        return ContinuedSpeech(handle, reopen, plan.request.task_id)

    def _upcoming(
        self, plan: _Plan, index: int, playback: Playback, rate: SpeechRate
    ) -> asyncio.Task[SpeechHandle]:
        """Ask for a sentence while the one before it, nothing of which was passed on yet, is being
        spoken."""
        before = rate.expected_s(plan.sentences[index - 1], plan.request.speed)
        lead_s = partial(playback.lead_s, playback.sent_s + before)
        return asyncio.create_task(self._open_later(plan, index, lead_s))

    async def _open_later(
        self, plan: _Plan, index: int, lead_s: Callable[[], float]
    ) -> SpeechHandle:
        """The text was accepted: what is still to be spoken of it waits for a worker with room.
        ``lead_s``: see :meth:`Playback.lead_s`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + ACCEPTED_TIMEOUT_S
        while True:
            try:
                return await self._open(plan, index, lead_s())
            except (Overloaded, EngineUnavailable, EngineLost):
                if loop.time() >= until:
                    raise
            await asyncio.sleep(_ASK_AGAIN_S)

    async def _open(self, plan: _Plan, index: int, lead_s: float | None) -> SpeechHandle:
        request = plan.request
        utterance = Utterance(
            text=plan.sentences[index],
            voice=plan.voice.name,
            language=plan.voice.language,
            speed=request.speed,
            pitch=request.pitch,
            volume=request.volume,
        )
        return await self._pool.open_synthesis(utterance, request.task_id, lead_s)


class _Finish:
    """What is done to the engine's audio: what the engine did not do itself of speed, pitch and
    volume, in a thread; then the requested rate."""

    def __init__(
        self,
        request: SynthesisRequest,
        capabilities: SynthesizerCapabilities,
        executor: ThreadPoolExecutor,
    ) -> None:
        speed = 1.0 if capabilities.exact_speed else request.speed
        pitch = 1.0 if capabilities.exact_pitch else request.pitch
        volume = 1.0 if capabilities.exact_volume else request.volume
        rate = capabilities.sample_rate
        self._executor = executor
        self._settings = (rate, speed, pitch, volume)
        self._needed = prosody.needed(speed, pitch, volume)
        self._prosody: prosody.Prosody | None = None
        self._resampler = Resampler(rate, request.sample_rate)

    async def feed(self, samples: Int16) -> Int16:
        """The next samples of the engine."""
        if self._needed:
            samples = await self._in_thread(lambda: self._chain().feed(samples))
        return self._resampler.feed(samples)

    async def flush(self) -> Int16:
        """What is still inside."""
        rest = np.zeros(0, dtype=np.int16)
        if self._needed:
            rest = self._resampler.feed(await self._in_thread(lambda: self._chain().flush()))
        return np.concatenate([rest, self._resampler.flush()])

    def _chain(self) -> prosody.Prosody:
        if self._prosody is None:
            self._prosody = prosody.Prosody(*self._settings)
        return self._prosody

    async def _in_thread(self, work: Callable[[], Int16]) -> Int16:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


class _Encoding:
    """The encoder of one request: PCM at once, formats that take work in a thread.

    Whoever is cancelled just leaves it: nothing but memory is held, and a call that still runs in
    its thread has the last reference.
    """

    def __init__(self, request: SynthesisRequest, executor: ThreadPoolExecutor) -> None:
        self._encoder = open_encoder(request.format, request.sample_rate)
        self._executor = executor

    async def header(self, total_samples: int | None) -> bytes:
        """See :class:`app.audio.encode.Encoder`."""
        return await self._done(partial(self._encoder.header, total_samples))

    async def encode(self, samples: Int16) -> bytes:
        """See :class:`app.audio.encode.Encoder`."""
        return await self._done(partial(self._encoder.encode, samples))

    async def finish(self) -> bytes:
        """See :class:`app.audio.encode.Encoder`."""
        return await self._done(self._encoder.finish)

    async def _done(self, work: Callable[[], bytes]) -> bytes:
        if not self._encoder.blocking:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _sentences(text: str) -> list[str]:
    sentences = split_sentences(text, MAX_SENTENCE_CHARS)
    if not any(character.isalnum() for sentence in sentences for character in sentence):
        raise InvalidText
    return sentences


def _pieces(encoded: bytes) -> list[bytes]:
    """In pieces of at most ``MAX_PIECE_BYTES``, none empty."""
    if 0 < len(encoded) <= MAX_PIECE_BYTES:
        return [encoded]  # nearly always; also spares a copy
    return [encoded[i : i + MAX_PIECE_BYTES] for i in range(0, len(encoded), MAX_PIECE_BYTES)]
