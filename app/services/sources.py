"""Where the samples of a recognition come from: PCM and WAV are decoded here, everything else in
the decode process, because its codecs are large, slow and the target of hostile files."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from app.audio.decode import Decoder, open_decoder
from app.audio.pcm import Int16
from app.audio.sniff import LOCAL, STREAMING, Kind
from app.core.errors import EngineFailed, SpeechError
from app.core.speech import RecognitionRequest
from app.serving.decoding.client import Decoding, DecodingTask, Undecoded

log = structlog.get_logger(__name__)


class Listener(Protocol):
    """Who gets the samples (``recognition.py``)."""

    @property
    def has_credit(self) -> bool:
        """Whether it takes samples now."""
        ...

    async def wait_for_credit(self) -> None:
        """Wait until it takes samples. Raises SpeechError when it has failed."""

    def heard(self, samples: Int16, sample_rate: int) -> None:
        """The next samples, mono; the rate (Hz) may change."""

    def ended(self) -> None:
        """There are no more. Last call."""

    def failed(self, error: SpeechError) -> None:
        """They cannot be had. Last call."""


class Source(Protocol):
    """A client's bytes on their way to a listener."""

    @property
    def has_room(self) -> bool:
        """Whether :meth:`feed` may be called now."""
        ...

    @property
    def channels(self) -> int:
        """Of the audio; 0 until that is known, at the latest when there are no more samples."""
        ...

    async def wait_for_room(self) -> None:
        """Wait until it may. Raises SpeechError when the task has failed."""

    def feed(self, data: bytes) -> None:
        """The next message of the client. Raises SpeechError: it cannot be decoded."""

    def finish(self) -> None:
        """No more. Raises as :meth:`feed`."""

    async def close(self) -> None:
        """Leave nothing running."""


class LocalSource:
    """Decodes at once, on the event loop: microseconds a frame."""

    def __init__(self, decoder: Decoder, listener: Listener) -> None:
        self._decoder = decoder
        self._listener = listener

    @property
    def has_room(self) -> bool:
        """See :class:`Source`."""
        return self._listener.has_credit

    @property
    def channels(self) -> int:
        """See :class:`Source`."""
        return self._decoder.channels

    async def wait_for_room(self) -> None:
        """See :class:`Source`."""
        await self._listener.wait_for_credit()

    def feed(self, data: bytes) -> None:
        """See :class:`Source`."""
        self._pass_on(self._decoder.feed(data))

    def finish(self) -> None:
        """See :class:`Source`."""
        self._pass_on(self._decoder.flush())
        self._listener.ended()

    async def close(self) -> None:
        """See :class:`Source`."""

    def _pass_on(self, samples: Int16) -> None:
        rate = self._decoder.sample_rate
        if rate is not None and len(samples):
            self._listener.heard(samples, rate)


class RemoteSource:
    """Has the decode process decode; a coroutine of its own passes the samples on."""

    def __init__(self, task: DecodingTask, listener: Listener) -> None:
        self._task = task
        self._listener = listener
        self._passing_on = asyncio.get_running_loop().create_task(self._pass_on())

    @property
    def has_room(self) -> bool:
        """See :class:`Source`."""
        return self._task.has_room

    @property
    def channels(self) -> int:
        """See :class:`Source`."""
        return self._task.channels

    async def wait_for_room(self) -> None:
        """See :class:`Source`."""
        await self._task.wait_for_room()

    def feed(self, data: bytes) -> None:
        """See :class:`Source`; never raises: the listener is told."""
        self._task.send(data)

    def finish(self) -> None:
        """See :class:`Source`; never raises: the listener is told."""
        self._task.finish()

    async def close(self) -> None:
        """See :class:`Source`."""
        self._task.cancel()
        self._passing_on.cancel()
        await asyncio.gather(self._passing_on, return_exceptions=True)

    async def _pass_on(self) -> None:
        try:
            async for samples, rate in self._task.blocks():
                await self._listener.wait_for_credit()
                self._listener.heard(samples, rate)
            self._listener.ended()
        except SpeechError as error:
            self._listener.failed(error)
        except Exception:
            log.exception("passing decoded audio on failed", task_id=self._task.log_id)
            self._listener.failed(EngineFailed())


def open_source(
    kind: Kind,
    request: RecognitionRequest,
    listener: Listener,
    decoding: Decoding,
    max_file_bytes: int,
) -> Source:
    """The source of a client's audio of this kind, or of the channel that ``request`` names;
    ``max_file_bytes`` limits what can be decoded only as a whole.

    Raises:
        UnsupportedSampleRate: PCM or WAV at a requested rate that is not read.
    """
    if kind in LOCAL:
        return LocalSource(open_decoder(kind, request.sample_rate, request.channel), listener)
    is_file = kind not in STREAMING
    what = Undecoded(
        kind=kind,
        is_file=is_file,
        sample_rate=request.sample_rate,
        max_bytes=max_file_bytes if is_file else None,
        max_audio_ms=request.max_audio_ms,
        log_id=request.task_id,
        channel=request.channel,
    )
    return RemoteSource(decoding.open(what), listener)
