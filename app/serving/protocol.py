"""What an API process and an engine worker say to each other over their Unix socket.

A message is a 4-byte little-endian length and a msgpack array whose first item is the message's
number. Audio is raw signed 16-bit little-endian mono at the engine's rate, inside the message.

    API process                                 worker
      ──────────────────────────────────────────►  (connects)
      ◄─ Hello(version, what it can do)
      ─ OpenRecognition ─►        ◄─ Granted | Refused
      ─ Audio* ─►                 ◄─ Recognized*, Processed*      (credit: AUDIO_IN_CREDIT_S)
      ─ EndOfAudio ─►             ◄─ Done | Failed
      ─ OpenSynthesis ─►          ◄─ Granted | Refused
      ─ Credit* ─►                ◄─ Speech*, Done | Failed       (credit: AUDIO_OUT_CREDIT_S)
      ─ Cancel ─►                 (nothing more about that task)

Flow control is per task and in both directions. The API process has at most ``AUDIO_IN_CREDIT_S``
of audio on its way that ``Processed`` has not yet returned; the worker sends at most
``AUDIO_OUT_CREDIT_S`` that ``Credit`` has not. The end of the connection cancels all its tasks.
Before each write the worker adds its ``Load`` if that changed, so every answer carries it.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

from app.core.speech import Mark, RecognitionEvent, RecognitionOptions, Role, Utterance
from app.engines.base import RecognizerCapabilities, SynthesizerCapabilities

PROTOCOL_VERSION: Final = 1
AUDIO_IN_CREDIT_S: Final = 5.0
AUDIO_OUT_CREDIT_S: Final = 2.0
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
_LENGTH: Final = struct.Struct("<I")


class _Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages."""


class OpenRecognition(_Message, frozen=True, array_like=True, tag=1):
    """Start recognising; ``task`` is chosen by the API process, unique on its connection."""

    task: int
    options: RecognitionOptions
    log_id: str = ""


class Audio(_Message, frozen=True, array_like=True, tag=2):
    """More audio of a recognition task."""

    task: int
    pcm: bytes


class EndOfAudio(_Message, frozen=True, array_like=True, tag=3):
    """No more audio: recognise the rest and answer ``Done``."""

    task: int


class Configure(_Message, frozen=True, array_like=True, tag=4):
    """Change the end-of-sentence silence of a running task."""

    task: int
    max_sentence_silence_ms: int


class OpenSynthesis(_Message, frozen=True, array_like=True, tag=5):
    """Speak one utterance."""

    task: int
    utterance: Utterance
    log_id: str = ""


class Credit(_Message, frozen=True, array_like=True, tag=6):
    """The API process has passed on so many samples of the task's speech."""

    task: int
    samples: int


class Cancel(_Message, frozen=True, array_like=True, tag=7):
    """Forget the task. Nothing about it follows, not even ``Done``."""

    task: int


class Hello(_Message, frozen=True, array_like=True, tag=16):
    """The worker's first message on a connection; sent once the engine is loaded."""

    version: int
    name: str
    role: Role
    engine: str
    device: str
    capacity: int
    recognizer: RecognizerCapabilities | None = None
    synthesizer: SynthesizerCapabilities | None = None


class Granted(_Message, frozen=True, array_like=True, tag=17):
    """The task runs."""

    task: int


class Refused(_Message, frozen=True, array_like=True, tag=18):
    """The task does not run; an error class of ``app/core/errors.py`` and its text."""

    task: int
    error: str
    text: str


class Recognized(_Message, frozen=True, array_like=True, tag=19):
    """An event of a recognition task."""

    task: int
    event: RecognitionEvent


class Processed(_Message, frozen=True, array_like=True, tag=20):
    """So many more samples are done with: credit, and progress."""

    task: int
    samples: int


class Speech(_Message, frozen=True, array_like=True, tag=21):
    """Some of an utterance's audio."""

    task: int
    pcm: bytes
    marks: tuple[Mark, ...] = ()


class Done(_Message, frozen=True, array_like=True, tag=22):
    """The task is complete; everything about it has been sent."""

    task: int


class Failed(_Message, frozen=True, array_like=True, tag=23):
    """The task ended with an error; class name and text as in ``Refused``."""

    task: int
    error: str
    text: str


class Load(_Message, frozen=True, array_like=True, tag=24):
    """Tasks that this replica has now, of all API processes together."""

    active: int


ToWorker = OpenRecognition | Audio | EndOfAudio | Configure | OpenSynthesis | Credit | Cancel
ToApi = Hello | Granted | Refused | Recognized | Processed | Speech | Done | Failed | Load


class Link(asyncio.Protocol):
    """One end of the socket: messages out, coalesced into few writes; messages in, by callback.

    Not for subclassing: ``on_message`` gets each decoded message, ``on_lost`` is called once. Both
    run on the event loop. Writes never block: what is outstanding is bounded by the credits.
    ``before_flush`` may add messages to the write that is about to happen.
    """

    def __init__(
        self,
        incoming: Any,
        on_message: Callable[[Any], None],
        on_lost: Callable[[], None],
        before_flush: Callable[[], msgspec.Struct | None] = lambda: None,
    ) -> None:
        self._decoder = msgspec.msgpack.Decoder(incoming)
        self._encoder = msgspec.msgpack.Encoder()
        self._on_message = on_message
        self._on_lost = on_lost
        self._before_flush = before_flush
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._in = bytearray()
        self._out: list[bytes] = []
        self._flush_at: asyncio.Handle | None = None
        self._flush_is_soon = False

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, message: _Message, *, within_s: float = 0.0) -> None:
        """Send with the next write, which happens within ``within_s`` seconds, or, if 0, at the
        end of this round of the event loop. On a closed link the message is dropped."""
        if not self.is_open:
            return
        self._encode(message)
        if within_s <= 0.0:
            if not self._flush_is_soon:
                if self._flush_at is not None:
                    self._flush_at.cancel()
                self._flush_at = self._loop.call_soon(self._flush)
                self._flush_is_soon = True
        elif self._flush_at is None:
            self._flush_at = self._loop.call_later(within_s, self._flush)

    def close(self) -> None:
        """Write what is waiting and close."""
        if self._transport is not None and not self._transport.is_closing():
            self._flush()
            self._transport.close()

    def _encode(self, message: msgspec.Struct) -> None:
        body = self._encoder.encode(message)
        self._out += (_LENGTH.pack(len(body)), body)

    def _flush(self) -> None:
        if self._flush_at is not None:
            self._flush_at.cancel()
            self._flush_at = None
        self._flush_is_soon = False
        extra = self._before_flush()
        if extra is not None:
            self._encode(extra)
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        if self._flush_at is not None:
            self._flush_at.cancel()
        self._on_lost()

    def data_received(self, data: bytes) -> None:
        self._in += data
        position, available = 0, len(self._in)
        with memoryview(self._in) as view:
            while available - position >= 4:
                (length,) = _LENGTH.unpack_from(view, position)
                if length > MAX_MESSAGE_BYTES:
                    self._fail()
                    break
                if available - position - 4 < length:
                    break
                with view[position + 4 : position + 4 + length] as body:
                    try:
                        message = self._decoder.decode(body)
                    except msgspec.MsgspecError:
                        self._fail()
                        break
                position += 4 + length
                self._on_message(message)
        del self._in[:position]

    def _fail(self) -> None:
        if self._transport is not None:
            self._transport.abort()
