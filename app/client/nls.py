"""The NLS WebSocket client.

One task on a connection of its own::

    client = NlsClient("ws://127.0.0.1:8000/ws/v1", token="…")
    async with client.transcriber(sample_rate=16_000, enable_words=True) as task:
        await task.send(pcm)
        await task.stop()
        async for event in task.events():
            print(event.name, event.payload)

Several tasks, one after another, on the same connection::

    async with client.connect() as connection:
        async with connection.synthesizer("你好", voice="xiaoyun") as task:
            async for audio in task.audio():
                ...
        async with connection.recognizer() as task:
            ...

Leaving a task before its last event closes the connection: that is how NLS cancels.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ssl import SSLContext, create_default_context
from typing import Any, TypeVar

from app.client.errors import ClientError, ConnectionLost
from app.client.messages import Event
from app.client.tasks import (
    LONG_SYNTHESIZER,
    RECOGNIZER,
    SYNTHESIZER,
    TRANSCRIBER,
    RecognitionTask,
    SynthesisTask,
    Vocabulary,
)
from app.client.urls import is_secure, websocket_url
from app.client.wire import Timeouts, Wire

_T = TypeVar("_T", RecognitionTask, SynthesisTask)


class TaskStarter(ABC):
    """Starts tasks; where their connection comes from is the subclass's matter.

    Each method gives an ``async with`` that holds a started task. Leaving it before the task's
    last event closes the connection.
    """

    def transcriber(
        self, *, format: str = "pcm", sample_rate: int = 16_000, **options: object
    ) -> AbstractAsyncContextManager[RecognitionTask]:
        """A SpeechTranscriber task. ``options``: nls-protocol.md 3.1, sent as given."""
        payload = {"format": format, "sample_rate": sample_rate, **options}
        return self._start(RecognitionTask, TRANSCRIBER, payload)

    def recognizer(
        self, *, format: str = "pcm", sample_rate: int = 16_000, **options: object
    ) -> AbstractAsyncContextManager[RecognitionTask]:
        """A SpeechRecognizer task. ``options``: nls-protocol.md 2.1, sent as given."""
        payload = {"format": format, "sample_rate": sample_rate, **options}
        return self._start(RecognitionTask, RECOGNIZER, payload)

    def synthesizer(
        self,
        text: str,
        *,
        voice: str | None = None,
        format: str = "pcm",
        sample_rate: int = 16_000,
        long_text: bool = False,
        **options: object,
    ) -> AbstractAsyncContextManager[SynthesisTask]:
        """A SpeechSynthesizer task; ``long_text`` makes it a SpeechLongSynthesizer.

        ``voice`` None takes the server's default. ``options``: nls-protocol.md 4.1.
        """
        payload = {"text": text, "format": format, "sample_rate": sample_rate, **options}
        if voice is not None:
            payload["voice"] = voice
        words = LONG_SYNTHESIZER if long_text else SYNTHESIZER
        return self._start(SynthesisTask, words, payload)

    async def transcribe(
        self, audio: bytes | Iterable[bytes] | AsyncIterable[bytes], **options: Any
    ) -> list[Event]:
        """Send all ``audio`` as fast as the server takes it, and return all events.

        ``options`` are those of :meth:`transcriber`. Raises what :meth:`RecognitionTask.events`
        raises.
        """
        pieces = _pieces(audio) if isinstance(audio, bytes) else audio
        async with self.transcriber(**options) as task, sending(task, pieces):
            return [task.started, *[event async for event in task.events()]]

    async def synthesize(self, text: str, **options: Any) -> bytes:
        """All audio of ``text``. ``options`` are those of :meth:`synthesizer`. Raises what
        :meth:`SynthesisTask.frames` raises."""
        async with self.synthesizer(text, **options) as task:
            return b"".join([audio async for audio in task.audio()])

    @abstractmethod
    def _start(
        self, kind: type[_T], words: Vocabulary, payload: Mapping[str, object]
    ) -> AbstractAsyncContextManager[_T]:
        """A task of this kind, started with ``payload``."""


class NlsConnection(TaskStarter):
    """An open connection, for one task at a time. Made by :meth:`NlsClient.connect`."""

    def __init__(self, wire: Wire, appkey: str, timeouts: Timeouts) -> None:
        self._wire = wire
        self._appkey = appkey
        self._timeouts = timeouts
        self._busy = False

    async def close(self) -> None:
        """Close the connection; a running task is cancelled. Closing twice does nothing."""
        await self._wire.close()

    @asynccontextmanager
    async def _start(
        self, kind: type[_T], words: Vocabulary, payload: Mapping[str, object]
    ) -> AsyncIterator[_T]:
        if self._busy:
            raise ClientError("the connection has a running task; a second one needs its own")
        self._busy = True
        task = kind(self._wire, words, self._appkey, self._timeouts)
        try:
            await task.start(payload)
            yield task
        finally:
            self._busy = False
            if not task.complete:
                await self._wire.close()


class NlsClient(TaskStarter):
    """Where the server is and who we are; makes a connection for each task and keeps none.

    ``url``: a ws or wss address, or the server's http or https one. ``token`` goes into the
    handshake. ``ssl``: for wss; by default the system's certificates are trusted.
    ``ping_interval_s``: 8 as in the Python SDK, None for no pings. ``fragment_bytes``: see
    :meth:`app.client.wire.Wire.open`.

    Everything that connects raises ServerUnreachable, AccessRefused and RequestRefused.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        appkey: str = "default",
        *,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - it is immutable
        ssl: SSLContext | None = None,
        ping_interval_s: float | None = 8.0,
        fragment_bytes: int | None = None,
    ) -> None:
        self._url = websocket_url(url)
        self._token = token
        self._appkey = appkey
        self._timeouts = timeouts
        # Made once: reading the system's certificates takes longer than a handshake.
        self._ssl = (ssl or create_default_context()) if is_secure(self._url) else None
        self._ping_interval_s = ping_interval_s
        self._fragment_bytes = fragment_bytes

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[NlsConnection]:
        """A connection for several tasks, one after another; closed at the end."""
        wire = await Wire.open(
            self._url,
            token=self._token,
            timeouts=self._timeouts,
            ssl=self._ssl,
            ping_interval_s=self._ping_interval_s,
            fragment_bytes=self._fragment_bytes,
        )
        try:
            yield NlsConnection(wire, self._appkey, self._timeouts)
        finally:
            await wire.close()

    @asynccontextmanager
    async def _start(
        self, kind: type[_T], words: Vocabulary, payload: Mapping[str, object]
    ) -> AsyncIterator[_T]:
        async with (
            self.connect() as connection,
            connection._start(kind, words, payload) as task,
        ):
            yield task


@asynccontextmanager
async def sending(
    task: RecognitionTask, pieces: Iterable[bytes] | AsyncIterable[bytes]
) -> AsyncIterator[None]:
    """Send ``pieces`` and then Stop, while the block reads the events.

    Leaving the block ends the sending. An error of ``pieces`` closes the connection, so that the
    block ends, and is raised at its end.
    """
    failures: list[Exception] = []
    sender = asyncio.create_task(_send_all(task, pieces, failures))
    try:
        yield
    finally:
        sender.cancel()
        await asyncio.wait([sender])
        if failures:
            raise failures[0]


async def _send_all(
    task: RecognitionTask,
    pieces: Iterable[bytes] | AsyncIterable[bytes],
    failures: list[Exception],
) -> None:
    try:
        async for piece in _each(pieces):
            if task.complete:
                return
            await task.send(piece)
        await task.stop()
    except ConnectionLost:
        return  # the one that reads the events learns the cause
    except Exception as error:
        failures.append(error)
        await task.cancel()  # wakes the one that reads, and may be cancelled by it


async def _each(pieces: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(pieces, AsyncIterable):
        async for piece in pieces:
            yield piece
    else:
        for piece in pieces:
            yield piece


def _pieces(audio: bytes, size: int = 3_200) -> Iterable[bytes]:
    """100 ms of 16 kHz PCM each, as the documentation recommends (nls-protocol.md 1.8)."""
    return (audio[start : start + size] for start in range(0, len(audio), size))
