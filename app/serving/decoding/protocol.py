"""What an API process and the decode process say to each other, by ``link.py``.

    API process (client.py)                     decode process (server.py)
      ──────────────────────────────────────────►  (connects)
      ◄─ Welcome
      ─ Open ─►
      ─ Data* ─►                  ◄─ Taken*             (credit: DATA_CREDIT_BYTES)
      ─ End ─►                    ◄─ Turn*              (only of a suspect, around each step)
      ─ Credit* ─►                ◄─ Pcm*, Done | Failed  (credit: PCM_CREDIT_BYTES)
      ─ Cancel ─►                 (nothing more about that task)
      ─ Discard ─►                (the file of a task that is over)

A task is a stream (``spool`` empty), decoded as its bytes arrive, or a file, which is written to
``spool`` and decoded when it is whole. A message of a client stays one ``Data``: for bare Opus
packets its borders are the framing.

The end of the connection cancels all its tasks. When it was the decode process that died, the API
process opens its tasks again at the next one, from what ``Taken`` told last, as suspects: a suspect
works alone, and says so before each step, so the next death has a culprit.
"""

from __future__ import annotations

from typing import Final

import msgspec

DATA_CREDIT_BYTES: Final = 256 * 1024
PCM_CREDIT_BYTES: Final = 512 * 1024
MAX_PCM_BYTES: Final = 128 * 1024
"""Of one ``Pcm``."""


class _Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages."""


class Open(_Message, frozen=True, array_like=True, tag=1):
    """Decode; ``task`` is chosen by the API process, unique on its connection.

    ``kind``: a value of :class:`app.audio.sniff.Kind` that is not local. ``sample_rate``: what the
    client says (Hz). ``max_bytes``, ``max_audio_ms``: more fails the task; None for no limit.
    ``spool``: hex digits, the file's name in the decode process' folder; "" for a stream.
    ``taken``: bytes of it that are in that file already. ``preamble``: of ``Taken``, for a stream
    that goes on. ``suspect_bytes``: of a task that is
    opened again: it is a suspect until it has consumed so many bytes (a file: to its end).
    ``channel``: the one to hear, from 0; None: all, mixed.
    """

    task: int
    kind: str
    sample_rate: int
    max_bytes: int | None = None
    max_audio_ms: int | None = None
    spool: str = ""
    taken: int = 0
    preamble: bytes = b""
    suspect_bytes: int = 0
    log_id: str = ""
    channel: int | None = None


class Data(_Message, frozen=True, array_like=True, tag=2):
    """The next bytes of a client."""

    task: int
    data: bytes


class End(_Message, frozen=True, array_like=True, tag=3):
    """No more bytes."""

    task: int


class Credit(_Message, frozen=True, array_like=True, tag=4):
    """So many bytes of ``Pcm`` have been passed on."""

    task: int
    pcm_bytes: int


class Cancel(_Message, frozen=True, array_like=True, tag=5):
    """Forget the task. Nothing about it follows."""

    task: int


class Discard(_Message, frozen=True, array_like=True, tag=6):
    """Remove the file of a task that ended while no process was there."""

    spool: str


class Welcome(_Message, frozen=True, array_like=True, tag=16):
    """The first message on a connection."""


class Turn(_Message, frozen=True, array_like=True, tag=17):
    """A suspect begins a step (``running``), or has ended it."""

    task: int
    running: bool


class Taken(_Message, frozen=True, array_like=True, tag=18):
    """``consumed``: bytes since ``Open`` that are done with: credit. ``restart``: how many of them
    the next process would not need, if it got ``preamble`` first; ``samples``: those sent since
    ``Open`` that it would not send again."""

    task: int
    consumed: int
    restart: int
    samples: int
    preamble: bytes = b""


class Pcm(_Message, frozen=True, array_like=True, tag=19):
    """Audio: mono s16le at ``sample_rate`` (Hz), which may change from one to the next."""

    task: int
    sample_rate: int
    pcm: bytes


class Done(_Message, frozen=True, array_like=True, tag=20):
    """All of it is decoded and sent. ``channels``: the most that the audio has at a time."""

    task: int
    channels: int = 1


class Failed(_Message, frozen=True, array_like=True, tag=21):
    """It cannot be decoded; an error class of ``app/core/errors.py`` and its text."""

    task: int
    error: str
    text: str


ToDecoder = Open | Data | End | Credit | Cancel | Discard
FromDecoder = Welcome | Turn | Taken | Pcm | Done | Failed
