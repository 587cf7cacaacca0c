"""Synthesis: a text in, whole or in pieces; encoded audio out, sentence by sentence.

    text ─► passages ─► replica ─► rate, pitch, volume ─► the requested rate ─► format ─► bytes
         (passages.py) (spoken.py)               (rendering.py)           (encoding.py)

The next sentence is synthesised while this one is being sent; what a slow reader has not taken
waits in the worker, bounded by the credit and the length of a sentence.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial

import msgspec

from app.audio.encode import open_encoder
from app.core.errors import AccessDenied, EngineUnavailable, InvalidText
from app.core.speech import SpeechEvent, SynthesisRequest, Voice
from app.core.usage import Account, Used, unrecorded
from app.services.encoding import ENCODED_AT_ONCE, Encoding, pieces
from app.services.passages import (
    SETTLE_S,
    PieceScript,
    Script,
    WholeScript,
    characters_of,
    may_be_ssml,
    passages_of,
    plain_passages,
    read_ssml,
    speakable,
)
from app.services.rendering import Rendering
from app.services.synthetic_mark import mark_text
from app.serving.leases import TaskLease, unlimited
from app.serving.pool import Pool
from app.text import ssml
from app.voices.catalogue import VoiceCatalogue


class SpokenTask:
    """A running task whose text comes in pieces. One coroutine reads its events; ``say``,
    ``flush`` and ``finish`` may be called from anywhere in the event loop, and are instant."""

    def __init__(
        self, script: PieceScript, events: AsyncGenerator[bytes | SpeechEvent, None]
    ) -> None:
        self._script = script
        self._events = events

    @property
    def characters(self) -> int:
        """Of the text that was taken in so far, as the account counts them."""
        return self._script.characters

    def say(self, text: str) -> None:
        """More of the text, cut anywhere. After ``finish`` it is ignored."""
        self._script.say(text)

    def flush(self) -> None:
        """Speak what has come, even where no sentence has ended. More may follow."""
        self._script.flush()

    def finish(self) -> None:
        """There is no more text: the rest is spoken, and the events end."""
        self._script.finish()

    def events(self) -> AsyncGenerator[bytes | SpeechEvent, None]:
        """As :meth:`SynthesisService.tell`; nothing at all where nothing can be spoken. May be
        read once.

        Raises:
            Overloaded: no worker has room for the first sentence.
            InvalidSsml, UnknownVoice, AccessDenied: the text is SSML that cannot be spoken.
            EngineFailed, EngineUnavailable, DeadlineExceeded: as they say.
        """
        return self._events

    async def close(self) -> None:
        """The task is over, complete or not; nothing of it runs on."""
        self._script.close()
        await self._events.aclose()


class SynthesisService:
    """Speaks texts. ``threads`` bounds the rate/pitch/volume and encoding work that runs at once;
    each text is spoken under a ``lease``; ``account`` is told what it has used. ``settle_s``: see
    :class:`app.services.passages.PieceScript`."""

    def __init__(
        self,
        pool: Pool,
        voices: VoiceCatalogue,
        threads: int,
        *,
        lease: TaskLease = unlimited,
        account: Account = unrecorded,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._pool = pool
        self._lease = lease
        self._voices = voices
        self._account = account
        self._settle_s = settle_s
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="synthesis")

    def check(self, request: SynthesisRequest) -> None:
        """Refuse what can be refused before any work is done (an unknown voice only once an
        engine is ready, which knows its voices; SSML only when it is read).

        Raises:
            InvalidText: empty, or nothing in it can be spoken.
            UnknownVoice, UnsupportedFormat, UnsupportedSampleRate: as they say.
        """
        open_encoder(request.format, request.sample_rate)
        if not speakable(request.text):
            raise InvalidText
        if self._pool.ready("tts"):
            self._voices.resolve(request.voice)

    async def speak(self, request: SynthesisRequest) -> AsyncGenerator[bytes, None]:
        """The audio in the requested format, as it comes, in pieces of at most 32 KiB, none empty;
        the format's header comes with the first audio, in the same piece.

        Close the generator (``aclosing``) to cancel. Raises what :meth:`check` raises, InvalidSsml,
        AccessDenied (a voice that SSML names), Overloaded and EngineUnavailable before the first
        piece; EngineFailed or DeadlineExceeded at any time.
        """
        async with aclosing(self.tell(request)) as parts:
            async for part in parts:
                if isinstance(part, bytes):
                    yield part

    async def tell(self, request: SynthesisRequest) -> AsyncGenerator[bytes | SpeechEvent, None]:
        """As :meth:`speak`, with the events of each sentence: SpeechBegan before its first audio,
        SpeechEnded after its last, as far as the format gives it out at once (compressed ones keep
        up to a frame until the next sentence)."""
        request, script = await self._script(request)
        rendering = self._rendering(request, script)
        async with self._lease(request.appkey):
            with self._accounted(request, script, rendering):
                async with aclosing(self._encoded(request, rendering)) as parts:
                    async for part in parts:
                        yield part

    async def whole(self, request: SynthesisRequest) -> bytes:
        """All of the audio at once, with a header that tells its true length. For short texts.

        Raises what :meth:`speak` raises.
        """
        request, script = await self._script(request)
        rendering = self._rendering(request, script)
        encoding, encoded = self._encoding(request), list[bytes]()
        async with self._lease(request.appkey):
            with self._accounted(request, script, rendering):
                async with aclosing(rendering.parts()) as parts:
                    async for part in parts:
                        if not isinstance(part, SpeechEvent):
                            encoded.append(await encoding.encode(part))
                encoded.append(await encoding.finish())
                return await encoding.header(rendering.samples) + b"".join(encoded)

    @asynccontextmanager
    async def open(self, request: SynthesisRequest) -> AsyncIterator[SpokenTask]:
        """A task whose text comes in pieces; ``request.text`` is not looked at. It lives as long as
        the block; leaving it leaves nothing running.

        Raises:
            UnknownVoice, UnsupportedFormat, UnsupportedSampleRate: as they say.
            Overloaded: the appkey runs as many tasks as it may.
            EngineUnavailable: no worker is ready.
        """
        open_encoder(request.format, request.sample_rate)
        await self._pool.wait_ready("tts")
        script = PieceScript(request, partial(self._resolve, request), self._settle_s)
        rendering = self._rendering(request, script)
        async with self._lease(request.appkey):
            with self._accounted(request, script, rendering):
                task = SpokenTask(script, self._encoded(request, rendering))
                try:
                    yield task
                finally:
                    await task.close()

    def close(self) -> None:
        """Stop the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _script(self, request: SynthesisRequest) -> tuple[SynthesisRequest, Script]:
        """The request as SSML in it has it, and what to speak."""
        began_at = time.monotonic()
        self.check(request)
        await self._pool.wait_ready("tts")
        voice = self._voices.resolve(request.voice)
        if not may_be_ssml(request.text, request):
            passages = plain_passages(request.text, request, voice)
            return request, WholeScript(passages, len(request.text), began_at)
        resolve = partial(self._resolve, request)
        document = await read_ssml(request.text, request, resolve)
        if not speakable(document.text):
            raise InvalidText
        passages = passages_of(document, resolve)
        script = WholeScript(passages, characters_of(document), began_at)
        return _overruled(request, document), script

    def _resolve(self, request: SynthesisRequest, name: str) -> Voice:
        """The voice that SSML names, if the request may have it."""
        allowed = request.allowed_voices
        if allowed and name.casefold() not in allowed:
            raise AccessDenied("No privilege to this voice!")
        return self._voices.resolve(name)

    def _rendering(self, request: SynthesisRequest, script: Script) -> Rendering:
        capabilities = self._pool.synthesizer()
        if capabilities is None:
            raise EngineUnavailable
        return Rendering(self._pool, request, script, capabilities, self._executor)

    def _encoding(self, request: SynthesisRequest) -> Encoding:
        mark = "" if request.mark is None else mark_text(request.mark, request.task_id)
        return Encoding(request.format, request.sample_rate, mark, self._executor)

    async def _encoded(
        self, request: SynthesisRequest, rendering: Rendering
    ) -> AsyncGenerator[bytes | SpeechEvent, None]:
        encoding = self._encoding(request)
        header = await encoding.header(None)
        async with aclosing(rendering.parts()) as parts:
            async for part in parts:
                if isinstance(part, SpeechEvent):
                    yield part
                    continue
                for start in range(0, len(part), ENCODED_AT_ONCE):
                    encoded = await encoding.encode(part[start : start + ENCODED_AT_ONCE])
                    if encoded:
                        for piece in pieces(header + encoded):
                            yield piece
                        header = b""
        rest = await encoding.finish()
        # A file without any audio is a header; a task that was given no text makes no file.
        if rendering.accepted or rendering.samples:
            for piece in pieces(header + rest):
                yield piece

    @contextmanager
    def _accounted(
        self, request: SynthesisRequest, script: Script, rendering: Rendering
    ) -> Iterator[None]:
        """Tell the account what was used inside the block. A task of which nothing was accepted
        before it failed, or its client left, has used nothing."""
        completed = failed = False
        try:
            yield
            completed = True
        except Exception:
            failed = True
            raise
        finally:
            if rendering.accepted or completed:
                used = Used(
                    kind="tts",
                    audio_ms=rendering.ms,
                    characters=script.characters,
                    failed=failed,
                )
                self._account(request.appkey, used)


def _overruled(request: SynthesisRequest, document: ssml.Document) -> SynthesisRequest:
    """With what the document says of the audio (nls-protocol.md 4.3)."""
    changed = msgspec.structs.replace(
        request,
        format=document.format or request.format,
        sample_rate=document.sample_rate or request.sample_rate,
    )
    open_encoder(changed.format, changed.sample_rate)
    return changed
