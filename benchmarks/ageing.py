"""Whether a long session costs more than a fresh one: CPU time of its first and its last part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Final

from app.client.nls import NlsClient, sending
from benchmarks import audio, recognition_load, server
from benchmarks.measure import rss_mib, tree
from benchmarks.options import Options
from benchmarks.report import Figure

TITLE: Final = "A long session: what its audio costs at the end, against its beginning"

MINUTES: Final = 40
FULL_MINUTES: Final = 120
PARTS_OF_SESSION: Final = 8
WARM_UP_MINUTES: Final = 2
SENTENCE_S: Final = 4
"""With its pause."""
AHEAD_S: Final = 12
"""How far the client sends ahead of the last sentence that it has got, so that the audio of a part
is also worked on in that part, and does not wait in a socket."""

Marks = list[tuple[float, float]]
"""At the borders of the session's parts: CPU seconds so far and RSS in MiB, all processes."""


async def measure(options: Options) -> list[Figure]:
    """One transcription of 40 minutes (two hours if full), as fast as the server takes it."""
    minutes = FULL_MINUTES if options.full else MINUTES
    async with server.started(**server.FAKE) as served:
        await LongSession(served, WARM_UP_MINUTES).run()  # everything is imported and warm
        session = LongSession(served, minutes)
        await session.run()
    return compare(minutes, session.marks, session.wrong)


def compare(minutes: int, marks: Marks, wrong: int) -> list[Figure]:
    """The rows about a session of this length."""
    costs = [after - before for (before, _), (after, _) in pairwise(marks)]
    growth = marks[-1][1] - marks[1][1]
    hours, unit = minutes / 60 / PARTS_OF_SESSION, "CPU s/h of audio"
    ratio = costs[-1] / costs[0]
    return [
        Figure(f"last eighth of {minutes} min, ratio to the first", ratio, "×", "≤ 1.05"),
        Figure("all server processes, first eighth", costs[0] / hours, unit),
        Figure("all server processes, last eighth", costs[-1] / hours, unit),
        Figure("RSS of all processes, growth after the first eighth", growth, "MiB"),
        Figure("sentences lost or wrong", wrong, "", "0"),
    ]


class LongSession:
    """One transcription. :meth:`run` fills ``marks`` and ``wrong``, the number of sentences that
    are missing, too many, or not what was said."""

    def __init__(self, served: server.Served, minutes: int) -> None:
        self.marks: Marks = []
        self.wrong = 0
        self._url = served.ws
        self._script = recognition_load.sentences(minutes * 60, SENTENCE_S - 1, 1)
        self._expected = recognition_load.expected(self._script)
        self._heard = 0
        self._progress = asyncio.Event()
        self._processes = tree(served.process.pid)
        self._meter = served.cpu()

    async def run(self) -> None:
        """Send it all, and read to the end."""
        count = len(self._expected)
        borders = {count * part // PARTS_OF_SESSION for part in range(1, PARTS_OF_SESSION + 1)}
        async with (
            NlsClient(self._url).transcriber(enable_intermediate_result=True) as task,
            sending(task, self._frames()),
        ):
            self._mark()
            async for event in task.events():
                if event.name == "SentenceEnd":
                    self._note(event.payload["result"])
                    if self._heard in borders:
                        self._mark()
        self.wrong += max(0, count - self._heard)

    def _note(self, text: str) -> None:
        is_right = self._heard < len(self._expected) and text == self._expected[self._heard]
        self.wrong += not is_right
        self._heard += 1
        self._progress.set()

    def _mark(self) -> None:
        self.marks.append((sum(self._meter.used().values()), sum(map(rss_mib, self._processes))))

    async def _frames(self) -> AsyncIterator[bytes]:
        for k, (ms, is_sound) in enumerate(self._script):
            while k * audio.FRAME_MS > (self._heard * SENTENCE_S + AHEAD_S) * 1000:
                self._progress.clear()
                await self._progress.wait()
            yield recognition_load.frame(ms, is_sound)
