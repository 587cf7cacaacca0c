"""Clips through a server, as clients would send them, and what came of each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from app.cli.evaluate_manifest import Clip
from app.cli.recording import PIECES_PER_SECOND, NotUsable, open_recording
from app.cli.sound import samples
from app.cli.target import ACCESS_DENIED
from app.client.errors import AccessRefused, ClientError, NlsTaskFailed, ServerUnreachable
from app.client.messages import sentence
from app.client.nls import NlsClient, sending
from app.core.joining import join_sentences

_DECODED_RATE: Final = 16_000
_MAX_RAW_RATE: Final = 48_000
"""In Hz: the highest that the doors take for raw samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """``speed``: times faster than speech; 0: as fast as the server takes it. ``parallel``: clips
    at a time. ``numerals``: ask for numbers in figures. ``sample_rate``: of files that are raw PCM,
    in Hz."""

    speed: float = 1.0
    parallel: int = 1
    numerals: bool = True
    sample_rate: int | None = None


@dataclass(frozen=True, slots=True)
class Audio:
    """16-bit mono PCM."""

    pcm: bytes
    sample_rate: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.pcm) / (2 * self.sample_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a server made of one clip of so many ``seconds``.

    ``latency_ms``: from the end of the clip (the moment when its last sample was due, for
    ``speed`` 0 when it was taken) to Completed. ``first_ms``: from the start of the clip to the
    first text; None: there was none. ``failure``: why there is no result; the times then mean
    nothing. ``unusable``: it never got to the server.
    """

    seconds: float = 0.0
    text: str = ""
    latency_ms: float = 0.0
    first_ms: float | None = None
    failure: str = ""
    unusable: bool = False


@dataclass(slots=True)
class Run:
    """All clips through one server: outcomes by the clip's id. ``wall_s``: how long that took.
    ``cpu_s``: CPU time of the server's processes; None where it cannot be known. ``engine``: the
    one that recognised, with what it says of itself; empty where that is not known."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    wall_s: float = 0.0
    cpu_s: float | None = None
    engine: str = ""


async def stream(
    client: NlsClient, clips: Sequence[Clip], pace: Pace, done: Callable[[Clip, Outcome], None]
) -> Run:
    """Stream the clips in their order, ``pace.parallel`` at a time; ``done`` is told each outcome.

    Raises:
        ServerUnreachable, AccessRefused, NlsTaskFailed: the server takes nothing from us.
    """
    run = Run()
    waiting = iter(clips)

    async def work() -> None:
        for clip in waiting:
            outcome = await _outcome(client, clip, pace)
            run.outcomes[clip.id] = outcome
            done(clip, outcome)

    clock = asyncio.get_running_loop().time
    began = clock()
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(pace.parallel):
                group.create_task(work())
    except* ClientError as refused:
        raise refused.exceptions[0] from None
    run.wall_s = clock() - began
    return run


async def _outcome(client: NlsClient, clip: Clip, pace: Pace) -> Outcome:
    try:
        audio = await asyncio.to_thread(load, clip.path, pace.sample_rate)
    except NotUsable as error:
        return Outcome(failure=str(error), unusable=True)
    try:
        return await _recognise(client, audio, pace)
    except (ServerUnreachable, AccessRefused):
        raise
    except ClientError as error:
        if isinstance(error, NlsTaskFailed) and error.code == ACCESS_DENIED:
            raise
        return Outcome(seconds=audio.seconds, failure=str(error))


async def _recognise(client: NlsClient, audio: Audio, pace: Pace) -> Outcome:
    texts: list[str] = []
    first: float | None = None
    clock = asyncio.get_running_loop().time
    async with client.transcriber(
        sample_rate=audio.sample_rate,
        enable_intermediate_result=True,
        enable_punctuation_prediction=True,
        enable_inverse_text_normalization=pace.numerals,
    ) as task:
        pacer = _Pacer(audio, pace.speed)
        async with sending(task, pacer.pieces()):
            async for event in task.events():
                if first is None and event.payload.get("result"):
                    first = clock()
                if event.name == "SentenceEnd":
                    texts.append(sentence(event).result)
            completed = clock()
    return Outcome(
        seconds=audio.seconds,
        text=join_sentences(texts),
        latency_ms=1000 * (completed - pacer.ended),
        first_ms=None if first is None else 1000 * (first - pacer.began),
    )


class _Pacer:
    """Sends a piece when it would have been spoken. ``began``, ``ended``: of the clip, by the
    event loop's clock."""

    def __init__(self, audio: Audio, speed: float) -> None:
        self._audio = audio
        self._speed = speed
        self.began = self.ended = asyncio.get_running_loop().time()

    async def pieces(self) -> AsyncIterator[bytes]:
        clock = asyncio.get_running_loop().time
        self.began = due = clock()
        size = 2 * (self._audio.sample_rate // PIECES_PER_SECOND)
        bytes_per_second = 2 * self._audio.sample_rate
        for start in range(0, len(self._audio.pcm), size):
            piece = self._audio.pcm[start : start + size]
            if self._speed:
                due += len(piece) / bytes_per_second / self._speed
                await asyncio.sleep(max(0.0, due - clock()))
            yield piece
        self.ended = due if self._speed else clock()


def load(path: Path, raw_rate: int | None) -> Audio:
    """A file's samples: those of 16-bit mono WAV and raw PCM as they are, others at 16 kHz.

    ``raw_rate``: what it is if it is raw PCM, in Hz.

    Raises:
        NotUsable: no such file, it cannot be decoded, or it is empty.
    """
    recording = open_recording(path, raw_rate)
    if (
        recording.format == "pcm"
        and recording.bytes_per_second
        and (recording.sample_rate <= _MAX_RAW_RATE)
    ):
        try:
            pcm = b"".join(recording.pieces())
        except OSError as error:
            raise NotUsable(f"{path}: {error.strerror}") from error
        audio = Audio(pcm[: len(pcm) // 2 * 2], recording.sample_rate)
    else:
        decoded = [piece for piece in samples(path, _DECODED_RATE, raw_rate) if piece.size]
        pcm = np.concatenate(decoded).astype("<i2").tobytes() if decoded else b""
        audio = Audio(pcm, _DECODED_RATE)
    if not audio.pcm:
        raise NotUsable(f"{path} has no audio")
    return audio
