"""Recordings: a whole file in, all of its sentences out.

What a live stream cannot have is done here: the channels of a file are heard one after the other,
each as a task of its own, so that a call's two speakers do not talk at the same time.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

import msgspec

from app.audio.loudness import LoudnessMeter
from app.core.errors import BadAudio
from app.core.speech import RecognitionRequest, SentenceEnded
from app.services.alongside import alongside

if TYPE_CHECKING:
    from app.services.recognition import RecognitionTask

ChannelsHeard = Literal["mixed", "first", "each"]

MAX_CHANNELS: Final = 8
"""That are heard each by itself: every one costs as much as a file."""

_READ_BYTES: Final = 256 * 1024


class Recogniser(Protocol):
    """Opens tasks: :class:`app.services.recognition.RecognitionService`."""

    def open(
        self, request: RecognitionRequest, *, max_file_bytes: int | None = None
    ) -> AbstractAsyncContextManager[RecognitionTask]:
        """See there."""
        ...


@dataclass(frozen=True, slots=True)
class FileSentence:
    """What was said in a channel (from 0). ``level_db``: how loud, see
    :meth:`~app.audio.loudness.LoudnessMeter.level_db`."""

    channel: int
    sentence: SentenceEnded
    level_db: float = 0.0


@dataclass(frozen=True, slots=True)
class Transcript:
    """``audio_ms``: how long the file is. ``sentences``: of all channels, as they begin.
    ``heard_as``: what the file was taken for, for the log."""

    audio_ms: int
    sentences: tuple[FileSentence, ...]
    heard_as: dict[str, object]


@dataclass(frozen=True, slots=True)
class _Pass:
    """One way through the file."""

    audio_ms: int
    channels: int
    sentences: list[FileSentence]
    heard_as: dict[str, object]


async def recognise_file(
    recognition: Recogniser,
    path: Path,
    request: RecognitionRequest,
    channels: ChannelsHeard,
    *,
    max_bytes: int,
) -> Transcript:
    """Recognise the file at ``path``, which nobody may change meanwhile.

    ``channels``: all of them ``mixed`` to one, the ``first`` alone, or ``each`` by itself.
    ``max_bytes``: of a file that can be decoded only as a whole. Usage counts each channel that is
    heard.

    Raises:
        SpeechError: as :meth:`RecognitionService.open` and its task do. A later channel may be
            refused, too: nothing is kept of the others then.
        BadAudio: also, more channels than can be heard each by itself.
        OSError: the file cannot be read.
    """
    only = None if channels == "mixed" else 0
    first = await _pass(recognition, path, request, only, max_bytes)
    found = first.sentences
    if channels == "each":
        if first.channels > MAX_CHANNELS:
            raise BadAudio(
                f"The recording has {first.channels} channels: send at most {MAX_CHANNELS}, or "
                "first_channel_only."
            )
        for channel in range(1, first.channels):
            later = await _pass(recognition, path, request, channel, max_bytes)
            found += later.sentences
    found.sort(key=lambda each: (each.sentence.start_ms, each.channel))
    return Transcript(first.audio_ms, tuple(found), first.heard_as)


async def _pass(
    recognition: Recogniser,
    path: Path,
    request: RecognitionRequest,
    channel: int | None,
    max_bytes: int,
) -> _Pass:
    wanted = msgspec.structs.replace(request, channel=channel)
    async with recognition.open(wanted, max_file_bytes=max_bytes) as task:
        meter = task.meter = LoudnessMeter()
        sentences = [
            FileSentence(channel or 0, each, meter.level_db(each.start_ms, each.end_ms))
            for each in await alongside(_feed(task, path), _collect(task))
        ]
        return _Pass(task.audio_ms, task.channels, sentences, task.heard_as)


async def _feed(task: RecognitionTask, path: Path) -> None:
    position = 0
    while data := await asyncio.to_thread(_read, path, position):
        await task.feed_all(data)
        position += len(data)
    task.finish()


def _read(path: Path, position: int) -> bytes:
    # Opened anew each time: a task that is cancelled leaves nothing open in some thread.
    with path.open("rb") as file:
        file.seek(position)
        return file.read(_READ_BYTES)


async def _collect(task: RecognitionTask) -> list[SentenceEnded]:
    return [event async for event in task.events() if isinstance(event, SentenceEnded)]
