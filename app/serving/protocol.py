"""What an API process and an engine worker say to each other over their Unix socket.

Messages travel as ``link.py`` has it. Audio is raw signed 16-bit little-endian mono at the engine's
rate, inside the message.

    API process                                 worker
      ──────────────────────────────────────────►  (connects)
      ◄─ Hello(version, what it can do)
      ─ OpenRecognition ─►        ◄─ Granted | Refused
      ─ Audio*, SourceRate ─►     ◄─ Recognized*, Processed*      (credit: AUDIO_IN_CREDIT_S)
      ─ EndOfAudio ─►             ◄─ Done | Failed
      ─ OpenSynthesis ─►          ◄─ Granted | Refused
      ─ Credit* ─►                ◄─ Speech*, Done | Failed       (credit: AUDIO_OUT_CREDIT_S)
      ─ Cancel ─►                 (nothing more about that task)
                                  ◄─ Leaving                      (before a planned end)

Flow control is per task and in both directions. The API process has at most ``AUDIO_IN_CREDIT_S``
of audio on its way that ``Processed`` has not yet returned; the worker sends at most
``AUDIO_OUT_CREDIT_S`` that ``Credit`` has not. The end of the connection cancels all its tasks.
Before each write the worker adds its ``Load`` if that changed, so every answer carries it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from app.core.speech import Mark, RecognitionEvent, RecognitionOptions, Role, Utterance
from app.engines.base import RecognizerCapabilities, SynthesizerCapabilities

PROTOCOL_VERSION: Final = 1
AUDIO_IN_CREDIT_S: Final = 5.0
AUDIO_OUT_CREDIT_S: Final = 2.0


class _Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages."""


class OpenRecognition(_Message, frozen=True, array_like=True, tag=1):
    """Start recognising; ``task`` is chosen by the API process, unique on its connection.
    ``accepted``: the stream ran elsewhere before, so that it has a claim, beyond the capacity if
    need be, before those that are new."""

    task: int
    options: RecognitionOptions
    log_id: str = ""
    accepted: bool = False


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
    """Speak one utterance.

    ``lead_s``: None for the first one of a new text, which the worker may refuse when its audio
    would come too late. For what follows in a text that was accepted (or is repeated after a
    worker's death), the seconds of audio that the listener has still to play before it.
    """

    task: int
    utterance: Utterance
    log_id: str = ""
    lead_s: float | None = None


class Credit(_Message, frozen=True, array_like=True, tag=6):
    """The API process has passed on so many samples of the task's speech."""

    task: int
    samples: int


class Cancel(_Message, frozen=True, array_like=True, tag=7):
    """Forget the task. Nothing about it follows, not even ``Done``."""

    task: int


class SourceRate(_Message, frozen=True, array_like=True, tag=8):
    """What the client sends has another rate (Hz) than the options of the task said: a header in
    the audio told. Comes before that audio."""

    task: int
    source_rate: int


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


class Leaving(_Message, frozen=True, array_like=True, tag=25):
    """This replica is about to end. It takes no new tasks; a stream goes elsewhere at its next
    sentence border, if there is room. What is still here at the end is lost and repeated."""


ToWorker = (
    OpenRecognition | Audio | EndOfAudio | Configure | OpenSynthesis | Credit | Cancel | SourceRate
)
ToApi = Hello | Granted | Refused | Recognized | Processed | Speech | Done | Failed | Load | Leaving
