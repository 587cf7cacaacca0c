"""What clients that behave badly do to others: the lag of good streams alone, and beside them.

Each kind has a server of its own, on which the good streams run twice: alone, and then beside the
disturbers (``disturbers.py``, in their own process). So the ratio of the two is what the machine's
other work spares.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import psutil

from benchmarks import recognition_load, server
from benchmarks.crowd import Tally
from benchmarks.measure import CpuMeter, ProcessChanged, percentile, rss_mib, tree
from benchmarks.options import Options
from benchmarks.recognition_load import Noticed
from benchmarks.report import Figure

TITLE: Final = "Lag of interim results beside clients that behave badly"
PARTS: Final = 8
"""Measured parts of ``seconds`` each."""

DELAY_MS: Final = 50.0
ITEM_MS: Final = 0.5

LABELS: Final = {
    "unread": "32 long syntheses that nobody reads",
    "flood": "8 clients at 100 × real time",
    "drip": "200 clients, a byte a second",
    "idle": "1,000 idle connections",
}
READY_TIMEOUT_S: Final = 30.0
SAMPLE_S: Final = 0.25


class DisturberFailed(Exception):
    """The disturbers did not get going, or ended early; the text is what they printed."""


@dataclass
class Memory:
    """Resident memory of all processes of a server, in MiB, sampled while something ran."""

    samples: list[float] = field(default_factory=list)

    @property
    def peak(self) -> float:
        """The most."""
        return max(self.samples)

    @property
    def late_growth(self) -> float:
        """How much higher the peak of the second half is than that of the first: near 0 where
        what grew is bounded."""
        half = len(self.samples) // 2
        return max(self.samples[half:]) - max(self.samples[: max(half, 1)])


@dataclass(frozen=True, slots=True)
class Side:
    """The good streams' run, alone or beside disturbers."""

    noticed: Noticed
    memory: Memory

    @property
    def lag(self) -> float:
        """p99 in ms."""
        return percentile(self.noticed.lags, 99)

    @property
    def late(self) -> float:
        """How late the generator of the good streams was, p99 in ms."""
        return percentile(self.noticed.late, 99)


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What the disturbers did; ``cores``: CPU time per second."""

    tally: Tally
    cores: float


async def measure(options: Options) -> list[Figure]:
    """``sessions`` good streams (40), ``seconds`` alone and as long beside each kind (5)."""
    seconds, sessions = options.seconds or 5.0, options.sessions or 40
    figures: list[Figure] = []
    wrong = 0
    for kind, label in LABELS.items():
        async with server.started(
            **server.FAKE, FAKE_ASR_DELAY_MS=str(DELAY_MS), FAKE_ASR_ITEM_MS=str(ITEM_MS)
        ) as served:
            # The first run of all loads what is loaded on use, which is nobody's growth.
            await recognition_load.stream(
                served.ws, sessions, lambda _: [recognition_load.sentences(0.5)]
            )
            alone = await _side(served, sessions, seconds)
            async with _disturbing(kind, served.port) as disturbing:
                beside = await _side(served, sessions, seconds)
            done = disturbing[0]
        figures += compare(kind, label, alone, beside, done)
        wrong += sum(side.noticed.wrong + len(side.noticed.failed) for side in (alone, beside))
    return [*figures, Figure("good streams that failed or lost audio", wrong, "", "0")]


def compare(kind: str, label: str, alone: Side, beside: Side, done: Disturbance) -> list[Figure]:
    """The rows about one kind of disturber."""
    tally = done.tally
    growth = beside.memory.peak - alone.memory.peak
    late_growth = beside.memory.late_growth - alone.memory.late_growth
    return [
        Figure(f"{kind}: {label}: p99 lag, ratio", beside.lag / alone.lag, "×", "≤ 2"),
        Figure(f"  {kind}: alone", alone.lag, "ms"),
        Figure(f"  {kind}: beside them", beside.lag, "ms"),
        Figure(f"  {kind}: growth of RSS, all processes", growth, "MiB"),
        Figure(f"  {kind}: growth in the second half", late_growth, "MiB"),
        Figure(f"  {kind}: good streams sent late by, p99, alone", alone.late, "ms"),
        Figure(f"  {kind}: good streams sent late by, p99, beside", beside.late, "ms"),
        Figure(f"  {kind}: disturbers late by, p99", tally.late_ms, "ms"),
        Figure(f"  {kind}: disturbers' connections", tally.opened, ""),
        Figure(f"  {kind}: disturbers sent", tally.sent_bytes / 1e6, "MB"),
        Figure(f"  {kind}: disturbers' CPU time", done.cores, "cores"),
    ]


async def _side(served: server.Served, sessions: int, seconds: float) -> Side:
    memory = Memory()
    script = recognition_load.sentences(seconds)
    sampling = asyncio.create_task(_sample(tree(served.process.pid), memory))
    try:
        noticed = await recognition_load.stream(served.ws, sessions, lambda _: [script])
        if sampling.done():
            sampling.result()
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
    return Side(noticed, memory)


async def _sample(processes: list[psutil.Process], memory: Memory) -> None:
    """Goes on until it is cancelled.

    Raises:
        ProcessChanged: a process of the server has ended. The good streams may not have noticed,
            but its memory is gone.
    """
    while True:
        try:
            memory.samples.append(sum(rss_mib(process) for process in processes))
        except psutil.NoSuchProcess as error:
            raise ProcessChanged(f"process {error.pid} has ended") from None
        await asyncio.sleep(SAMPLE_S)


@asynccontextmanager
async def _disturbing(kind: str, port: int) -> AsyncIterator[list[Disturbance]]:
    """All disturbers of a kind are at it; the list has what they did after the block.

    Raises:
        DisturberFailed: as it says.
    """
    done: list[Disturbance] = []
    with tempfile.TemporaryDirectory(prefix="funspeech-bench-") as folder:
        process = await server.launch("benchmarks.disturbers", kind, str(port), folder=Path(folder))
        try:
            await _until_ready(process)
            meter, began = CpuMeter(process.pid), asyncio.get_running_loop().time()
            yield done
            cpu, took = sum(meter.used().values()), asyncio.get_running_loop().time() - began
            done.append(Disturbance(await _ended(process), cpu / took))
        finally:
            await server.end(process)


async def _until_ready(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            line = await process.stdout.readline()
    except TimeoutError:
        raise DisturberFailed("the disturbers do not get ready") from None
    if line != b"ready\n":
        raise DisturberFailed((line + await process.stdout.read()).decode(errors="replace"))


async def _ended(process: asyncio.subprocess.Process) -> Tally:
    assert process.stdout is not None
    process.send_signal(signal.SIGTERM)
    output = await process.stdout.read()
    try:
        return msgspec.json.decode(output, type=Tally)
    except msgspec.DecodeError:
        raise DisturberFailed(output.decode(errors="replace")) from None
