"""Many clients that stream speech in real time, and what they notice.

The audio is a tone that the fake engine hears as speech and tells the length of, so a lost frame
shows as a wrong text.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from time import perf_counter  # a loop's own clock may be cached, and counts whole ms in uvloop
from typing import Final

from app.client.errors import ClientError
from app.client.messages import Event
from app.client.nls import NlsClient, NlsConnection, sending
from benchmarks import audio

CHUNK_MS: Final = 200
"""The fake engine's step: a partial result is due for each of them."""

Script = list[tuple[int, bool]]
"""What a client says: (length in ms, whether it is sound), one frame each."""


def sentences(seconds: float, sound_s: int = 3, pause_s: int = 1) -> Script:
    """Sentences with pauses, in frames of 100 ms."""
    period, sound = (sound_s + pause_s) * 10, sound_s * 10
    return [(audio.FRAME_MS, k % period < sound) for k in range(round(seconds * 10))]


def utterance(ms: int) -> Script:
    """Sound without a pause; the last frame has what is left."""
    whole, rest = divmod(ms, audio.FRAME_MS)
    return [(audio.FRAME_MS, True)] * whole + ([(rest, True)] if rest else [])


@dataclass
class Noticed:
    """What all clients together have noticed; times in ms.

    ``lags``: from the moment a 200 ms chunk of sound had been spoken to the arrival of the first
    result that covers it. ``stops``: from Stop to Completed. ``late``: how late the generator
    itself sent frames, because of its own load. ``wrong``: tasks whose texts do not tell exactly
    the sound that was sent. ``failed``: why tasks failed.
    """

    tasks: int = 0
    lags: list[float] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    wrong: int = 0
    failed: list[str] = field(default_factory=list)


async def stream(
    url: str,
    sessions: int,
    scripts: Callable[[int], Iterable[Script]],
    *,
    within_s: float = 1.0,
) -> Noticed:
    """Run ``sessions`` clients, started evenly within ``within_s`` seconds.

    ``scripts(i)``: the tasks of client ``i``, one after another on one connection.
    """
    noticed = Noticed()

    async def client(index: int) -> None:
        await asyncio.sleep(within_s * index / sessions)
        try:
            async with NlsClient(url).connect() as connection:
                for script in scripts(index):
                    await _Speaker(script, noticed).run(connection)
        except ClientError as error:
            noticed.failed.append(f"{type(error).__name__}: {error}")

    async with asyncio.TaskGroup() as group:
        for index in range(sessions):
            group.create_task(client(index))
    return noticed


class _Speaker:
    """One task."""

    def __init__(self, script: Script, noticed: Noticed) -> None:
        self._script = script
        self._noticed = noticed
        self._uncovered: deque[tuple[int, float]] = deque()  # (end in ms, when it was spoken)
        self._heard: list[str] = []
        self._stopped = 0.0

    async def run(self, connection: NlsConnection) -> None:
        """Speak the script in real time, and read until the task is complete."""
        async with (
            connection.transcriber(enable_intermediate_result=True) as task,
            sending(task, self._frames()),
        ):
            async for event in task.events():
                self._note(event, perf_counter())
        self._noticed.tasks += 1
        if self._heard != expected(self._script):
            self._noticed.wrong += 1

    async def _frames(self) -> AsyncIterator[bytes]:
        began = perf_counter()
        position = 0
        for ms, is_sound in self._script:
            position += ms
            due = began + position / 1000
            await asyncio.sleep(max(0.0, due - perf_counter()))
            self._noticed.late.append((perf_counter() - due) * 1000)
            if is_sound and position % CHUNK_MS == 0:
                self._uncovered.append((position, due))
            yield frame(ms, is_sound)
        self._stopped = perf_counter()

    def _note(self, event: Event, now: float) -> None:
        if event.name == "TranscriptionCompleted":
            self._noticed.stops.append((now - self._stopped) * 1000)
        elif event.name in ("TranscriptionResultChanged", "SentenceEnd"):
            while self._uncovered and self._uncovered[0][0] <= event.payload["time"]:
                _, spoken_at = self._uncovered.popleft()
                self._noticed.lags.append((now - spoken_at) * 1000)
            if event.name == "SentenceEnd":
                self._heard.append(event.payload["result"])


def expected(script: Script) -> list[str]:
    """What the fake engine says of a script; see ``app/engines/fake/recognizer.py``."""
    lengths: list[int] = []
    was_sound = False
    for ms, is_sound in script:
        if is_sound and not was_sound:
            lengths.append(0)
        if is_sound:
            lengths[-1] += ms
        was_sound = is_sound
    return [f"heard {ms} ms" for ms in lengths]


@cache
def frame(ms: int, is_sound: bool) -> bytes:
    """The audio of one frame of a script."""
    return audio.tone(ms) if is_sound else audio.silence(ms)
