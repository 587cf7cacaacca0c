"""Many clients that speak without an end, in real time, to a recogniser of which nothing is known
but the chunks that it takes.

A client's lag: an interim result tells by its ``time`` up to where it has heard. From the moment
the frame with that moment in it had been spoken (not: sent, so a stalled connection counts) to the
arrival of the result. Chunks in which no new text was found have no result, and no lag; how many
have one is told as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from app.client.errors import ClientError
from app.client.messages import Event
from app.client.nls import NlsClient, sending
from benchmarks import audio
from benchmarks.asr_speech import speech

SILENCE_MS: Final = 6_000
"""The most that NLS allows: pauses in the speech do not end its sentence, so that a stream has work
in every chunk."""

_FRAME_BYTES: Final = audio.RATE * audio.FRAME_MS // 1000 * 2


@dataclass(frozen=True, slots=True)
class Timing:
    """``ramp_s``: the clients start evenly within it. ``settle_s``: then nothing is measured, while
    what the start brought with it is worked off. ``seconds`` are measured. ``chunk_s``: audio in a
    step of the recogniser."""

    ramp_s: float = 3.0
    settle_s: float = 3.0
    seconds: float = 8.0
    chunk_s: float = 0.6


@dataclass
class Noticed:
    """What all clients together have noticed while they were measured, in ms; ``chunks``: that
    became full in that time. ``late``: how late the generator sent frames, by its own load."""

    chunks: float = 0.0
    lags: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


async def speak(url: str, clients: int, timing: Timing) -> Noticed:
    """Run so many clients, and leave in the middle of what they say."""
    noticed = Noticed(chunks=clients * timing.seconds / timing.chunk_s)
    began = perf_counter()
    length_s = (
        timing.ramp_s + timing.settle_s + timing.seconds + 1.0
    )  # they are left before its end
    measured_from = began + timing.ramp_s + timing.settle_s
    until = measured_from + timing.seconds

    async def client(index: int) -> None:
        await asyncio.sleep(timing.ramp_s * index / clients)
        pcm = speech(index, length_s).tobytes()
        speaker = _Speaker(pcm, noticed, measured_from)
        try:
            async with asyncio.timeout_at(
                asyncio.get_running_loop().time() + until - perf_counter()
            ):
                await speaker.run(url)
            noticed.failed.append("the server ended the task")
        except TimeoutError:
            pass  # it leaves
        except ClientError as error:
            noticed.failed.append(f"{type(error).__name__}: {error}")

    async with asyncio.TaskGroup() as group:
        for index in range(clients):
            group.create_task(client(index))
    return noticed


class _Speaker:
    """One task; it is left before its speech ends."""

    def __init__(self, pcm: bytes, noticed: Noticed, measured_from: float) -> None:
        self._pcm = pcm
        self._noticed = noticed
        self._measured_from = measured_from
        self._began = 0.0

    async def run(self, url: str) -> None:
        """Speak and read until cancelled, or until the server ends the task."""
        async with (
            NlsClient(url).transcriber(
                enable_intermediate_result=True, max_sentence_silence=SILENCE_MS
            ) as task,
            sending(task, self._spoken()),
        ):
            async for event in task.events():
                self._note(event, perf_counter())

    async def _spoken(self) -> AsyncIterator[bytes]:
        self._began = perf_counter()
        for count, start in enumerate(range(0, len(self._pcm), _FRAME_BYTES), 1):
            due = self._began + count * audio.FRAME_MS / 1000
            await asyncio.sleep(max(0.0, due - perf_counter()))
            if due >= self._measured_from:
                self._noticed.late.append((perf_counter() - due) * 1000)
            yield self._pcm[start : start + _FRAME_BYTES]

    def _note(self, event: Event, now: float) -> None:
        if event.name != "TranscriptionResultChanged" or now < self._measured_from:
            return
        frames = -(-int(event.payload["time"]) // audio.FRAME_MS)
        spoken_at = self._began + frames * audio.FRAME_MS / 1000
        self._noticed.lags.append((now - spoken_at) * 1000)
